package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2/event"

	"dive-agent/state"
)

// EventData is the data of a CloudEvent about an instance.
type EventData struct {
	Instance   string    `json:"instance"`
	Host       string    `json:"host"`
	Role       string    `json:"role,omitempty"`
	Phase      Phase     `json:"phase"`
	Previous   Phase     `json:"previous,omitempty"`
	Since      time.Time `json:"since,omitzero"`
	Headline   string    `json:"headline"`
	Why        []string  `json:"why,omitempty"`
	Next       []string  `json:"next,omitempty"`
	Attempted  string    `json:"attempted,omitempty"`
	Applied    string    `json:"applied,omitempty"`
	Generation int64     `json:"generation"`
	// Reminder says that nothing changed since the last event: the failure
	// lasts.
	Reminder bool `json:"reminder,omitempty"`
}

// told is what webhooks heard last of an instance.
type told struct {
	Phase     Phase     `json:"phase"`
	Attempted string    `json:"attempted"`
	Applied   string    `json:"applied"`
	Failure   string    `json:"failure"`
	At        time.Time `json:"at"`
}

// remindEvery is how often a failure that does not change is told again.
const remindEvery = time.Hour

func toldKey(instance string) string { return state.Key(instance, "report", "told") }

// enqueueEvents puts an event for each webhook into the outbox when there is
// something to tell.
func (r *Reporter) enqueueEvents(tx state.Tx, s *Status, event state.Event) error {
	last, err := lastTold(tx, s.Instance)
	if err != nil {
		return err
	}
	now := r.Clock.Now()
	send, reminder := worthTelling(last, s, now)
	if !send {
		return nil
	}
	payload, err := r.cloudEvent(s, last, reminder)
	if err != nil {
		return err
	}
	for _, w := range r.Webhooks {
		if _, err := tx.Enqueue(state.Entry{
			Kind: state.KindWebhook, Target: w.Name, Instance: s.Instance, Payload: payload, Event: event.Seq, Created: now,
		}); err != nil {
			return err
		}
	}
	kept, err := json.Marshal(told{Phase: s.Phase, Attempted: s.Attempted, Applied: s.Applied, Failure: failure(s), At: now})
	if err != nil {
		return err
	}
	return tx.PutValue(toldKey(s.Instance), kept)
}

func lastTold(r state.Reader, instance string) (last told, err error) {
	value, err := r.Value(toldKey(instance))
	if errors.Is(err, state.ErrNotFound) {
		return told{}, nil
	}
	if err != nil {
		return told{}, err
	}
	if json.Unmarshal(value, &last) != nil {
		return told{}, nil // written by another version: tell anew
	}
	return last, nil
}

// worthTelling decides whether webhooks hear of a status: each change of phase
// or revision; a failure when it begins or becomes another one, then hourly;
// not that a failing instance is being tried again.
func worthTelling(last told, s *Status, now time.Time) (send, reminder bool) {
	revision := last.Attempted != s.Attempted || last.Applied != s.Applied
	switch {
	case s.Phase.Failing():
		if last.Phase == s.Phase && last.Failure == failure(s) {
			late := now.Sub(last.At) >= remindEvery
			return late, late
		}
		return true, false
	case s.Phase == Pending:
		return false, false
	case s.Phase == Progressing && last.Phase.Failing() && last.Attempted == s.Attempted:
		return false, false
	}
	return last.Phase != s.Phase || revision, false
}

// failure is what fails, without the words for it, which change from look to
// look.
func failure(s *Status) string {
	if !s.Phase.Failing() {
		return ""
	}
	parts := []string{s.Attempted}
	for _, c := range s.Visible() {
		parts = append(parts, c.Type+"="+c.Reason)
	}
	for _, c := range s.Components {
		switch c.State {
		case "failed", "rejected", "blocked":
			parts = append(parts, c.Name+"="+c.State)
		}
	}
	return strings.Join(parts, " ")
}

// cloudEvent is the body of an event: a CloudEvent in structured JSON. Its id
// stays the same for each attempt.
func (r *Reporter) cloudEvent(s *Status, last told, reminder bool) ([]byte, error) {
	id, err := r.ids.New()
	if err != nil {
		return nil, err
	}
	e := cloudevents.New()
	e.SetID("msg_" + id)
	e.SetSource("/dive-agent/hosts/" + s.Host)
	e.SetType("dive.instance." + strings.ToLower(string(s.Phase)))
	e.SetSubject(s.Instance)
	e.SetTime(s.Updated)
	if err := e.SetData(cloudevents.ApplicationJSON, EventData{
		Instance: s.Instance, Host: s.Host, Role: s.Role, Phase: s.Phase, Previous: last.Phase, Since: s.Since,
		Headline: r.Redact(s.Headline()), Why: r.plain(s.Why), Next: r.plain(s.Next),
		Attempted: s.Attempted, Applied: s.Applied, Generation: s.Generation, Reminder: reminder,
	}); err != nil {
		return nil, fmt.Errorf("write the event of %s: %w", s.Instance, err)
	}
	payload, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("write the event of %s: %w", s.Instance, err)
	}
	return payload, nil
}

// plain makes texts fit for programs and people elsewhere.
func (r *Reporter) plain(texts []string) []string {
	out := make([]string, len(texts))
	for i, t := range texts {
		out[i] = r.Redact(clean(t))
	}
	return out
}
