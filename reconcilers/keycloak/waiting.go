package keycloak

import (
	"os"
	"path/filepath"
	"slices"
	"time"

	"dive-agent/reconcilers"
)

// waiting is a plan that is not applied by itself: it waits for approval, for its window, or for a mode that applies. It is
// kept beside the planfile and shown as it was made until what it was made of changes, or the realm is due to be compared,
// since each look at it costs Terraform some seconds of CPU. It is for showing alone: what is applied was planned right
// before and with the live realm, so that what somebody changes in there meanwhile is seen.
type waiting struct {
	Of          string                              `json:"of"` // keyed digest of what it was made of
	At          time.Time                           `json:"at"`
	Changes     []reconcilers.Change                `json:"changes"`
	Content     string                              `json:"content"`
	Differences map[string][]reconcilers.Difference `json:"differences"`
}

// shown stands in a plan that was made at an earlier look.
type shown struct{}

func (w *workspace) waitingFile() string { return filepath.Join(w.run, "waiting.json") }

// waits says whether a plan that was shown is not applied yet, nor given up for another one.
func (w *workspace) waits() bool {
	_, err := os.Stat(w.waitingFile())
	return err == nil
}

// madeOf is the keyed digest of all that a plan is made of but the live realm: another approval asks for another look at that
// one too.
func (l *look) madeOf() (string, error) {
	serial, lineage := int64(0), ""
	if l.state != nil {
		serial, lineage = l.state.Serial, l.state.Lineage
	}
	r, s := l.record, l.spec
	return digest(l.work.key, []any{
		l.in.digest, l.in.started, serial, lineage, l.gone, r.Inputs, r.Verified, r.Stuck,
		s.Protect, s.Allow, s.Adopt, s.Drift, l.target.Instance.Approve[l.target.ID()],
	})
}

// waits says whether a plan is for somebody, or for a time, to let through.
func (seen *observation) waits() bool {
	return seen.held != nil || len(seen.asks) > 0 ||
		slices.ContainsFunc(seen.changes, func(c reconcilers.Change) bool { return c.Destroys || c.Asks != "" })
}

// keepWaiting keeps a plan that waits, and forgets the one before in any case.
func (l *look) keepWaiting(seen *observation) error {
	if !seen.waits() || l.lost != nil || l.cut != nil {
		return removeIfThere(l.work.waitingFile())
	}
	of, err := l.madeOf()
	if err != nil {
		return err
	}
	return store(l.work.waitingFile(), waiting{Of: of, At: l.deps.Clock.Now(), Changes: seen.changes, Content: seen.content, Differences: seen.differences})
}

// stillWaits shows the plan that was kept, where it would be made again of the same and would still wait. A person who asks
// for a plan gets a new one.
func (l *look) stillWaits(seen *observation) bool {
	if l.target.CopyOf != "" || l.lost != nil || l.cut != nil || l.mustProve() {
		return false
	}
	var w waiting
	if err := load(l.work.waitingFile(), &w); err != nil || len(w.Changes) == 0 || due(l.spec.DriftSchedule, w.At, l.deps.Clock.Now()) {
		return false
	}
	if of, err := l.madeOf(); err != nil || of != w.Of {
		return false
	}
	again := &observation{changes: w.Changes, content: w.Content, differences: w.Differences, asks: l.asks(w.Changes), held: l.held(w.Changes), shown: true}
	if !again.waits() {
		return false
	}
	*seen = *again
	return true
}

// lookAgain is the answer to a plan that is let through and was made at an earlier look.
func (l *look) lookAgain() error {
	if err := store(l.work.waitingFile(), waiting{}); err != nil { // it waits still, and is not shown again
		return err
	}
	return &reconcilers.WaitError{For: "a plan with the realm as it is now", Again: 10 * time.Millisecond}
}
