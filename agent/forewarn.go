package agent

import (
	"slices"

	"dive-agent/reconcilers"
)

// Some plans mean more than their own kind can know: another image of a server changes the data that it finds. What lives on a
// node knows, says so where the plan is read, and may keep it from being carried out.

// forewarn asks the components that live on a node about its plan. The first error is why it must not be carried out.
func (p *pass) forewarn(n *nodeRun) (words []string, err error) {
	if !slices.ContainsFunc(n.plan.Changes, func(c reconcilers.Change) bool { return c.Image != "" }) {
		return nil, nil
	}
	for _, one := range able[reconcilers.Forewarner](p) {
		if !livesOn(one, n) {
			continue
		}
		target, err := p.target(one)
		if err != nil {
			return nil, err
		}
		more, err := one.engine.(reconcilers.Forewarner).Forewarn(target, reconcilers.Turn{Part: n.node.Part, Changes: n.plan.Changes})
		if err != nil {
			return nil, err
		}
		for _, one := range more {
			if !slices.Contains(words, one) { // several realms of one server say the same
				words = append(words, one)
			}
		}
	}
	return words, nil
}

// tellForewarned adds to a plan what others say of it, a refusal too: who reviews it reads that before it is merged.
func (p *pass) tellForewarned(n *nodeRun) {
	words, err := p.forewarn(n)
	if err != nil {
		words = []string{"will not be carried out: " + err.Error()}
	}
	if len(words) == 0 {
		return
	}
	n.plan.Changes = slices.Clone(n.plan.Changes)
	for i, c := range n.plan.Changes {
		if c.Image != "" {
			n.plan.Changes[i].Details = append(slices.Clone(c.Details), words...)
		}
	}
}
