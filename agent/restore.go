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
// one there is. It changes nothing; who restores reserves the
// instance first.
func (a *Agent) Restorer(ctx context.Context, revision Revision, instance, component string) (reconcilers.Restorer, reconcilers.Target, error) {
	none := reconcilers.Target{}
	fleet, err := a.load(revision)
	if err != nil {
		return nil, none, err
	}
	inst := fleet.Instances[instance]
	if inst == nil || inst.Host != a.Host {
		var have []string
		for _, name := range slices.Sorted(maps.Keys(fleet.Instances)) {
			if fleet.Instances[name].Host == a.Host {
				have = append(have, name)
			}
		}
		return nil, none, &UnknownError{Name: instance, Have: have}
	}
	next := &assignment{revision: revision, fleet: fleet, instance: inst}
	folders, err := placesOf(a.Dir, instance, sourceOf(next))
	if err != nil {
		return nil, none, err
	}
	p, _, missing, err := a.idle(ctx, next, folders)
	if err = errors.Join(err, missing); err != nil {
		return nil, none, err
	}
	var found []*nodeRun
	for _, node := range inst.Graph.Nodes {
		n := p.nodes[node.ID]
		if _, can := a.Reconcilers[node.Component.Kind].(reconcilers.Restorer); can && (component == "" || component == node.Component.Name) {
			found = append(found, n)
		}
	}
	if len(found) != 1 {
		return nil, none, fmt.Errorf("%s has %d components whose data can be restored. Name one: --component NAME", instance, len(found))
	}
	target, err := p.target(found[0])
	if err != nil {
		return nil, none, err
	}
	return a.Reconcilers[target.Component.Kind].(reconcilers.Restorer), target, nil
}
