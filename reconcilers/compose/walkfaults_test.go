package compose

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"

	"dive-agent/testbed"
)

// faults are what others do to the stack.
func (s *walk) faults() map[string]func() {
	return map[string]func(){
		"killed": s.byHand(func(ctx context.Context, c *container.InspectResponse) error {
			_, err := s.engine.ContainerKill(ctx, c.ID, client.ContainerKillOptions{Signal: "KILL"})
			return err
		}),
		"stopped": s.byHand(func(ctx context.Context, c *container.InspectResponse) error {
			_, err := s.engine.ContainerStop(ctx, c.ID, client.ContainerStopOptions{})
			return err
		}),
		"restarted": s.byHand(func(ctx context.Context, c *container.InspectResponse) error {
			_, err := s.engine.ContainerRestart(ctx, c.ID, client.ContainerRestartOptions{})
			return err
		}),
		"paused": s.byHand(func(ctx context.Context, c *container.InspectResponse) error {
			_, err := s.engine.ContainerPause(ctx, c.ID, client.ContainerPauseOptions{})
			return err
		}),
		"renamed": s.byHand(func(ctx context.Context, c *container.InspectResponse) error {
			_, err := s.engine.ContainerRename(ctx, c.ID, client.ContainerRenameOptions{NewName: s.project + "-other-" + c.ID[:6]})
			return err
		}),
		"removed": s.byHand(s.removeByHand),
		"updated": s.byHand(func(ctx context.Context, c *container.InspectResponse) error {
			_, err := s.engine.ContainerUpdate(ctx, c.ID, client.ContainerUpdateOptions{
				Resources: &container.Resources{Memory: 200 << 20, MemorySwap: 400 << 20}, RestartPolicy: &container.RestartPolicy{Name: "on-failure", MaximumRetryCount: 9},
			})
			return err
		}),
		"replaced":                 s.byHand(s.replaceByHand),
		"run twice":                s.byHand(s.runTwice),
		"taken off a network":      s.byHand(s.disconnectByHand),
		"put on another's network": s.byHand(s.connectByHand),
		"name taken":               s.takeName,
		"network removed":          s.removeNetworkByHand,
		"network of the same name": s.doubleNetwork,
		"volume removed":           s.removeVolumeByHand,
		"a record cut off":         s.cutRecord,
		"the agent started anew":   s.restart,
		"all killed, in any order": s.killAll,
	}
}

// byHand is what somebody does to the container of any service, if there is one. Half of the time the events of it are heard;
// else nobody hears them.
func (s *walk) byHand(do func(context.Context, *container.InspectResponse) error) func() {
	return func() {
		s.t.Helper()
		name := s.anyOf(s.declared.order())
		c := s.containerOf(name)
		if c == nil {
			return
		}
		s.touched[name] = true
		s.t.Logf("  of service %s, which was %s", name, c.State.Status)
		if s.random.IntN(2) == 0 {
			defer s.hearing(name, c)()
		}
		if err := do(s.t.Context(), c); err != nil {
			s.t.Logf("  %v", err) // of one that is not running, or is gone
		}
	}
}

// containerOf gives any container of a service, nil when there is none.
func (s *walk) containerOf(name string) *container.InspectResponse {
	s.t.Helper()
	list, err := s.engine.ContainerList(s.t.Context(), client.ContainerListOptions{
		All: true, Filters: projectFilter(s.project, "com.docker.compose.service="+name),
	})
	require.NoError(s.t, err)
	if len(list.Items) == 0 {
		return nil
	}
	c, err := s.engine.ContainerInspect(s.t.Context(), list.Items[s.random.IntN(len(list.Items))].ID, client.ContainerInspectOptions{})
	if errdefs.IsNotFound(err) {
		return nil
	}
	require.NoError(s.t, err)
	return &c.Container
}

// hearing watches the stack while something is done to a service. What it gives ends that, after the service was woken.
func (s *walk) hearing(name string, c *container.InspectResponse) (end func()) {
	s.t.Helper()
	woken, done := make(chan string, 1000), make(chan error, 1)
	ctx, cancel := context.WithCancel(s.t.Context())
	r, target := s.r, s.targetOf("")
	go func() { done <- r.Watch(ctx, target, func(part string) { woken <- part }) }()
	hear(s.t, woken, "")
	return func() {
		now, err := s.engine.ContainerInspect(s.t.Context(), c.ID, client.ContainerInspectOptions{})
		if err != nil || now.Container.State.Status != c.State.Status || now.Container.Name != c.Name {
			hear(s.t, woken, name)
		}
		cancel()
		require.ErrorIs(s.t, <-done, context.Canceled)
	}
}

func (s *walk) removeByHand(ctx context.Context, c *container.InspectResponse) error {
	_, err := s.engine.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true})
	return err
}

// replaceByHand puts one with another environment in its place, of the same name and with the same labels.
func (s *walk) replaceByHand(ctx context.Context, c *container.InspectResponse) error {
	if err := s.removeByHand(ctx, c); err != nil {
		return err
	}
	return s.runLike(ctx, c, c.Name)
}

// runTwice makes a second container of a service.
func (s *walk) runTwice(ctx context.Context, c *container.InspectResponse) error {
	return s.runLike(ctx, c, c.Name+"-second")
}

func (s *walk) runLike(ctx context.Context, c *container.InspectResponse, name string) error {
	config := *c.Config
	config.Hostname, config.Env = "", append(slices.Clone(config.Env), "BY=hand")
	made, err := s.engine.ContainerCreate(ctx, client.ContainerCreateOptions{Name: name, Config: &config, HostConfig: c.HostConfig})
	if err != nil {
		return err
	}
	_, err = s.engine.ContainerStart(ctx, made.ID, client.ContainerStartOptions{})
	return err
}

func (s *walk) disconnectByHand(ctx context.Context, c *container.InspectResponse) error {
	name := s.anyOf(slices.Sorted(maps.Keys(c.NetworkSettings.Networks)))
	_, err := s.engine.NetworkDisconnect(ctx, name, client.NetworkDisconnectOptions{Container: c.ID, Force: true})
	return err
}

func (s *walk) connectByHand(ctx context.Context, c *container.InspectResponse) error {
	_, err := s.engine.NetworkConnect(ctx, s.beside.network, client.NetworkConnectOptions{Container: c.ID, EndpointConfig: &network.EndpointSettings{}})
	return err
}

// takeName removes a service's container and gives its name to one that is nobody's.
func (s *walk) takeName() {
	s.t.Helper()
	name := s.anyOf(s.declared.order())
	c := s.containerOf(name)
	if c == nil || s.taken != "" {
		return
	}
	s.touched[name], s.taken = true, name
	require.NoError(s.t, s.removeByHand(s.t.Context(), c))
	_, err := s.engine.ContainerCreate(s.t.Context(), client.ContainerCreateOptions{Name: c.Name, Config: &container.Config{
		Image: s.image, Labels: map[string]string{"walk": s.project},
	}})
	if !errdefs.IsConflict(err) { // the one that was removed was not called as its service is
		require.NoError(s.t, err)
	}
}

// freeName ends that.
func (s *walk) freeName() {
	s.t.Helper()
	if s.taken == "" {
		return
	}
	s.taken, s.calmed = "", false
	s.removeNobodys(s.t.Context())
}

// removeNobodys removes what has taken a name.
func (s *walk) removeNobodys(ctx context.Context) {
	s.t.Helper()
	filters := make(client.Filters).Add("label", "walk="+s.project)
	list, err := s.engine.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: filters})
	require.NoError(s.t, err)
	for _, c := range list.Items {
		_, err := s.engine.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true})
		require.NoError(s.t, err)
	}
}

// removeNetworkByHand takes all off a network and removes it. A container that was just started comes back to it meanwhile.
func (s *walk) removeNetworkByHand() {
	s.t.Helper()
	ctx, key := s.t.Context(), s.anyOf(slices.Sorted(maps.Keys(s.declared.Networks)))
	s.breakNetwork(key)
	testbed.Eventually(s.t, 10*time.Second, "network "+key+" is gone", func() error {
		found, err := s.engine.NetworkInspect(ctx, s.project+"_"+key, client.NetworkInspectOptions{})
		if errdefs.IsNotFound(err) {
			return nil
		}
		require.NoError(s.t, err)
		for id := range found.Network.Containers {
			_, err := s.engine.NetworkDisconnect(ctx, found.Network.ID, client.NetworkDisconnectOptions{Container: id, Force: true})
			require.True(s.t, err == nil || errdefs.IsNotFound(err), "%v", err)
		}
		_, err = s.engine.NetworkRemove(ctx, found.Network.ID, client.NetworkRemoveOptions{})
		return err
	})
}

func (s *walk) breakNetwork(key string) {
	s.t.Logf("  network %s", key)
	s.remade[key] = true
	for name, service := range s.declared.Services {
		if slices.Contains(service.Networks, key) {
			s.touched[name] = true
		}
	}
}

// doubleNetwork makes a second network of a name, which the engine then calls ambiguous.
func (s *walk) doubleNetwork() {
	s.t.Helper()
	key := s.anyOf(slices.Sorted(maps.Keys(s.declared.Networks)))
	s.breakNetwork(key)
	_, err := s.engine.NetworkCreate(s.t.Context(), s.project+"_"+key, client.NetworkCreateOptions{})
	require.NoError(s.t, err)
}

// removeVolumeByHand removes a volume with the containers that have it. That it is made anew, empty, somebody must approve.
func (s *walk) removeVolumeByHand() {
	s.t.Helper()
	s.calm()
	ctx, name := s.t.Context(), s.project+"_"+s.anyOf(s.declared.Volumes)
	list, err := s.engine.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: make(client.Filters).Add("volume", name)})
	require.NoError(s.t, err)
	for _, c := range list.Items {
		s.touched[c.Labels["com.docker.compose.service"]] = true
		_, err := s.engine.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true})
		require.NoError(s.t, err)
	}
	_, err = s.engine.VolumeRemove(ctx, name, client.VolumeRemoveOptions{})
	require.NoError(s.t, err)
	plan := s.plan(SharedPart)
	require.True(s.t, slices.ContainsFunc(plan.Changes, s.forbids), "%+v", plan.Changes)
	s.lost[name] = true
	delete(s.made, name)
	delete(s.written, name)
}

// cutRecord leaves the beginning of one of the agent's records, as a full disk may.
func (s *walk) cutRecord() {
	s.t.Helper()
	all := s.readState()
	if len(all) == 0 || len(s.lost) > 0 { // that a volume was lost is known by a record alone
		return
	}
	name := s.anyOf(slices.Sorted(maps.Keys(all)))
	service := strings.TrimSuffix(strings.TrimSuffix(name, ".json"), ".good")
	for _, other := range []string{service + ".json", service + ".good.json"} {
		if text, ok := all[other]; ok && other != name && !json.Valid(text) { // without both nothing tells that a version is being tried
			return
		}
	}
	length := s.random.IntN(len(all[name]) + 1)
	s.t.Logf("  %s, %d of %d bytes", name, length, len(all[name]))
	require.NoError(s.t, os.Truncate(filepath.Join(s.dirs, "state", name), int64(length)))
	if s.random.IntN(2) == 0 {
		s.restart()
	}
}

func (s *walk) killAll() {
	s.t.Helper()
	names := s.declared.order()
	for _, at := range s.random.Perm(len(names)) {
		if c := s.containerOf(names[at]); c != nil {
			s.touched[names[at]] = true
			_, err := s.engine.ContainerKill(s.t.Context(), c.ID, client.ContainerKillOptions{Signal: "KILL"})
			require.True(s.t, err == nil || errdefs.IsConflict(err), "%v", err)
		}
	}
}

// bystander is what runs on the host and is none of the stack's.
type bystander struct{ id, started, network, networkID, volume, created string }

func (s *walk) newBystander() bystander {
	s.t.Helper()
	ctx, name := s.t.Context(), "beside-"+s.project
	b := bystander{network: name, volume: name}
	made, err := s.engine.NetworkCreate(ctx, name, client.NetworkCreateOptions{})
	require.NoError(s.t, err)
	_, err = s.engine.VolumeCreate(ctx, client.VolumeCreateOptions{Name: name})
	require.NoError(s.t, err)
	yes := true
	c, err := s.engine.ContainerCreate(ctx, client.ContainerCreateOptions{
		Name: name, Config: &container.Config{Image: s.image, Cmd: []string{"sleep", "100000"}},
		HostConfig: &container.HostConfig{NetworkMode: container.NetworkMode(name), Binds: []string{name + ":/data"}, Init: &yes},
	})
	require.NoError(s.t, err)
	s.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(s.t.Context()), time.Minute)
		defer cancel()
		s.removeNobodys(ctx)
		s.clean() // what is on its network
		_, err1 := s.engine.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true})
		_, err2 := s.engine.NetworkRemove(ctx, made.ID, client.NetworkRemoveOptions{})
		_, err3 := s.engine.VolumeRemove(ctx, name, client.VolumeRemoveOptions{})
		require.NoError(s.t, errors.Join(err1, err2, err3))
	})
	_, err = s.engine.ContainerStart(ctx, c.ID, client.ContainerStartOptions{})
	require.NoError(s.t, err)
	b.id, b.networkID = c.ID, made.ID
	now := s.lookBeside(b)
	b.started, b.created = now.started, now.created
	return b
}

func (s *walk) lookBeside(b bystander) bystander {
	s.t.Helper()
	c, err := s.engine.ContainerInspect(s.t.Context(), b.network, client.ContainerInspectOptions{})
	require.NoError(s.t, err)
	v, err := s.engine.VolumeInspect(s.t.Context(), b.volume, client.VolumeInspectOptions{})
	require.NoError(s.t, err)
	now := bystander{id: c.Container.ID, started: c.Container.State.StartedAt, network: b.network, volume: b.volume, created: v.Volume.CreatedAt}
	if endpoint := c.Container.NetworkSettings.Networks[b.network]; endpoint != nil {
		now.networkID = endpoint.NetworkID
	}
	return now
}
