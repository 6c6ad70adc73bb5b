package agent

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"dive-agent/desired"
	"dive-agent/reconcilers"
	"dive-agent/report"
)

// importAgain is how soon an instance that waits for values of others is looked at again though nothing came; what comes
// makes a round due at once.
const importAgain = time.Minute

// imported is what is known of what an instance takes of others.
type imported struct {
	values map[string]map[string]map[string]desired.Value // instance -> component -> output, as of desired.Scope.WithInstances
	// why says of an import that is not known what is missing, for people: "usa has not published it yet". nil: that.
	why func(desired.Import) error
}

// importsOf gives what is known of the instance's imports, in every round and every plan.
func (a *Agent) importsOf(ctx context.Context, instance *desired.Instance) (imported, error) {
	if len(instance.Imports()) == 0 {
		return imported{}, nil
	}
	if err := a.recallPeers(ctx); err != nil {
		return imported{}, err
	}
	known := imported{values: map[string]map[string]map[string]desired.Value{}}
	missing := map[string]error{}
	for _, one := range instance.Imports() {
		value, err := a.importedValue(instance.Name, one)
		if err != nil {
			missing[one.String()] = err
			continue
		}
		components := known.values[one.Instance]
		if components == nil {
			components = map[string]map[string]desired.Value{}
			known.values[one.Instance] = components
		}
		if components[one.Component] == nil {
			components[one.Component] = map[string]desired.Value{}
		}
		components[one.Component][one.Output] = value
	}
	known.why = func(one desired.Import) error { return missing[one.String()] }
	return known, nil
}

func (i imported) knows(one desired.Import) bool {
	value, ok := i.values[one.Instance][one.Component][one.Output]
	return ok && value.Known()
}

func (i imported) missing(one desired.Import) error {
	if i.why != nil {
		if why := i.why(one); why != nil {
			return why
		}
	}
	return errors.New(one.Instance + " has not published it yet")
}

// withImports gives the scope what is known of the instance's imports; secret ones become known to the redactor first.
func (a *Agent) withImports(ctx context.Context, instance *desired.Instance, scope *desired.Scope) (*desired.Scope, imported, error) {
	known, err := a.importsOf(ctx, instance)
	if err != nil {
		return nil, imported{}, err
	}
	for _, one := range instance.Imports() {
		value := known.values[one.Instance][one.Component][one.Output]
		if known.knows(one) && (one.Secret || value.Secret()) { // also one that only this side knows to be secret
			a.learn(value.AsSecret())
		}
	}
	return scope.WithInstances(known.values), known, nil
}

// awaited says which values of other instances a node needs that are not known; nil: none. They do not come in this pass:
// one that comes makes the next one due. What a for over fleet.spokes asks for is never awaited.
func (p *pass) awaited(n *nodeRun) error {
	var names []string
	var cause error
	for _, one := range n.imports {
		if one.Optional || p.imported.knows(one) {
			continue
		}
		why := p.imported.missing(one)
		if cause == nil {
			cause = why
		}
		if why.Error() == cause.Error() {
			names = append(names, one.String())
		}
	}
	if names == nil {
		return nil
	}
	return &reconcilers.WaitError{For: strings.Join(names, ", "), Again: importAgain, Err: cause}
}

// ReadsOf tells what a node reads of other instances, for the graph that is drawn; what a for over fleet.spokes asks for is
// told once for all of them.
func ReadsOf(imports []desired.Import) (reads []report.Read) {
	for _, one := range imports {
		read := report.Read{From: one.Instance, Component: one.Component, Output: one.Output}
		if one.EachSpoke {
			read.From = report.AllSpokes
		}
		if !slices.Contains(reads, read) {
			reads = append(reads, read)
		}
	}
	return reads
}

// stuck says whether a node cannot go on in this pass, since it, or one that it builds on, needs what another instance has
// not published. A pass that could only find that out again is not begun.
func (p *pass) stuck(n *nodeRun, known map[*nodeRun]bool) bool {
	if stuck, ok := known[n]; ok {
		return stuck
	}
	known[n] = n.awaits != nil
	known[n] = known[n] || slices.ContainsFunc(p.needs(n), func(edge desired.Edge) bool {
		on := p.nodes[edge.On]
		return p.stuck(on, known) && p.unmet(edge, on) != nil
	})
	return known[n]
}
