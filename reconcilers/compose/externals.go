package compose

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/client"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

// makes says whether an external network or volume is made where the host lacks it. It is never changed, and never removed: others
// use it.
func (s *Spec) makes(key string) bool { return slices.Contains(s.MakeExternal, key) }

// wait notes an external network or volume that the host lacks. All of them are named together.
func (st *sharedState) wait(what string) {
	var missing *reconcilers.WaitError
	if errors.As(st.blocked, &missing) {
		what = missing.For + ", " + what
	} else if st.blocked != nil {
		return
	}
	st.blocked = &reconcilers.WaitError{
		For: what, Again: 15 * time.Second,
		Err: errors.New("declared as external in the Compose file, and not on this host: make it, or name it in makeExternal"),
	}
}

// makingNetwork is held while an external network is made. Several stacks may share it, and the engine takes a second one of that
// name without a word.
var makingNetwork sync.Mutex

func (st *sharedState) externalNetworkSteps(key string) []step {
	name := st.model.project.Networks[key].Name
	if len(st.networks[key]) > 0 || name == "" || !st.spec.makes(key) {
		return nil
	}
	return []step{{
		change: reconcilers.Change{Action: reconcilers.Create, Address: "network " + name, Reason: "external, not on this host (makeExternal)"},
		do: func(ctx context.Context, r *Reconciler) error {
			makingNetwork.Lock()
			defer makingNetwork.Unlock()
			list, err := r.engine.NetworkList(ctx, client.NetworkListOptions{Filters: make(client.Filters).Add("name", name)})
			if err != nil {
				return err
			}
			for _, have := range list.Items {
				if have.Name == name {
					return nil
				}
			}
			_, err = r.engine.NetworkCreate(ctx, name, client.NetworkCreateOptions{})
			return err
		},
	}}
}

// externalVolumeSteps makes a volume that was never seen. One that was and is gone took its data along: that waits for approval.
func (st *sharedState) externalVolumeSteps(key string) []step {
	name := st.model.project.Volumes[key].Name
	if st.volumes[key] != nil || !st.spec.makes(key) {
		return nil
	}
	change := reconcilers.Change{Action: reconcilers.Create, Address: "volume " + name, Reason: "external, not on this host (makeExternal)"}
	lost, ok := st.kept[name]
	if ok {
		change.Destroys, change.Reason = true, lostVolume(lost)
	}
	return []step{{
		change: change, binds: lost.binds(),
		do: func(ctx context.Context, r *Reconciler) error {
			_, err := r.engine.VolumeCreate(ctx, client.VolumeCreateOptions{Name: name})
			return err
		},
	}}
}

func lostVolume(lost keptVolume) string {
	return "the one made at " + lost.Created + " was removed with its data, and not by the agent: put it back, or approve to begin empty"
}

// checkExternals refuses names in makeExternal that no external network or volume has.
func (s *Spec) checkExternals(c *desired.Check, m *model) {
	var names []string
	for key, network := range m.project.Networks {
		if network.External {
			names = append(names, key)
		}
	}
	for key, volume := range m.project.Volumes {
		if volume.External {
			names = append(names, key)
		}
	}
	slices.Sort(names)
	for i, key := range s.MakeExternal {
		if slices.Contains(names, key) {
			continue
		}
		hint := "the Compose file has none"
		if len(names) > 0 {
			hint = "the Compose file has: " + strings.Join(names, ", ")
		}
		c.Errorf(c.At("makeExternal", fmt.Sprint(i)), "makeExternal: %s is no external network or volume; %s", key, hint)
	}
}
