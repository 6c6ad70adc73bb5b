package bench

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"dive-agent/testbed"
	"dive-agent/testbed/federation"
	"dive-agent/testbed/gitserver"
	"dive-agent/testbed/pki"
)

// A hub of many spokes.
const (
	hubMemory  = "hub-50-spokes-memory"
	hubNothing = "hub-500-spokes-nothing"
)

const (
	fifty       = 50
	fiveHundred = 500
)

// measureFifty has fifty spokes merged in one commit and looks at how large the hub's agent was at most since its start.
func measureFifty(ctx context.Context, r *run) error {
	w := r.world
	if err := w.needEdge(ctx); err != nil {
		return err
	}
	if err := w.again(ctx, "", false, w.hub); err != nil {
		return err
	}
	files := gitserver.Files{}
	for i := range fifty {
		federation.Joins(files, federation.Name(i), edge)
	}
	begun := time.Now()
	commit, err := w.merge("Add fifty spokes", files)
	if err != nil {
		return err
	}
	for _, a := range []*agentProcess{w.hub, w.edge} {
		if _, err := a.order(ctx, "/v1/poll"); err != nil {
			return err
		}
	}
	for i := range fifty {
		if err := w.edge.awaitReady(ctx, 3*time.Minute, federation.Name(i), commit); err != nil {
			return err
		}
	}
	took := time.Since(begun)
	if err := w.hub.sync(ctx, "usa"); err != nil {
		return err
	}
	peak, err := testbed.Memory(w.hub.cmd.Process.Pid, testbed.PeakResident)
	if err != nil {
		return err
	}
	now, err := resident(w.hub.cmd.Process.Pid)
	if err != nil {
		return err
	}
	r.record(hubMemory, float64(peak)/1e6, "MB", 80, "resident at most since its start, %d spokes merged in one commit, all with tokens after %s; %.1f MB now, %s; load %.1f",
		fifty, round(took), float64(now)/1e6, anonymous(w.hub.cmd.Process.Pid), testbed.LoadAverage())
	return nil
}

// measureFiveHundred times rounds of the hub's agent over as many spokes that are approved, each with a token that is handed over, and
// lack nothing.
func measureFiveHundred(ctx context.Context, r *run) error {
	w := r.world
	if err := w.needEdge(ctx); err != nil {
		return err
	}
	if err := w.edge.stop(ctx); err != nil { // what its spokes do is done in its place
		return err
	}
	ca, err := pki.LoadOrCreate(w.path("pki"), "DIVE benchmark")
	if err != nil {
		return err
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Pool()}}
	defer transport.CloseIdleConnections()
	hub := &http.Client{Transport: transport, Timeout: 20 * time.Second}
	files := gitserver.Files{}
	for i := range fiveHundred {
		name := federation.Name(i)
		federation.Joins(files, name, edge)
		if err := register(ctx, hub, name); err != nil {
			return err
		}
	}
	begun := time.Now()
	commit, err := w.merge("Add five hundred spokes", files)
	if err != nil {
		return err
	}
	if _, err := w.hub.order(ctx, "/v1/poll"); err != nil {
		return err
	}
	if err := w.hub.awaitReady(ctx, 5*time.Minute, "usa", commit); err != nil {
		return err
	}
	approved := time.Since(begun)
	s, err := w.hub.status(ctx, "usa")
	if err != nil {
		return err
	}
	if len(s.Spokes) < fiveHundred {
		return fmt.Errorf("the hub's status has %d spokes: %s", len(s.Spokes), s.News)
	}
	if err := w.handedOver(ctx); err != nil {
		return err
	}
	took, whole, err := w.hub.quietRounds(ctx, "usa")
	if err != nil {
		return err
	}
	idle, err := w.hub.idles(ctx, 10*time.Second)
	if err != nil {
		return err
	}
	peak, err := testbed.Memory(w.hub.cmd.Process.Pid, testbed.PeakResident)
	if err != nil {
		return err
	}
	r.record(hubNothing, milliseconds(median(took)), "ms", 200, "a round of the hub's agent over %d approved spokes; %s; with poll and status, order to answer: %s; approved in %s; %.1f MB at most, then %.1f %% of a core; load %.1f",
		fiveHundred, spread(took), round(median(whole)), round(approved), float64(peak)/1e6, 100*idle, testbed.LoadAverage())
	return nil
}

// handedOver waits until each of the spokes has something that is sealed to its host on the hub's status branch.
func (w *world) handedOver(ctx context.Context) error {
	return testbed.Until(ctx, time.Minute, time.Second, "all tokens are handed over", func() error {
		content, err := w.repo.Git("show", "status/usa:outputs.yaml")
		if err != nil {
			return err
		}
		if n := strings.Count(content, "BEGIN AGE ENCRYPTED FILE"); n < fiveHundred {
			return fmt.Errorf("%d are", n)
		}
		return nil
	})
}

// idles is how much of a core the agent takes for a while.
func (a *agentProcess) idles(ctx context.Context, window time.Duration) (share float64, err error) {
	before, err := cpuOf(a.cmd.Process.Pid)
	if err != nil {
		return 0, err
	}
	begun := time.Now()
	select {
	case <-time.After(window):
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	took := time.Since(begun)
	after, err := cpuOf(a.cmd.Process.Pid)
	return float64(after-before) / float64(took), err
}

// register is what a member's agent sends; a spoke that is known stays as it is.
func register(ctx context.Context, hub *http.Client, name string) error {
	code := strings.ToUpper(name)
	body, err := json.Marshal(map[string]any{
		"instanceCode": code, "name": "Land " + code, "baseUrl": "https://" + name + ".example:3000", "apiUrl": "https://" + name + ".example:4000",
		"idpUrl": "https://127.0.0.1:1", "idpPublicUrl": "https://127.0.0.1:1", "contactEmail": "ops@" + name + ".example",
		"requestedScopes": []string{"policy:base", "policy:org"}, "skipValidation": true,
	})
	if err != nil {
		return err
	}
	url := fmt.Sprintf("https://localhost:%d/api/federation/register", 4000+hubOffset)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := hub.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusCreated {
		return fmt.Errorf("register %s: %s", code, response.Status)
	}
	return nil
}
