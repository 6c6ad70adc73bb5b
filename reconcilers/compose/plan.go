package compose

import (
	"fmt"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/docker/compose/v5/pkg/api"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"

	"dive-agent/reconcilers"
)

// compare says why a container must be made anew; nothing when it is as it should be.
func (st *serviceState) compare(c *container.InspectResponse) (comparison, error) {
	var found comparison
	if c.State.Dead {
		found.changed = append(found.changed, "the engine could not remove it")
	}
	definition, err := st.compareDefinition(c)
	if err != nil {
		return found, err
	}
	found.changed = append(found.changed, definition...)
	found.changed = append(found.changed, st.compareContent(c)...)
	st.compareConnections(c, &found)
	found.changed = withoutFollowing(found.changed)
	if p := st.record.Pending; p != nil && p.Replaces == c.ID && len(found.changed) == 0 {
		found.changed = append(found.changed, p.Reason) // an interruption does not make it what was declared
	} else if p != nil && p.Made != c.ID && c.State.Status == container.StateCreated && len(found.changed) == 0 {
		found.changed = append(found.changed, "a change was cut off while it was made: "+p.Reason) // what was done to it since cannot be known
	}
	if len(found.changed) == 0 {
		err = st.compareLive(c, &found)
	}
	return found, err
}

func (st *serviceState) compareDefinition(c *container.InspectResponse) ([]string, error) {
	var differs []string
	if c.Config.Labels[api.ConfigHashLabel] != st.hash && !st.standsFor(c) && !st.replacedByHand(c) {
		words, err := st.definitionWords(c)
		if err != nil {
			return nil, err
		}
		differs = append(differs, words...)
	}
	if st.imageID != "" && c.Image != st.imageID && len(differs) == 0 && !st.refusesFor(c) && !st.otherImage(c) {
		differs = append(differs, fmt.Sprintf("image %s now means %s, was %s", st.service.Image, shortImage(st.imageID), shortImage(c.Image)))
	}
	if st.moved != nil && c.Image == st.imageID && len(differs) == 0 {
		differs = append(differs, fmt.Sprintf("the tag of image %s moved, %s", st.service.Image, st.moved))
	}
	return differs, nil
}

// definitionWords say what of a service's definition changed since its container was made. There are none when Compose's hash
// differs and nothing else: a list was put in another order, or another version of Compose takes the hash.
func (st *serviceState) definitionWords(c *container.InspectResponse) ([]string, error) {
	if st.record.Container != c.ID || len(st.record.Definition) == 0 {
		if c.Config.Image != st.service.Image {
			return []string{fmt.Sprintf("image %s -> %s", c.Config.Image, st.service.Image)}, nil
		}
		return []string{"its definition changed"}, nil
	}
	now, err := st.record.definition(st.service)
	if err != nil {
		return nil, fmt.Errorf("digest the definition of service %s: %w", st.name, err)
	}
	words := describe(st.record.Definition, now)
	service := st.service
	service.VolumesFrom = slices.Clone(service.VolumesFrom)
	for _, ref := range namespaceRefs(&service) {
		if st.record.Parents[ref.service] != st.parents[ref.service] {
			words = append(words, "service "+ref.service+", of which it uses network or volumes, was made anew")
		}
	}
	return slices.Compact(words), nil
}

// refuses says whether the service stays at the image it has, although its tag now leads to another one: that one was
// tried and did not become healthy.
func (st *serviceState) refuses() bool {
	return st.container != nil && st.imageID != "" && st.container.Image != st.imageID && st.refusesFor(st.container)
}

func (st *serviceState) refusesFor(c *container.InspectResponse) bool {
	return st.record.Refused == st.imageID && c.Config.Labels[api.ConfigHashLabel] == st.hash
}

// compareContent sees contents that Compose does not look at. A container without our label was made by
// `docker compose`; its contents are taken as they are.
func (st *serviceState) compareContent(c *container.InspectResponse) []string {
	label, ours := c.Config.Labels[contentLabel]
	if st.lacking != nil || label == st.content || !ours && st.record.Container != c.ID {
		return nil
	}
	added, removed, changed := difference(st.record.Content, st.contents)
	if st.record.Container != c.ID {
		added, removed, changed = nil, nil, nil
	}
	var words []string
	for _, name := range append(append(added, removed...), changed...) {
		words = append(words, "content of "+name+" changed")
	}
	if len(words) == 0 {
		words = append(words, "content of its files changed")
	}
	return words
}

// compareConnections sees networks that the container is not on, and volumes that it has not mounted. That is somebody's
// doing when they are as they were when the container was made.
func (st *serviceState) compareConnections(c *container.InspectResponse, found *comparison) {
	for _, key := range sortedKeys(st.service.Networks) {
		name := st.model.project.Networks[key].Name
		id := st.networks[name]
		endpoint, ok := c.NetworkSettings.Networks[name]
		switch {
		case !ok && id != "" && connectedByID(c, id):
		case !ok && st.record.Networks[name] != "" && (id == "" || st.record.Networks[name] == id) && (st.record.Container == c.ID || st.replacedByHand(c)):
			found.byHand = append(found.byHand, st.deviation("network "+name, "removed", "", ""))
		case !ok:
			found.changed = append(found.changed, "not connected to network "+key)
		case endpoint.NetworkID != "" && endpoint.NetworkID != name && id != "" && endpoint.NetworkID != id: // Podman says the name
			found.changed = append(found.changed, "network "+key+" was made anew")
		}
	}
	if st.replacedByHand(c) {
		return // its mounts are compared with those of the one before
	}
	for _, volume := range st.service.Volumes {
		if volume.Type != types.VolumeTypeVolume || volume.Source == "" {
			continue
		}
		if name := st.model.project.Volumes[volume.Source].Name; !mounts(c, name) {
			found.changed = append(found.changed, "volume "+name+" is not mounted")
		}
	}
}

func connectedByID(c *container.InspectResponse, id string) bool {
	for _, endpoint := range c.NetworkSettings.Networks {
		if endpoint.NetworkID == id {
			return true
		}
	}
	return false
}

func mounts(c *container.InspectResponse, volume string) bool {
	for _, m := range c.Mounts {
		if m.Type == mount.TypeVolume && m.Name == volume {
			return true
		}
	}
	return false
}

// plan is a pure function of what was observed: one change, or none.
func (st *serviceState) plan() reconcilers.Plan {
	p := reconcilers.Plan{State: st, Unknown: st.unknown}
	change := reconcilers.Change{Address: st.address()}
	c := st.container
	switch {
	case st.foreign != "", st.stoppedByHand() != "":
		return p
	case c == nil:
		change.Action, change.Reason = reconcilers.Create, "image "+st.service.Image
		if st.record.Container != "" && st.record.Pending == nil && st.known() {
			change.Reason = "removed by hand; image " + st.service.Image
		}
		if len(st.unknown) > 0 {
			change.Reason += ", " + strings.Join(st.variables, ", ") + " known after apply"
		}
	case len(st.unknown) > 0:
		change.Action, change.Reason = reconcilers.Update, strings.Join(st.variables, ", ")+" known after apply"
	case c.State.Status == "removing":
		return p
	case len(st.differs) > 0:
		change.Action, change.Reason, change.Details = reconcilers.Replace, st.lead+summary(st.differs), st.differs
		if len(st.differs) == 1 {
			change.Details = nil
		}
		if st.takesOver(c) {
			change.Destroys = true
			change.Reason += " (the container was not started by this agent)"
		}
		if words := st.sayOrder(); len(words) > 0 {
			change.Details = append(slices.Clone(st.differs), words...)
		}
	case st.givesUp():
		f := st.record.Flaps
		change.Action = reconcilers.Update
		change.Reason = fmt.Sprintf("stop it: it ended %d times in a row (maxRestarts), exit code %d%s", f.Ends, f.ExitCode, outOfMemory(&container.State{OOMKilled: f.OOM}))
	default:
		change.Action, change.Reason = st.planRunning(c)
	}
	if change.Action != "" {
		change.Image, change.Command = st.service.Image, st.service.Command
		change.Interrupts = st.serves() && (change.Action == reconcilers.Replace && !st.overlaps() || st.restarts())
		p.Changes = []reconcilers.Change{change}
	}
	return p
}

// serves says whether there is a container that does its work now.
func (st *serviceState) serves() bool {
	c := st.container
	return c != nil && c.State.Running && !c.State.Restarting && !c.State.Paused
}

// restarts says whether the container is started again because one that it depends on was made anew.
func (st *serviceState) restarts() bool {
	return st.recreatedParent() != "" && st.container != nil && st.record.Container == st.container.ID
}

// takesOver says whether the container was started by hand and never was as it should be: nobody has agreed yet that it
// may be replaced.
func (st *serviceState) takesOver(c *container.InspectResponse) bool {
	_, ours := c.Config.Labels[contentLabel]
	return !ours && st.record.Container == "" && st.record.Good == nil && st.record.Pending == nil
}

func summary(differs []string) string {
	if len(differs) > 3 {
		return fmt.Sprintf("%s and %d more", strings.Join(differs[:2], "; "), len(differs)-2)
	}
	return strings.Join(differs, "; ")
}

// planRunning finds what a container lacks that is made as it should be.
func (st *serviceState) planRunning(c *container.InspectResponse) (reconcilers.Action, string) {
	var words []string
	action := reconcilers.Update
	if len(st.extras) > 0 {
		words = append(words, "remove what an interrupted change left: "+strings.TrimPrefix(st.extras[0].Name, "/"))
	}
	if c.Name != "/"+st.wantName && !st.leaves() {
		words = append(words, fmt.Sprintf("rename %s to %s", strings.TrimPrefix(c.Name, "/"), st.wantName))
	}
	switch {
	case c.State.Paused:
		words = append(words, "unpause")
	case c.State.Restarting || c.State.Running:
		if name := st.recreatedParent(); name != "" && st.record.Container == c.ID {
			words = append(words, "restart: service "+name+" was made anew")
		} else if st.record.Starting == c.ID {
			action = reconcilers.Run
			words = append(words, "run its post_start commands, which were cut off")
		} else if st.record.Pending != nil {
			action = reconcilers.Run
			words = append(words, "see whether the new version becomes healthy, after an interruption: "+st.record.Pending.Reason)
		}
	case st.completed():
		if st.record.Pending != nil {
			action = reconcilers.Run
			words = append(words, "finish an interrupted change: "+st.record.Pending.Reason)
		}
	case st.record.Pending == nil && st.rests(st.now):
	case c.State.Status == container.StateCreated:
		action = reconcilers.Run
		words = append(words, "start: created and never started")
	case st.oneShot:
		action = reconcilers.Run
		words = append(words, fmt.Sprintf("run again: exit code %d", c.State.ExitCode))
	default:
		action = reconcilers.Run
		words = append(words, fmt.Sprintf("start: stopped with exit code %d", c.State.ExitCode))
	}
	if len(words) == 0 {
		return "", ""
	}
	return action, strings.Join(words, "; ")
}

// recreatedParent names a service that this one is restarted with and that has another container now.
func (st *serviceState) recreatedParent() string {
	for _, name := range sortedKeys(st.parents) {
		before, ok := st.record.Parents[name]
		if dependency := st.service.DependsOn[name]; dependency.Restart && ok && st.parents[name] != "" && before != st.parents[name] {
			return name
		}
	}
	return ""
}
