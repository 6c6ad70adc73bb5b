package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"dive-agent/state"
)

// rejected says whether what is declared was tried and did not work, the same commit or the same content, and is not to be tried
// again now.
func (r *round) rejected() bool {
	if r.known.Rejected == nil {
		return false
	}
	detail := r.rejectionDetail()
	if !detail.Again.IsZero() && !r.Clock.Now().Before(detail.Again) {
		return false
	}
	return r.known.Rejected.Revision == r.next.revision.Commit || detail.Digest == r.next.instance.Digest
}

// rejectionDetail is what the state's rejection does not hold.
type rejectionDetail struct {
	Digest string   // of the instance's content that was rejected
	Logs   []string // last words of the service that failed, redacted
	Node   string   // that failed
	Stays  bool     // it was left running, since there was nothing to put back

	Again time.Time `json:",omitzero"` // when it is tried again by itself; zero: it is not
}

// toldBefore says whether what was tried again was told to be rejected for now, by the same node and for the same reason: that it still
// is, is no news.
func (r *round) toldBefore(ctx context.Context, rejected *Node) bool {
	detail := r.rejectionDetail()
	if !rejected.Again || detail.Again.IsZero() || detail.Digest != r.next.instance.Digest || detail.Node != rejected.ID {
		return false
	}
	told, err := r.recall(ctx)
	return err == nil && told.Rejected != nil && told.Rejected.Reason == rejected.Message
}

// untilAgain gives how long what is rejected is kept so before it is tried again by itself: a resync at most.
func (r *round) untilAgain(now time.Time) time.Duration {
	if again := r.rejectionDetail().Again; !again.IsZero() {
		return min(r.resync(), max(again.Sub(now), time.Millisecond))
	}
	r.backoff.reset()
	return r.resync()
}

func rejectedKey(instance string) string { return state.Key(instance, "rejected", "detail") }

// rejectionDetail reads it; of an instance that was never rejected it is empty.
func (w *worker) rejectionDetail() (detail rejectionDetail) {
	ctx, cancel := context.WithTimeout(context.Background(), storeLimit)
	defer cancel()
	err := w.Store.View(ctx, func(r state.Reader) error {
		value, err := r.Value(rejectedKey(w.name))
		if errors.Is(err, state.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		return json.Unmarshal(value, &detail)
	})
	if err != nil {
		w.log.Error("cannot read why the revision was rejected", "error", err)
	}
	return detail
}

func (w *worker) keepRejection(ctx context.Context, detail rejectionDetail) {
	err := w.Store.Update(context.WithoutCancel(ctx), func(tx state.Tx) error {
		encoded, err := json.Marshal(detail)
		if err != nil {
			return err
		}
		return tx.PutValue(rejectedKey(w.name), encoded)
	})
	if err != nil {
		w.log.Error("cannot record the rejection", "error", err)
	}
}

// gotWell says whether what kept an instance from its first success was left running and is healthy now: slow, not bad.
func (r *round) gotWell(p *pass) bool {
	if !r.healing || r.known.Applied != "" {
		return false
	}
	detail := r.rejectionDetail()
	return detail.Stays && slices.ContainsFunc(p.views(), func(n Node) bool {
		return n.ID == detail.Node && n.Facts.Service != nil && n.Facts.Service.Health == "healthy"
	})
}

// lastApplied loads the instance as it was last ready, to keep it so while the declared revision is rejected. Before the
// first success there is none: then the declared one is only looked at.
func (r *round) lastApplied() (*assignment, error) {
	if r.known.Applied == "" {
		return r.next, nil
	}
	revision := Revision{Commit: r.known.Applied, Branch: r.next.revision.Branch, Dir: r.snapshotDir(r.known.Applied)}
	fleet, err := r.load(revision)
	if err != nil {
		return nil, fmt.Errorf("cannot read the applied revision %s again: %w", revision.Short(), err)
	}
	instance := fleet.Instances[r.name]
	if instance == nil {
		return nil, fmt.Errorf("the applied revision %s does not hold instance %s", revision.Short(), r.name)
	}
	return &assignment{revision: revision, fleet: fleet, instance: instance}, nil
}

// rejection gives the node that was rejected in a pass, nil when none was.
func rejection(p *pass) *Node {
	for _, view := range p.views() {
		if view.State == NodeRejected {
			return &view
		}
	}
	return nil
}

// afterRejection tells what happens next.
func (s situation) afterRejection() []string {
	rejected := Revision{Commit: s.known.Rejected.Revision}.Short()
	next := rejected + " is not tried again until something new is merged, or: dive-agent sync --retry " + s.instance
	if !s.rejected.Again.IsZero() {
		next = rejected + " is tried again by itself, ever later; or at once: dive-agent sync --retry " + s.instance
	}
	if s.known.Applied == "" && s.rejected.Stays {
		next = rejected + " is tried again when " + s.rejected.Node + " is healthy, when something new is merged, or at once: dive-agent sync --retry " + s.instance
	}
	if s.next != nil && s.next.instance.Position.File != "" {
		next += ". See " + s.declaredAt()
	}
	if s.known.Applied == "" {
		return []string{next}
	}
	return []string{"what runs stays at " + Revision{Commit: s.known.Applied}.Short(), next}
}

// declaredAt is the place of what was rejected: its component's, which may stand in the blueprint.
func (s situation) declaredAt() string {
	name, _, _ := strings.Cut(s.rejected.Node, "/")
	if component := s.next.instance.Component(name); component != nil && component.Position.File != "" {
		return component.Position.String()
	}
	return s.next.instance.Position.File
}
