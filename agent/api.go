package agent

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"dive-agent/report"
)

// Overview is the agent as a whole, as the local socket tells it.
type Overview struct {
	Host      string           `json:"host"`
	Version   string           `json:"version"`
	Started   time.Time        `json:"started"`
	Revision  *Revision        `json:"revision,omitempty"`
	Refused   *Refusal         `json:"refused,omitempty"`
	Source    SourceHealth     `json:"source"`
	Instances []*report.Status `json:"instances"`
}

// Overview tells all there is to tell.
func (a *Agent) Overview(ctx context.Context) (*Overview, error) {
	a.mu.Lock()
	o := &Overview{Host: a.Host, Revision: a.revision, Refused: a.refused, Source: a.source}
	a.mu.Unlock()
	for _, w := range a.sorted() {
		status, err := a.Status(ctx, w.name)
		if err != nil {
			return nil, err
		}
		o.Instances = append(o.Instances, status)
	}
	return o, nil
}

// API serves the agent to the commands on the same host. The socket's permissions are its only protection; it tells no
// secret. poll polls the source once and returns when its answer was taken.
func (a *Agent) API(version string, started time.Time, poll func(context.Context) error) http.Handler {
	answer := func(rw http.ResponseWriter, body any, err error) { answer(rw, body, a.Redactor.Error(err)) }
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/overview", func(rw http.ResponseWriter, r *http.Request) {
		overview, err := a.Overview(r.Context())
		if overview != nil {
			overview.Version, overview.Started = version, started
		}
		answer(rw, overview, err)
	})
	mux.HandleFunc("GET /v1/instances/{name}", func(rw http.ResponseWriter, r *http.Request) {
		status, err := a.Status(r.Context(), r.PathValue("name"))
		answer(rw, status, err)
	})
	mux.HandleFunc("GET /v1/instances/{name}/history", func(rw http.ResponseWriter, r *http.Request) {
		limit, _ := strconv.Atoi(r.FormValue("limit"))
		history, err := a.history(r.Context(), r.PathValue("name"), limit)
		answer(rw, history, err)
	})
	mux.HandleFunc("GET /v1/events", a.serveEvents)
	mux.HandleFunc("POST /v1/poll", func(rw http.ResponseWriter, r *http.Request) {
		answer(rw, Accepted{}, poll(r.Context()))
	})
	mux.HandleFunc("POST /v1/instances/{name}/{order}", func(rw http.ResponseWriter, r *http.Request) {
		accepted, err := a.order(r, poll)
		answer(rw, accepted, err)
	})
	return mux
}

// Accepted is the answer to an order.
type Accepted struct {
	After  int64  `json:"after"`            // rounds with a higher number have seen the order
	From   string `json:"from,omitempty"`   // of a rollback: the revision that is not tried again
	To     string `json:"to,omitempty"`     // and the one that it goes back to
	Source string `json:"source,omitempty"` // why the fleet repository could not be asked; the order holds all the same
}

func (a *Agent) order(r *http.Request, poll func(context.Context) error) (accepted Accepted, err error) {
	name := r.PathValue("name")
	switch r.PathValue("order") {
	case "sync":
		if err := poll(r.Context()); err != nil {
			accepted.Source = a.Redactor.String(err.Error())
		}
		accepted.After, err = a.Sync(name, r.FormValue("retry") == "true")
	case "verify":
		accepted.After, err = a.Verify(name)
	case "suspend":
		err = a.Suspend(r.Context(), name, r.FormValue("by"), r.FormValue("reason"))
	case "rollback":
		accepted.From, accepted.To, err = a.Rollback(r.Context(), name, r.FormValue("by"), r.FormValue("reason"))
	case "resume":
		err = a.Resume(r.Context(), name)
	default:
		err = errors.New("unknown order " + r.PathValue("order"))
	}
	return accepted, err
}

func (a *Agent) history(ctx context.Context, name string, limit int) ([]report.Run, error) {
	if _, err := a.find(name); err != nil {
		return nil, err
	}
	runs, steps, err := a.History(ctx, name, limit)
	told := make([]report.Run, 0, len(runs))
	for _, run := range runs {
		told = append(told, ReportRun(run, steps[run.ID], a.Clock.Now()))
	}
	return told, err
}

// serveEvents writes events as lines of JSON, those after `after` first. With follow=true it goes on until the client leaves.
func (a *Agent) serveEvents(rw http.ResponseWriter, r *http.Request) {
	after, _ := strconv.ParseInt(r.FormValue("after"), 10, 64)
	rw.Header().Set("Content-Type", "application/x-ndjson")
	encoder := json.NewEncoder(rw)
	flush := http.NewResponseController(rw)
	for {
		events, more := a.EventsAfter(after)
		for _, event := range events {
			after = event.Seq
			if name := r.FormValue("instance"); name != "" && event.Instance != "" && event.Instance != name {
				continue
			}
			if err := encoder.Encode(event); err != nil {
				return
			}
		}
		if err := flush.Flush(); err != nil || r.FormValue("follow") != "true" {
			return
		}
		select {
		case <-more:
		case <-r.Context().Done():
			return
		case <-a.lifetime.Done():
			return
		}
	}
}

// apiError is how an error crosses the socket.
type apiError struct {
	Error string `json:"error"`
}

func answer(rw http.ResponseWriter, body any, err error) {
	rw.Header().Set("Content-Type", "application/json")
	if err != nil {
		code := http.StatusInternalServerError
		var unknown *UnknownError
		if errors.As(err, &unknown) {
			code = http.StatusNotFound
		}
		rw.WriteHeader(code)
		body = apiError{err.Error()}
	}
	_ = json.NewEncoder(rw).Encode(body) // the client has left: nobody to tell
}
