package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"dive-agent/report"
)

// Verification is what an instance's checks saw, all made now.
type Verification struct {
	Instance string         `json:"instance"`
	Host     string         `json:"host"`
	Revision string         `json:"revision,omitempty"`
	Checks   []report.Check `json:"checks"`
	Why      []string       `json:"why,omitempty"` // of checks that were not made
}

// VerifyHere makes every check of an instance of this host (of all, when none is named) at a revision, as Preview makes plans:
// reconcilers look at what runs and work on copies of their folders. It changes nothing and is for where no agent runs.
func (a *Agent) VerifyHere(ctx context.Context, revision Revision, name string) ([]Verification, error) {
	fleet, err := a.load(revision)
	if err != nil {
		return nil, err
	}
	var here []string
	for instance, declared := range fleet.Instances {
		if declared.Host == a.Host {
			here = append(here, instance)
		}
	}
	slices.Sort(here)
	if name != "" && !slices.Contains(here, name) {
		return nil, &UnknownError{Name: name, Have: here}
	}
	var all []Verification
	for _, instance := range here {
		if name != "" && name != instance {
			continue
		}
		one, err := a.verifyHere(ctx, &assignment{revision: revision, fleet: fleet, instance: fleet.Instances[instance]})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", instance, err)
		}
		all = append(all, one)
	}
	return all, nil
}

func (a *Agent) verifyHere(ctx context.Context, next *assignment) (told Verification, err error) {
	folders, remove, err := a.borrowed(next)
	if err != nil {
		return told, err
	}
	defer func() { err = errors.Join(err, remove()) }()
	p, _, missing, err := a.idle(ctx, next, folders)
	if err != nil {
		return told, err
	}
	p.fresh = true
	p.survey(ctx)
	if ctx.Err() != nil {
		return told, ctx.Err()
	}
	told = Verification{Instance: next.instance.Name, Host: a.Host, Revision: next.revision.Commit, Checks: []report.Check{}}
	if missing != nil {
		told.Why = append(told.Why, a.Redactor.String(missing.Error()))
	}
	st := &report.Status{}
	for _, view := range p.views() {
		situation{}.fillFacts(st, view)
		if n := p.nodes[view.ID]; len(view.Facts.Checks) == 0 && n.err != nil {
			told.Why = add(told.Why, p.redact(view.ID+": "+n.err.Error()))
		}
	}
	told.Checks = append(told.Checks, st.Checks...)
	return told, nil
}

// Verified is the same of a status that a running agent told.
func Verified(st report.Status) Verification {
	return Verification{Instance: st.Instance, Host: st.Host, Revision: st.Attempted, Checks: append([]report.Check{}, st.Checks...), Why: st.Why}
}
