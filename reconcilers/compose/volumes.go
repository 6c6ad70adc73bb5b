package compose

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/containerd/errdefs"
	"github.com/docker/compose/v5/pkg/api"
	sdk "github.com/docker/compose/v5/pkg/compose"
	"github.com/moby/moby/client"

	"dive-agent/reconcilers"
)

// markLabel is the label by which a volume that the agent made is told from one of the same definition that somebody put in its place.
const markLabel = "dive.mark"

// keptVolume is what is remembered of a volume that was seen, so that one that goes missing is not made anew, empty,
// without a word.
type keptVolume struct {
	Created string `json:"created"` // by the engine, when it was first seen; some engines let this go on with what is written
	Hash    string `json:"hash"`    // of the definition that it was made of; empty for one that Compose did not make
	Mark    string `json:"mark"`    // that the agent gave it; empty for one that it did not make

	Before string    `json:"before,omitempty"` // when the one in whose place somebody put it was made
	Seen   time.Time `json:"seen,omitzero"`    // when that was seen
}

// binds is what an approval to begin empty holds for: the loss of this one volume, and no later one.
func (k keptVolume) binds() string {
	if k == (keptVolume{}) {
		return ""
	}
	return strings.TrimSpace("lost " + k.Created + " " + k.Hash + " " + k.Mark)
}

func (r *Reconciler) lookAtVolumes(ctx context.Context, st *sharedState) error {
	for _, key := range sortedKeys(st.model.project.Volumes) {
		want := st.model.project.Volumes[key]
		have, there, err := r.lookAtVolume(ctx, want.Name)
		if err != nil {
			return err
		}
		if there {
			st.volumes[key] = &have
		} else if bool(want.External) && !st.spec.makes(key) {
			st.wait(fmt.Sprintf("external volume %s", want.Name))
		}
		if st.wantHashes["volume "+key], err = sdk.VolumeHash(want); err != nil {
			return err
		}
	}
	if err := st.keepVolumes(r.clock.Now()); err != nil { // a full disk: what is there is kept in mind by a later look
		st.notes = append(st.notes, err.Error())
	}
	return nil
}

// keepVolumes remembers the volumes that are there, and reads what is remembered of those that are not.
func (st *sharedState) keepVolumes(now time.Time) error {
	st.kept = readShared(st.stack).Volumes
	seen := map[string]keptVolume{}
	for key, have := range st.volumes {
		kept := keptVolume{Created: have.CreatedAt, Hash: have.Labels[api.ConfigHashLabel], Mark: have.Labels[markLabel]}
		if bool(st.model.project.Volumes[key].External) && !st.spec.makes(key) {
			continue
		}
		if kept = tellReplacedVolume(st.kept[have.Name], kept, now); st.kept[have.Name] != kept {
			seen[have.Name] = kept
		}
		if note := kept.note(have.Name, now); note != "" {
			st.notes = append(st.notes, note)
		}
	}
	if len(seen) == 0 {
		return nil
	}
	return changeShared(st.stack, func(rec *sharedRecord) {
		if rec.Volumes == nil {
			rec.Volumes = map[string]keptVolume{}
		}
		maps.Copy(rec.Volumes, seen)
	})
}

// keepMade remembers a volume as soon as it is made: it may go before it is looked at again.
func (r *Reconciler) keepMade(ctx context.Context, st *sharedState, name string) error {
	have, there, err := r.lookAtVolume(ctx, name)
	if err != nil || !there {
		return err
	}
	return changeShared(st.stack, func(rec *sharedRecord) {
		if rec.Volumes == nil {
			rec.Volumes = map[string]keptVolume{}
		}
		rec.Volumes[name] = keptVolume{Created: have.CreatedAt, Hash: have.Labels[api.ConfigHashLabel], Mark: have.Labels[markLabel]}
	})
}

func (st *sharedState) volumeSteps(key string) []step {
	want, have := st.model.project.Volumes[key], st.volumes[key]
	if want.External {
		return st.externalVolumeSteps(key)
	}
	address := "volume " + want.Name
	forget := func(rec *sharedRecord) { delete(rec.Volumes, want.Name) } // it goes on purpose, also when it is cut off here
	create := func(ctx context.Context, r *Reconciler) error {
		if err := changeShared(st.stack, forget); err != nil {
			return err
		}
		project := st.model.onlyVolume(key)
		marked := project.Volumes[key]
		marked.CustomLabels = maps.Clone(marked.CustomLabels).Add(markLabel, rand.Text())
		project.Volumes[key] = marked
		if err := r.create(ctx, project, false); err != nil {
			return err
		}
		return r.keepMade(ctx, st, want.Name)
	}
	if have == nil {
		change := reconcilers.Change{Action: reconcilers.Create, Address: address, Reason: "not on this host"}
		lost, ok := st.kept[want.Name]
		if ok {
			change.Destroys = true
			change.Reason = lostVolume(lost)
		}
		return []step{{change: change, do: create, binds: lost.binds()}}
	}
	hash := have.Labels[api.ConfigHashLabel]
	if hash == "" || have.Labels[api.ProjectLabel] != st.project || hash == st.wantHashes["volume "+key] {
		return nil
	}
	return []step{st.archiveStep(have), {
		binds: hash + " -> " + st.wantHashes["volume "+key],
		change: reconcilers.Change{
			Action: reconcilers.Replace, Address: address, Destroys: true,
			Reason: "its definition changed; it is deleted with its data, which is archived before, and made anew",
		},
		do: func(ctx context.Context, r *Reconciler) error {
			if _, err := archived(st.archiveFolder(have), want.Name); err != nil {
				return err
			}
			if err := changeShared(st.stack, forget); err != nil {
				return err
			}
			if err := r.removeVolume(ctx, want.Name); err != nil {
				return err
			}
			return create(ctx, r)
		},
	}}
}

// removeVolume removes a volume with its data, and the containers that have it mounted before. Only an approved plan
// comes here, after an archive was made.
func (r *Reconciler) removeVolume(ctx context.Context, name string) error {
	list, err := r.engine.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: make(client.Filters).Add("volume", name)})
	if err != nil {
		return fmt.Errorf("list the containers that use volume %s: %w", name, err)
	}
	for _, c := range list.Items {
		if err := r.remove(ctx, c.ID); err != nil {
			return fmt.Errorf("remove container %s: %w", containerName(c), err)
		}
	}
	if _, err := r.engine.VolumeRemove(ctx, name, client.VolumeRemoveOptions{}); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove volume %s: %w", name, err)
	}
	return nil
}

// lacksVolume says which volume of a service went while its container was to be made: the engine would make an empty one
// in passing. The shared part tells what is to be done about it.
func (r *Reconciler) lacksVolume(ctx context.Context, st *serviceState) error {
	for _, mount := range st.service.Volumes {
		volume, ok := st.model.project.Volumes[mount.Source]
		if mount.Type != types.VolumeTypeVolume || !ok {
			continue
		}
		if _, err := r.engine.VolumeInspect(ctx, volume.Name, client.VolumeInspectOptions{}); err != nil {
			return fmt.Errorf("make the container of service %s: volume %s: %w", st.name, volume.Name, err)
		}
	}
	return nil
}
