package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"dive-agent/reconcilers"
)

// Restorer finds the component of an instance of this host whose data a backup can bring back: the named one, or the only
// one there is. It changes nothing; who restores reserves the instance first.
func (a *Agent) Restorer(ctx context.Context, revision Revision, instance, component string) (reconcilers.Restorer, reconcilers.Target, error) {
	none := reconcilers.Target{}
	next, err := a.assigned(revision, instance)
	if err != nil {
		return nil, none, err
	}
	folders, err := placesOf(a.Dir, instance, sourceOf(next))
	if err != nil {
		return nil, none, err
	}
	p, _, missing, err := a.idle(ctx, next, folders)
	if err = errors.Join(err, missing); err != nil {
		return nil, none, err
	}
	found, err := oneThat[reconcilers.Restorer](p, component, "data can be restored")
	if err != nil {
		return nil, none, err
	}
	target, err := p.target(found)
	if err != nil {
		return nil, none, err
	}
	return found.engine.(reconcilers.Restorer), target, nil
}

// assigned gives an instance of this host as a revision has it. The error is an UnknownError when there is none of that name.
func (a *Agent) assigned(revision Revision, instance string) (*assignment, error) {
	fleet, err := a.load(revision)
	if err != nil {
		return nil, err
	}
	inst := fleet.Instances[instance]
	if inst == nil || inst.Host != a.Host {
		var have []string
		for _, name := range slices.Sorted(maps.Keys(fleet.Instances)) {
			if fleet.Instances[name].Host == a.Host {
				have = append(have, name)
			}
		}
		return nil, &UnknownError{Name: instance, Have: have}
	}
	return &assignment{revision: revision, fleet: fleet, instance: inst}, nil
}

// oneThat finds the component with an ability: the named one, or the only one there is. whose says what it can, for people.
func oneThat[Ability any](p *pass, component, whose string) (*nodeRun, error) {
	found := slices.DeleteFunc(able[Ability](p), func(n *nodeRun) bool {
		return n.node.Part != "" || component != "" && component != n.node.Component.Name
	})
	if len(found) != 1 {
		return nil, fmt.Errorf("%s has %d components whose %s. Name one: --component NAME", p.instance.Name, len(found), whose)
	}
	return found[0], nil
}
