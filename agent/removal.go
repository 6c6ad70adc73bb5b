package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"dive-agent/atomicfile"
	"dive-agent/desired"
	"dive-agent/reconcilers"
	"dive-agent/report"
	"dive-agent/state"
)

// removal is what is to become of an instance when its manifest is gone: kept beside the instance while it is declared, since
// nothing says it afterwards. What was never merged before the removal is not in it.
type removal struct {
	OnRemove       string    `json:"onRemove"`
	DestroyVolumes bool      `json:"destroyVolumes,omitempty"`
	Traces         []trace   `json:"traces,omitempty"`  // of components, in the order in which they came about
	Since          time.Time `json:"since,omitzero"`    // when the removal was seen first
	Confirm        bool      `json:"confirm,omitempty"` // others went with it: the fleet must say that it is meant
	Done           time.Time `json:"done,omitzero"`
}

// trace is what a component has to know to be taken away.
type trace struct {
	Component string   `json:"component"`
	Kind      string   `json:"kind"`
	Trace     string   `json:"trace"`
	Parts     []string `json:"parts,omitempty"`
}

func removalFile(dir, instance string) string {
	return filepath.Join(folderOf(dir, instance), "removal.json")
}

// readRemoval gives what is known; an instance that an older agent worked on is kept as it is.
func readRemoval(dir, instance string) (removal, error) {
	known := removal{OnRemove: desired.OnRemoveKeep}
	text, err := os.ReadFile(removalFile(dir, instance))
	if errors.Is(err, fs.ErrNotExist) {
		return known, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &known)
	}
	if err != nil {
		return removal{OnRemove: desired.OnRemoveKeep}, fmt.Errorf("read what is to become of instance %s: %w", instance, err)
	}
	return known, nil
}

func (k removal) write(dir, instance string) error {
	text, err := json.Marshal(k)
	if err == nil {
		_, err = atomicfile.Write(removalFile(dir, instance), text, atomicfile.Options{})
	}
	if err != nil {
		return fmt.Errorf("keep what is to become of instance %s when its manifest goes: %w", instance, err)
	}
	return nil
}

// acts says whether anything is to be done that was not done yet.
func (k removal) acts() bool {
	return (k.OnRemove == desired.OnRemoveStop || k.OnRemove == desired.OnRemoveDestroy) && k.Done.IsZero()
}

// phase is that of an instance whose manifest is gone.
func (k removal) phase() report.Phase {
	if k.acts() {
		return report.Removing
	}
	return report.Removed
}

// keepRemoval keeps what a removal of the manifest would mean from now on.
func (r *round) keepRemoval(folders places) error {
	instance := r.work.instance
	known := removal{OnRemove: r.next.instance.OnRemove, DestroyVolumes: r.next.instance.DestroyVolumes}
	scope := instance.Scope(nil, folders.builtins())
	for _, component := range instance.Components {
		remover, can := r.Reconcilers[component.Kind].(reconcilers.Remover)
		if !can {
			continue
		}
		text, err := remover.Trace(folders.target(r.work.fleet, instance, component, scope))
		if err != nil {
			return err
		}
		one := trace{Component: component.Name, Kind: component.Kind, Trace: text}
		for _, node := range instance.Graph.Nodes {
			if node.Component == component && node.Part != "" {
				one.Parts = append(one.Parts, node.Part)
			}
		}
		known.Traces = append(known.Traces, one)
	}
	return known.write(r.Dir, r.name)
}

// noteRemovals says of the instances whose manifests are gone since when it is so, and holds what would be stopped or
// destroyed when others went with it, unless the fleet names it as meant. It is called with the agent's lock held.
func (a *Agent) noteRemovals(gone, meant []string) {
	known, first := map[string]removal{}, 0
	for _, name := range gone {
		one, err := readRemoval(a.Dir, name)
		if err != nil || !one.acts() {
			continue
		}
		known[name] = one
		if one.Since.IsZero() {
			first++
		}
	}
	for name, one := range known {
		before := one
		if one.Since.IsZero() {
			one.Since, one.Confirm = a.Clock.Now().UTC(), first > 1
		}
		one.Confirm = one.Confirm && !slices.Contains(meant, name)
		if one.Since.Equal(before.Since) && one.Confirm == before.Confirm {
			continue
		}
		if err := one.write(a.Dir, name); err != nil {
			a.Log.Error("cannot keep that a manifest is gone", "instance", name, "error", err)
		}
	}
}

// takeAway does with what an instance left what its manifest said while it was there.
func (r *round) takeAway(ctx context.Context) error {
	known, err := readRemoval(r.Dir, r.name)
	if err != nil || !known.acts() {
		return err
	}
	if known.Since.IsZero() { // it went while this agent had no revision to see that in
		known.Since = r.Clock.Now().UTC()
		if err := known.write(r.Dir, r.name); err != nil {
			return err
		}
	}
	if known.Confirm {
		return &reconcilers.BlockedError{
			Reason: "RemovalUnconfirmed", Message: "its manifest went together with those of other instances: nothing is " + known.word() + " before that is confirmed",
			Do: fmt.Sprintf("Merge `removed: [%s]` into the spec of fleet.yaml, or merge the manifest again", r.name),
		}
	}
	id, err := r.IDs.New()
	if err != nil {
		return err
	}
	r.record = &run{worker: r.worker, id: id, commit: r.known.Applied, trigger: r.trigger}
	if err := r.record.start(ctx); err != nil {
		return err
	}
	outcome, message := state.Done, ""
	if err = r.remove(ctx, known); err != nil {
		outcome, message = outcomeOf(stateOf(err)), err.Error()
	}
	r.record.finish(outcome, message)
	if err != nil {
		return err
	}
	known.Done = r.Clock.Now().UTC()
	return known.write(r.Dir, r.name)
}

// remove goes through the components, the last one first.
func (r *round) remove(ctx context.Context, known removal) error {
	for _, one := range slices.Backward(known.Traces) {
		remover, can := r.Reconcilers[one.Kind].(reconcilers.Remover)
		if !can {
			return fmt.Errorf("component %s is of kind %s, which this agent cannot take away", one.Component, one.Kind)
		}
		order := reconcilers.Removal{
			Instance: r.name, Component: one.Component, Trace: one.Trace, Parts: one.Parts, Destroy: known.OnRemove == desired.OnRemoveDestroy,
		}
		if order.Destroy && known.DestroyVolumes {
			order.Archive = archiveOf(r.Dir, r.name, known)
		}
		if err := remover.Remove(ctx, order, &removing{round: r, component: one.Component, steps: map[string]int64{}}); err != nil {
			return fmt.Errorf("take away component %s: %w", one.Component, err)
		}
	}
	return nil
}

// archiveOf is the folder for what the volumes held: one for each removal.
func archiveOf(dir, instance string, known removal) string {
	return filepath.Join(dir, "archives", instance, known.Since.Format("20060102T150405Z"))
}

// takenAway says whether nothing of a removed instance runs any more.
func (w *worker) takenAway() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.removed || w.movedTo != "" {
		return false
	}
	known, err := readRemoval(w.Dir, w.name)
	return err == nil && !known.Done.IsZero()
}

// word is what is done, as people read it.
func (k removal) word() string {
	switch {
	case k.OnRemove == desired.OnRemoveStop:
		return "stopped"
	case k.DestroyVolumes:
		return "destroyed, volumes included"
	}
	return "destroyed"
}

// means is what a removal of the manifest is going to do.
func (k removal) means() string {
	switch {
	case !k.acts():
		return "what runs is left running"
	case k.OnRemove == desired.OnRemoveStop:
		return "its containers are stopped, its data is left"
	case k.DestroyVolumes:
		return "its containers and networks are removed, and its volumes after they were archived"
	}
	return "its containers and networks are removed, its volumes are left"
}

// removing is the Progress of a component that is taken away. Its changes are recorded as those of any run.
type removing struct {
	round     *round
	component string
	steps     map[string]int64
}

func (g *removing) Begin(ctx context.Context, changes ...reconcilers.Change) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	steps, err := g.round.record.begin(ctx, g.component, changes)
	for i := range steps {
		g.steps[changes[i].Address] = steps[i]
	}
	return err
}

func (g *removing) End(c reconcilers.Change, err error) {
	g.round.record.end(g.component, g.steps[c.Address], c, err)
}

func (g *removing) Say(format string, args ...any) {
	g.round.log.Info("taking the instance away", "component", g.component, "message", fmt.Sprintf(format, args...))
}

func (g *removing) Started() {}

// told is what the status says of an instance whose manifest is gone.
func (k removal) told(archive string) (news string, next []string) {
	const again = "merge the manifest again"
	switch {
	case !k.acts() && k.Done.IsZero():
		return "its manifest is gone, what runs was left running", []string{again + ", or take away by hand what runs (\"Take an instance away\" in docs/operations.md)"}
	case k.Done.IsZero():
		return "its manifest is gone, and what runs is being " + strings.TrimSuffix(k.word(), ", volumes included"), nil
	case k.OnRemove == desired.OnRemoveStop:
		return "its manifest is gone, and its containers were stopped; its data is left", []string{again + ", or take away by hand what is left (\"Take an instance away\" in docs/operations.md)"}
	case k.DestroyVolumes:
		return "its manifest is gone, and its containers, networks and volumes were removed; what the volumes held is in " + archive, nil
	}
	return "its manifest is gone, and its containers and networks were removed; its volumes are left", []string{again + ", or remove the volumes by hand (\"Take an instance away\" in docs/operations.md)"}
}
