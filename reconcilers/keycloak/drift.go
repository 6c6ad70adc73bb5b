package keycloak

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"dive-agent/reconcilers"
)

// What to do about what was changed outside of Terraform (Spec.Drift).
const (
	driftCorrect = "correct"
	driftReport  = "report"
)

// What was put back is told for a while.
const (
	driftTold = 24 * time.Hour
	driftKept = 10
)

// drifted is a resource that was changed outside of Terraform.
type drifted struct {
	Address    string    `json:"address"`
	What       string    `json:"what"` // changed, deleted
	Attributes []string  `json:"attributes,omitempty"`
	Since      time.Time `json:"since"`              // when it was first seen
	Gone       time.Time `json:"corrected,omitzero"` // when it was seen to be as the module says again; zero: it is not yet
}

// words are for the status; they have no values.
func (d drifted) words(mode string) string {
	text := d.Address + " was " + d.What + " outside of Terraform"
	if len(d.Attributes) > 0 {
		text += " (" + strings.Join(d.Attributes, ", ") + ")"
	}
	text += ", first seen " + d.Since.UTC().Format("2006-01-02 15:04 UTC")
	switch {
	case !d.Gone.IsZero():
		return text + "; as the module says again since " + d.Gone.UTC().Format("2006-01-02 15:04 UTC")
	case mode == driftReport:
		return text + "; left as it is (drift: report)"
	}
	return text
}

// openDrift counts what is not put back yet.
func openDrift(all []drifted) int {
	n := 0
	for _, d := range all {
		if d.Gone.IsZero() {
			n++
		}
	}
	return n
}

// settled says whether all that the manifest asks for was applied and seen to be so: then what a plan wants is drift.
func (l *look) settled() bool {
	return l.record.Inputs == l.in.digest && l.record.Verified && l.cut == nil && l.state != nil && l.state.Serial == l.record.Serial
}

// drift remembers what a plan tells of changes from outside, and says whether it is to be left alone. What every plan wants
// again, whatever is applied, is none of it; with nothing else in the plan there is nothing to do. A realm that is gone
// as a whole is never left alone.
func (l *look) drift(changes []reconcilers.Change, drift map[string]string, now time.Time) (leave bool, stuck []string) {
	if !l.settled() {
		return false, nil
	}
	found, stuck := driftOf(changes, drift, l.record.Stuck)
	l.record.Drift = sinceWhen(l.record.Drift, found, now)
	return len(found) == 0 || l.spec.Drift == driftReport && !l.gone, stuck
}

// driftOf tells drift from what does not converge. Outputs follow from resources, and say nothing by themselves.
func driftOf(changes []reconcilers.Change, outside map[string]string, known []string) (found []drifted, stuck []string) {
	for _, c := range changes {
		if strings.HasPrefix(c.Address, "output.") {
			continue
		}
		fresh := c.Details
		if line, old := neverEnding(known, c); line != "" {
			stuck = append(stuck, line)
			fresh = slices.DeleteFunc(slices.Clone(c.Details), func(name string) bool { return slices.Contains(old, name) })
			if len(fresh) == 0 {
				continue
			}
		}
		d := drifted{Address: c.Address, What: "changed", Attributes: fresh}
		if c.Action == reconcilers.Create || outside[c.Address] == "delete" {
			d.What, d.Attributes = "deleted", nil
		}
		found = append(found, d)
	}
	return found, stuck
}

// neverEnding finds what is known not to converge of a changed resource: its line and its attributes.
func neverEnding(known []string, c reconcilers.Change) (line string, attributes []string) {
	start := string(c.Action) + " " + c.Address
	for _, line := range known {
		if rest, ok := strings.CutPrefix(line, start); ok && (rest == "" || rest[0] == ' ') {
			return line, strings.Split(strings.TrimSpace(rest), ",")
		}
	}
	return "", nil
}

// sinceWhen joins what was known of drift with what is seen now.
func sinceWhen(known, found []drifted, now time.Time) []drifted {
	all := slices.Clone(found)
	for i := range all {
		all[i].Since = now
		for _, old := range known {
			if old.Address == all[i].Address && old.What == all[i].What && old.Gone.IsZero() {
				all[i].Since = old.Since
			}
		}
	}
	for _, old := range known {
		if slices.ContainsFunc(found, func(d drifted) bool { return d.Address == old.Address }) {
			continue
		}
		if old.Gone.IsZero() {
			old.Gone = now
		}
		if now.Sub(old.Gone) < driftTold && len(all) < driftKept {
			all = append(all, old)
		}
	}
	return all
}

// tellDrift adds what was changed outside to what the status says.
func (l *look) tellDrift(f *reconcilers.Facts) {
	open := openDrift(l.record.Drift)
	if open > 0 {
		f.Summary += fmt.Sprintf(", %d changed outside", open)
		f.Values["drift"] = open
	}
	for i, d := range l.record.Drift {
		if i == driftKept {
			f.Notes = append(f.Notes, fmt.Sprintf("and %d more were changed outside of Terraform", len(l.record.Drift)-i))
			break
		}
		f.Notes = append(f.Notes, d.words(l.spec.Drift))
	}
}

var _ reconcilers.Watcher = (*Reconciler)(nil)

// Watch wakes the agent at each turn of the drift schedule: what was changed by hand is seen within one, however seldom
// the agent looks by itself.
func (r *Reconciler) Watch(ctx context.Context, t reconcilers.Target, wake func(part string)) error {
	spec, ok := t.Component.Spec.(*Spec)
	if !ok {
		return fmt.Errorf("component %s is not of kind %s", t.Component.Name, Kind.Name)
	}
	turns, err := schedule(spec.DriftSchedule)
	if err != nil {
		return err
	}
	for {
		last := &record{}
		if err := load(filepath.Join(t.Dir, recordName), last); err != nil {
			last.Compared = time.Time{} // a round says what is wrong with it
		}
		now := r.deps.Clock.Now()
		next := turns.Next(last.Compared)
		if !next.After(now) { // it is due, and the round that this made is not at its end, or cannot compare
			next = turns.Next(now)
		}
		if next.IsZero() { // a date that never comes
			<-ctx.Done()
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-r.deps.Clock.After(next.Sub(now)):
			wake("")
		}
	}
}
