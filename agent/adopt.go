package agent

import (
	"context"
	"errors"
	"time"

	"dive-agent/reconcilers"
)

// Adoption is what of a component runs already without being in its state.
type Adoption struct {
	Instance  string        `json:"instance"`
	Component string        `json:"component"`
	Took      time.Duration `json:"took"` // the look at it
	reconcilers.Adoption
}

// Adoption tells how what is there already of a component of an instance of this host can be taken over: of the named one,
// or of the only one whose kind can. It changes nothing: the reconciler works on a copy of its folder, as for a plan.
func (a *Agent) Adoption(ctx context.Context, revision Revision, instance, component string) (_ Adoption, err error) {
	next, err := a.assigned(revision, instance)
	if err != nil {
		return Adoption{}, err
	}
	folders, remove, err := a.borrowed(next)
	if err != nil {
		return Adoption{}, err
	}
	defer func() { err = errors.Join(err, remove()) }()
	p, _, missing, err := a.idle(ctx, next, folders)
	if err = errors.Join(err, missing); err != nil {
		return Adoption{}, err
	}
	n, err := oneThat[reconcilers.Adopter](p, component, "parts that are there already can be taken over")
	if err != nil {
		return Adoption{}, err
	}
	p.lead(ctx, n, map[*nodeRun]bool{})
	target, err := p.target(n)
	if err != nil {
		return Adoption{}, err
	}
	begun := a.Clock.Now()
	told, err := n.engine.(reconcilers.Adopter).Adoption(ctx, target)
	if err != nil {
		return Adoption{}, err
	}
	told.State, told.Blocks, told.Merge = p.redact(told.State), p.redact(told.Blocks), p.redact(told.Merge)
	return Adoption{Instance: instance, Component: n.node.Component.Name, Took: a.Clock.Now().Sub(begun), Adoption: told}, nil
}

// lead looks at all that a node needs, so that the node's scope is what it is in a round.
func (p *pass) lead(ctx context.Context, n *nodeRun, seen map[*nodeRun]bool) {
	for _, edge := range n.node.Needs {
		on := p.nodes[edge.On]
		if seen[on] {
			continue
		}
		seen[on] = true
		p.lead(ctx, on, seen)
		p.look(ctx, on)
	}
}
