package compose

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/compose/v5/pkg/api"
	sdk "github.com/docker/compose/v5/pkg/compose"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/volume"
	"github.com/moby/moby/client"

	"dive-agent/reconcilers"
)

// sharedState is what one look at the shared part of a stack saw.
type sharedState struct {
	*stack
	pulls    []order                      // images that the host lacks, or has and are to be refreshed
	networks map[string][]network.Summary // wanted network's key -> those of its name, the one to keep first
	attached map[string][]string          // network ID -> containers
	volumes  map[string]*volume.Volume    // wanted volume's key -> what is there, or nil
	kept     map[string]keptVolume        // what is remembered of volumes, by name
	orphans  []container.Summary
	former   []network.Summary // networks that are not in the file any more and that nothing is on
	unused   []unused          // images to be removed
	silent   map[string]string // registries that could not be asked in this look -> why
	notes    []string
	blocked  error

	keptNetworks map[string]keptNetwork // what is remembered of networks, by name
	left         []leftNetwork          // what somebody did to networks, and what is left so
	drift        []drifted              // since when

	wantHashes map[string]string // "network key" and "volume key" -> hash of the wanted definition
}

func (r *Reconciler) observeShared(ctx context.Context, s *stack) (reconcilers.Observed, error) {
	st := &sharedState{
		stack: s, networks: map[string][]network.Summary{}, attached: map[string][]string{},
		volumes: map[string]*volume.Volume{}, wantHashes: map[string]string{}, silent: map[string]string{},
	}
	for _, look := range []func(context.Context, *sharedState) error{
		r.lookAtImages, r.lookAtNetworks, r.lookAtVolumes, r.lookForOrphans, r.checkEngine,
	} {
		if err := look(ctx, st); err != nil {
			return reconcilers.Observed{}, err
		}
	}
	facts := reconcilers.Facts{
		Summary: fmt.Sprintf("%d images, %d networks, %d volumes", len(s.model.images()), len(s.model.project.Networks), len(s.model.project.Volumes)),
		Notes:   st.notes,
	}
	return reconcilers.Observed{Facts: facts, Started: true, Err: st.blocked, State: st}, nil
}

// lookAtNetworks finds each network by its name, of which the engine allows several, oldest first, and who is attached to
// those that may be removed. An external one that is missing is waited for, unless the manifest says that it is made.
func (r *Reconciler) lookAtNetworks(ctx context.Context, st *sharedState) error {
	list, err := r.allNetworks(ctx)
	if err != nil {
		return err
	}
	for _, key := range sortedKeys(st.model.project.Networks) {
		want := st.model.project.Networks[key]
		for _, have := range list {
			if have.Name == want.Name || bool(want.External) && have.ID == want.Name {
				st.networks[key] = append(st.networks[key], have)
			}
		}
		if want.External {
			if len(st.networks[key]) == 0 && want.Name != "" && !st.spec.makes(key) {
				st.wait(fmt.Sprintf("external network %s", want.Name))
			}
			continue
		}
		if st.wantHashes["network "+key], err = sdk.NetworkHash(&want); err != nil {
			return err
		}
		if len(st.networks[key]) == 0 {
			continue
		}
		for _, have := range st.networks[key] {
			if len(st.networks[key]) == 1 && have.Labels[api.ConfigHashLabel] == st.wantHashes["network "+key] {
				continue
			}
			details, err := r.engine.NetworkInspect(ctx, have.ID, client.NetworkInspectOptions{})
			if err != nil && !errdefs.IsNotFound(err) {
				return fmt.Errorf("inspect network %s: %w", have.Name, err)
			}
			for id := range details.Network.Containers {
				st.attached[have.ID] = append(st.attached[have.ID], id)
			}
		}
		sort.SliceStable(st.networks[key], func(i, j int) bool { return st.networks[key][i].Created.Before(st.networks[key][j].Created) })
	}
	if err := r.lookForFormerNetworks(ctx, st, list); err != nil {
		return err
	}
	if err := st.keepNetworks(); err != nil { // a full disk, as with volumes
		st.notes = append(st.notes, err.Error())
	}
	return st.leaveNetworks(r.clock.Now())
}

// lookForOrphans finds containers of the project whose service is not in the file any more. Services that only their
// profile turns off are left alone.
func (r *Reconciler) lookForOrphans(ctx context.Context, st *sharedState) error {
	list, err := r.projectContainers(ctx, st.project)
	if err != nil {
		return err
	}
	for _, c := range list {
		name := c.Labels[api.ServiceLabel]
		_, active := st.model.project.Services[name]
		_, off := st.model.project.DisabledServices[name]
		if !active && !off && c.Labels[api.OneoffLabel] != "True" && c.Labels[api.HookLabel] == "" {
			st.orphans = append(st.orphans, c)
		}
	}
	return nil
}

// step is one change of the shared part with the way to do it.
type step struct {
	change reconcilers.Change
	ready  func(ctx context.Context, r *Reconciler) error // says whether there is a point in beginning; nil: there is
	do     func(ctx context.Context, r *Reconciler) error
	binds  string // what an approval binds to beyond the change: the hashes of the definition that goes and of the one that comes
}

func (st *sharedState) plan() reconcilers.Plan {
	p := reconcilers.Plan{State: st}
	var content []string
	for _, s := range st.steps() {
		p.Changes = append(p.Changes, s.change)
		if s.binds != "" {
			content = append(content, s.change.Address+"="+s.binds)
		}
	}
	p.Content = strings.Join(content, " ")
	return p
}

// steps are the changes in their order: images first, so that nothing is touched when one cannot be had.
func (st *sharedState) steps() []step {
	steps := st.pullSteps()
	if st.blocked != nil {
		return steps
	}
	for _, c := range st.orphans {
		_, ours := c.Labels[contentLabel]
		steps = append(steps, step{
			change: reconcilers.Change{
				Action: reconcilers.Delete, Address: "container " + containerName(c),
				Reason:   fmt.Sprintf("service %s is not in the Compose file any more; its volumes stay", c.Labels[api.ServiceLabel]),
				Destroys: !ours, // it was started by hand
				Last:     ours && !st.inTheWay(c),
			},
			do: func(ctx context.Context, r *Reconciler) error { return r.remove(ctx, c.ID) },
		})
	}
	for _, key := range sortedKeys(st.model.project.Networks) {
		steps = append(steps, st.networkSteps(key)...)
	}
	steps = append(steps, st.formerNetworkSteps()...)
	for _, key := range sortedKeys(st.model.project.Volumes) {
		steps = append(steps, st.volumeSteps(key)...)
	}
	return append(steps, st.pruneSteps()...)
}

func containerName(c container.Summary) string {
	if len(c.Names) == 0 {
		return c.ID[:12]
	}
	return strings.TrimPrefix(c.Names[0], "/")
}

func (st *sharedState) networkSteps(key string) []step {
	want, have := st.model.project.Networks[key], st.networks[key]
	if want.External {
		return st.externalNetworkSteps(key)
	}
	if st.leftNetwork(key) {
		return nil
	}
	address := "network " + want.Name
	create := func(ctx context.Context, r *Reconciler) error { return r.createNetwork(ctx, st.stack, key) }
	if len(have) == 0 {
		change := reconcilers.Change{Action: reconcilers.Create, Address: address, Reason: "not on this host"}
		if _, known := st.keptNetworks[want.Name]; known {
			change.Reason = "removed by hand"
		}
		return []step{{change: change, do: create}}
	}
	var steps []step
	for _, extra := range have[1:] {
		steps = append(steps, step{
			change: reconcilers.Change{
				Action: reconcilers.Delete, Address: address + " " + extra.ID[:12],
				Reason: "a second network of that name; the engine would call it ambiguous",
			},
			do: func(ctx context.Context, r *Reconciler) error {
				return r.removeNetwork(ctx, extra.ID, st.attached[extra.ID])
			},
		})
	}
	remake := func(ctx context.Context, r *Reconciler) error {
		forget := func(rec *sharedRecord) { delete(rec.Networks, want.Name) } // it goes on purpose, also when it is cut off here
		if err := changeShared(st.stack, forget); err != nil {
			return err
		}
		if err := r.removeNetwork(ctx, have[0].ID, st.attached[have[0].ID]); err != nil {
			return err
		}
		return create(ctx, r)
	}
	hash := have[0].Labels[api.ConfigHashLabel]
	if hash == "" || have[0].Labels[api.ProjectLabel] != st.project || hash == st.wantHashes["network "+key] {
		if change := st.networkByHand(key, address, have[0]); change != nil && hash != st.wantHashes["network "+key] {
			steps = append(steps, step{change: *change, do: remake})
		}
		return steps
	}
	return append(steps, step{
		binds: hash + " -> " + st.wantHashes["network "+key],
		change: reconcilers.Change{
			Action: reconcilers.Replace, Address: address, Destroys: true,
			Reason: "its definition changed; all services on it are made anew",
		},
		do: remake,
	})
}

// removeNetwork takes a network from its containers and removes it. The services see that they lack it.
func (r *Reconciler) removeNetwork(ctx context.Context, id string, attached []string) error {
	for _, c := range attached {
		_, err := r.engine.NetworkDisconnect(ctx, id, client.NetworkDisconnectOptions{Container: c, Force: true})
		if err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("disconnect container %s: %w", c[:min(12, len(c))], err)
		}
	}
	if _, err := r.engine.NetworkRemove(ctx, id, client.NetworkRemoveOptions{}); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove network: %w", err)
	}
	return nil
}

func (r *Reconciler) applyShared(ctx context.Context, st *sharedState, p reconcilers.Plan, progress reconcilers.Progress) (reconcilers.Applied, error) {
	if len(p.Changes) == 0 {
		return reconcilers.Applied{}, nil
	}
	for _, s := range st.steps() {
		if s.change.Last && !slices.ContainsFunc(p.Changes, func(c reconcilers.Change) bool { return c.Address == s.change.Address }) {
			continue
		}
		if s.ready != nil {
			if err := s.ready(ctx, r); err != nil {
				return reconcilers.Applied{}, err
			}
		}
		if err := progress.Begin(ctx, s.change); err != nil {
			return reconcilers.Applied{}, err
		}
		err := r.step(ctx, s)
		progress.End(s.change, err)
		if err != nil {
			return reconcilers.Applied{}, err
		}
	}
	if err := st.notePulls(); err != nil {
		return reconcilers.Applied{}, err
	}
	return reconcilers.Applied{Facts: reconcilers.Facts{Notes: st.notes}}, nil
}

// step does one change. A pull may be broken off at any time; all else is finished once begun.
func (r *Reconciler) step(ctx context.Context, s step) error {
	if s.change.Action != reconcilers.Run {
		safe, cancel := begun(ctx, mutationLimit)
		defer cancel()
		ctx = safe
	}
	if err := s.do(ctx, r); err != nil {
		if s.change.Action == reconcilers.Run || ctx.Err() != nil {
			return err
		}
		return fmt.Errorf("%s %s: %w", s.change.Action, s.change.Address, r.redacted(err))
	}
	return nil
}
