package compose

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/docker/compose/v5/pkg/api"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/moby/moby/client/pkg/versions"
	"github.com/stretchr/testify/require"

	"dive-agent/reconcilers"
)

const sharingStack = `
services:
  a: {image: "${IMAGE}", init: true, command: [bash, -c, "${RUN}"], networks: {net: {aliases: [first]}}, volumes: ["data:/data"], healthcheck: &check {test: [CMD, "true"], interval: 300ms}}
  b: {image: "${IMAGE}", init: true, command: [bash, -c, "${RUN}"], networks: [net], healthcheck: *check}
networks: {net: {labels: {v: "${NET:-1}"}}}
volumes: {data: {labels: {v: "${VOL:-1}"}}}
`

func (w *world) networks(t *testing.T, name string) []string {
	list, err := w.engine.NetworkList(t.Context(), client.NetworkListOptions{})
	require.NoError(t, err)
	var ids []string
	for _, n := range list.Items {
		if n.Name == name {
			ids = append(ids, n.ID)
		}
	}
	return ids
}

func (w *world) exec(t *testing.T, service string, argv ...string) string {
	t.Helper()
	out, code, err := w.r.Services(w.target("")).Exec(t.Context(), service, argv, nil, nil)
	require.NoError(t, err)
	require.Zero(t, code, string(out))
	return string(out)
}

// A changed network is made anew with everything on it, and names resolve afterwards.
func TestChangedNetwork(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sharingStack)
	w.up("a", "b")
	before := w.networks(t, w.project+"_net")
	w.set("NET", "2")
	change := w.change(SharedPart)
	require.Equal(t, reconcilers.Replace, change.Action)
	require.True(t, change.Destroys)
	require.NotEmpty(t, w.plan(SharedPart).Content)
	require.NoError(t, w.try(SharedPart))
	w.inSync(SharedPart)
	require.NotEqual(t, before, w.networks(t, w.project+"_net"))
	require.Contains(t, w.change("a").Reason, "not connected to network")
	w.up("a", "b")
	require.NotEmpty(t, w.exec(t, "b", "getent", "hosts", "first"))
	require.NotEmpty(t, w.exec(t, "b", "getent", "hosts", "a"))
}

// A changed volume is replaced by that plan alone which was approved, and what it held is archived before.
func TestChangedVolume(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sharingStack)
	w.up("a", "b")
	w.exec(t, "a", "bash", "-c", "echo kept > /data/file")
	w.set("VOL", "2")
	w.up2("b") // the other service goes on
	p := w.plan(SharedPart)
	require.Len(t, p.Changes, 2)
	require.Equal(t, "archive of volume "+w.project+"_data", p.Changes[0].Address)
	require.Equal(t, "volume "+w.project+"_data", p.Changes[1].Address)
	require.True(t, p.Changes[1].Destroys)
	approved := p.Content
	w.set("VOL", "3")
	require.NotEqual(t, approved, w.plan(SharedPart).Content, "what approves one definition approves no other one")
	w.set("VOL", "2")
	require.Equal(t, approved, w.plan(SharedPart).Content)

	// Where there is no room for the archive nothing is removed, and the services come back.
	folder := filepath.Join(w.dirs, "state", "archives")
	require.NoError(t, os.WriteFile(folder, nil, 0o600))
	require.ErrorContains(t, w.try(SharedPart), "archive volume "+w.project+"_data, nothing was removed")
	require.NoError(t, os.Remove(folder))
	w.up2("a")
	require.Equal(t, "kept\n", w.exec(t, "a", "cat", "/data/file"))

	// Cut off between the two, and gone on with: what was written meanwhile is in the archive too.
	require.ErrorIs(t, w.cut(1), errCut)
	require.NotEmpty(t, unpack(t, w.archives(t)[0]))
	w.up2("a")
	w.exec(t, "a", "bash", "-c", "echo later >> /data/file")
	require.NoError(t, w.try(SharedPart))
	w.up("a", "b")
	require.Empty(t, w.exec(t, "a", "ls", "/data"))
	require.Len(t, w.archives(t), 1)
	require.Equal(t, "kept\nlater\n", unpack(t, w.archives(t)[0]))

	// One that nothing mounts is archived too.
	w.exec(t, "a", "bash", "-c", "echo second > /data/file")
	created, err := w.engine.VolumeInspect(t.Context(), w.project+"_data", client.VolumeInspectOptions{})
	require.NoError(t, err)
	at, err := time.Parse(time.RFC3339, created.Volume.CreatedAt)
	require.NoError(t, err)
	w.eventually("the engine tells whole seconds", func() bool { return time.Since(at) > time.Second })
	_, err = w.engine.ContainerRemove(t.Context(), w.inspect("a").ID, client.ContainerRemoveOptions{Force: true})
	require.NoError(t, err)
	w.set("VOL", "4")
	require.NoError(t, w.try(SharedPart))
	w.up("a", "b")
	archives := w.archives(t)
	require.Len(t, archives, 2)
	require.Equal(t, "second\n", unpack(t, archives[1]))
}

// cut applies the shared part up to the change of that number.
func (w *world) cut(before int) error {
	w.t.Helper()
	p := w.plan(SharedPart)
	_, err := w.r.Apply(w.t.Context(), w.target(SharedPart), p, &cutOff{heard: &heard{t: w.t}, before: before})
	return err
}

func (w *world) archives(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(w.dirs, "state", "archives", "*", "*.tar.gz"))
	require.NoError(t, err)
	return files
}

// A volume that somebody removed is not made anew as if it had never been: that waits for an approval of this one loss.
func TestLostVolume(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sharingStack)
	require.False(t, w.plan(SharedPart).Changes[1].Destroys, "a new instance waits for nobody")
	w.up("a", "b")
	lose := func() reconcilers.Plan {
		created, err := w.engine.VolumeInspect(t.Context(), w.project+"_data", client.VolumeInspectOptions{})
		require.NoError(t, err)
		at, err := time.Parse(time.RFC3339, created.Volume.CreatedAt)
		require.NoError(t, err)
		w.eventually("the engine tells whole seconds", func() bool { return time.Since(at) > time.Second })
		_, err = w.engine.ContainerRemove(t.Context(), w.inspect("a").ID, client.ContainerRemoveOptions{Force: true})
		require.NoError(t, err)
		planned := w.plan("a")
		_, err = w.engine.VolumeRemove(t.Context(), w.project+"_data", client.VolumeRemoveOptions{})
		require.NoError(t, err)
		_, err = w.r.Apply(t.Context(), w.target("a"), planned, &heard{t: t})
		require.ErrorContains(t, err, "volume "+w.project+"_data", "nor does the container's making bring an empty one")
		w.restart()
		change := w.change(SharedPart)
		require.True(t, change.Destroys)
		require.Contains(t, change.Reason, created.Volume.CreatedAt)
		require.Contains(t, change.Reason, "put it back, or approve to begin empty")
		return w.plan(SharedPart)
	}
	first := lose()
	require.NoError(t, w.try(SharedPart)) // approved
	w.up("a", "b")
	second := lose()
	require.NotEqual(t, first.Content, second.Content, "what was approved holds for no other loss")

	_, err := w.engine.VolumeCreate(t.Context(), client.VolumeCreateOptions{Name: w.project + "_data", Labels: map[string]string{api.ProjectLabel: w.project}})
	require.NoError(t, err) // put back by hand
	w.up("a", "b")
}

// A volume that goes before anybody looked at it again is a lost one as well.
func TestAVolumeIsKnownFromItsMaking(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sharingStack)
	_, err := w.r.Apply(t.Context(), w.target(SharedPart), w.plan(SharedPart), &heard{t: t})
	require.NoError(t, err)
	_, err = w.engine.VolumeRemove(t.Context(), w.project+"_data", client.VolumeRemoveOptions{})
	require.NoError(t, err)
	w.restart()
	change := w.change(SharedPart)
	require.True(t, change.Destroys)
	require.Contains(t, change.Reason, "put it back, or approve to begin empty")
}

// up2 brings services to their desired state and leaves the shared part alone.
func (w *world) up2(services ...string) {
	for _, service := range services {
		require.NoError(w.t, w.try(service))
	}
}

// The engine allows several networks of one name and then calls the name ambiguous for ever.
func TestDuplicateNetworks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sharingStack)
	w.up("a", "b")
	for range 2 {
		_, err := w.engine.NetworkCreate(t.Context(), w.project+"_net", client.NetworkCreateOptions{})
		require.NoError(t, err)
	}
	require.Len(t, w.networks(t, w.project+"_net"), 3)
	a := w.inspect("a").ID
	p := w.plan(SharedPart)
	require.Len(t, p.Changes, 2)
	require.Equal(t, reconcilers.Delete, p.Changes[0].Action)
	w.up("a", "b")
	require.Len(t, w.networks(t, w.project+"_net"), 1)
	require.Equal(t, a, w.inspect("a").ID)
}

func TestServiceThatIsGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, strings.Replace(sharingStack, `["data:/data"]`, `["data:/data", /kept]`, 1))
	w.up("a", "b")
	nameless := ""
	for _, m := range w.inspect("a").Mounts {
		if m.Destination == "/kept" {
			nameless = m.Name
		}
	}
	w.write(map[string]string{"compose.yaml": `
services:
  b: {image: "${IMAGE}", init: true, command: [bash, -c, "${RUN}"], networks: [net], healthcheck: {test: [CMD, "true"], interval: 300ms}}
networks: {net: {labels: {v: "1"}}}
`})
	change := w.change(SharedPart)
	require.Equal(t, reconcilers.Delete, change.Action)
	require.Equal(t, "container "+w.project+"-a-1", change.Address)
	require.False(t, change.Destroys)
	w.up("b")
	data, err := w.r.Data(t.Context(), w.target(""))
	require.NoError(t, err)
	require.Equal(t, []string{w.project + "_data"}, data, "its volume stays")
	_, err = w.engine.VolumeInspect(t.Context(), nameless, client.VolumeInspectOptions{})
	require.NoError(t, err, "and the one without a name")
	_, err = w.engine.VolumeRemove(t.Context(), nameless, client.VolumeRemoveOptions{})
	require.NoError(t, err)

	_, err = w.engine.ContainerCreate(t.Context(), client.ContainerCreateOptions{Name: w.project + "-byhand", Config: &container.Config{
		Image: w.image, Labels: map[string]string{api.ProjectLabel: w.project, api.ServiceLabel: "byhand", api.OneoffLabel: "False"},
	}})
	require.NoError(t, err)
	require.True(t, w.change(SharedPart).Destroys, "what a hand started goes only when somebody agrees")
}

func TestExternalNetwork(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `
services:
  web: {image: "${IMAGE}", init: true, command: [bash, -c, "${RUN}"], networks: [shared], healthcheck: {test: [CMD, "true"], interval: 300ms}}
networks: {shared: {external: true, name: "${NET}"}}
`)
	name := w.project + "-outside"
	w.set("NET", name)
	o := w.observe(SharedPart)
	var wait *reconcilers.WaitError
	require.ErrorAs(t, o.Err, &wait)
	require.Equal(t, "external network "+name, wait.For)
	_, err := w.engine.NetworkCreate(t.Context(), name, client.NetworkCreateOptions{})
	require.NoError(t, err)
	w.up("web")
	require.Contains(t, w.inspect("web").NetworkSettings.Networks, name)
}

// External networks and volumes that are missing are all named, and made when the manifest says so: once, whoever asks.
func TestExternalsThatAreMade(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `
services:
  web: {image: "${IMAGE}", init: true, command: [bash, -c, "${RUN}"], networks: [shared, other], volumes: ["data:/data"], healthcheck: {test: [CMD, "true"], interval: 300ms}}
networks: {shared: {external: true, name: "${NAME}-shared"}, other: {external: true, name: "${NAME}-other"}}
volumes: {data: {external: true, name: "${NAME}-data"}}
`)
	w.set("NAME", w.project)
	t.Cleanup(func() {
		w.clean()
		_, _ = w.engine.VolumeRemove(context.WithoutCancel(t.Context()), w.project+"-data", client.VolumeRemoveOptions{})
	})
	var wait *reconcilers.WaitError
	require.ErrorAs(t, w.observe(SharedPart).Err, &wait)
	require.Equal(t, "external network "+w.project+"-other, external network "+w.project+"-shared, external volume "+w.project+"-data", wait.For)
	require.Empty(t, w.plan(SharedPart).Changes)

	w.spec.MakeExternal = []string{"data", "shared", "other"}
	changes := w.plan(SharedPart).Changes
	require.Len(t, changes, 3)
	require.Equal(t, "external, not on this host (makeExternal)", changes[0].Reason)
	planned, planned2 := w.plan(SharedPart), w.plan(SharedPart)
	for _, p := range []reconcilers.Plan{planned, planned2} { // two stacks that share them
		_, err := w.r.Apply(t.Context(), w.target(SharedPart), p, &heard{t: t})
		require.NoError(t, err)
	}
	require.Len(t, w.networks(t, w.project+"-shared"), 1)
	w.up("web")
	w.exec(t, "web", "touch", "/data/kept")
	list, err := w.engine.VolumeInspect(t.Context(), w.project+"-data", client.VolumeInspectOptions{})
	require.NoError(t, err)
	require.Empty(t, list.Volume.Labels, "it is nobody's own")

	_, err = w.engine.ContainerRemove(t.Context(), w.inspect("web").ID, client.ContainerRemoveOptions{Force: true})
	require.NoError(t, err)
	_, err = w.engine.VolumeRemove(t.Context(), w.project+"-data", client.VolumeRemoveOptions{})
	require.NoError(t, err)
	change := w.change(SharedPart)
	require.True(t, change.Destroys, "data that was lost is not made anew without a word")
	require.Contains(t, change.Reason, "put it back, or approve to begin empty")
}

func TestWhatAnOldEngineIgnores(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `
services:
  web: {image: "${IMAGE}", mac_address: "02:42:ac:11:65:43"}
`)
	ping, err := w.engine.Ping(t.Context(), client.PingOptions{NegotiateAPIVersion: true})
	require.NoError(t, err)
	old := versions.LessThan(ping.APIVersion, "1.44")
	if old {
		var blocked *reconcilers.BlockedError
		require.ErrorAs(t, w.observe(SharedPart).Err, &blocked)
		require.Equal(t, "UnsupportedByEngine", blocked.Reason)
		require.Contains(t, blocked.Message, "mac_address of service web")
	} else {
		require.NoError(t, w.observe(SharedPart).Err)
	}

	w.write(map[string]string{"compose.yaml": `
services:
  web: {image: "${IMAGE}", healthcheck: {test: [CMD, "true"], start_period: 10s, start_interval: 1s}}
`})
	o := w.observe(SharedPart)
	require.NoError(t, o.Err)
	require.Equal(t, old, len(o.Facts.Notes) == 1)
}

// What needs Swarm, or an owner that a mounted file cannot have, is said with the plan; what would be another limit than meant is refused.
func TestWhatNoEngineDoes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `
services:
  web: {image: "${IMAGE}", configs: [{source: c, mode: 0400}], deploy: {placement: {constraints: [node.role == manager]}, labels: {a: b}, endpoint_mode: vip}}
configs: {c: {file: ./c.conf}}
`)
	w.write(map[string]string{"c.conf": "c"})
	o := w.observe(SharedPart)
	require.NoError(t, o.Err)
	require.Equal(t, []string{
		"the engine ignores deploy.endpoint_mode of service web: it is for Swarm",
		"the engine ignores deploy.labels of service web: it is for Swarm",
		"the engine ignores deploy.placement of service web: it is for Swarm",
		"the engine ignores uid, gid and mode of config c in service web: a file is mounted with the owner and mode that it has: give the instance's secret a file with mode and owner",
	}, o.Facts.Notes)

	w.write(map[string]string{"compose.yaml": `services: {web: {image: "${IMAGE}", mem_swappiness: 10, oom_kill_disable: true}}`})
	info, err := w.engine.Info(t.Context(), client.InfoOptions{})
	require.NoError(t, err)
	var blocked *reconcilers.BlockedError
	if info.Info.CgroupVersion != "2" {
		require.NoError(t, w.observe(SharedPart).Err)
		return
	}
	require.ErrorAs(t, w.observe(SharedPart).Err, &blocked)
	require.Contains(t, blocked.Message, "mem_swappiness of service web works with control groups of version 1")
	require.Contains(t, blocked.Message, "oom_kill_disable of service web")
}

func TestIgnoredFields(t *testing.T) {
	off := false
	cases := []struct {
		name    string
		project types.Project
		want    string
	}{
		{"annotations", types.Project{Services: types.Services{"a": {Annotations: types.Mapping{"x": "y"}}}}, "1.43"},
		{"subpath", types.Project{Services: types.Services{"a": {Volumes: []types.ServiceVolumeConfig{{Volume: &types.ServiceVolumeVolume{Subpath: "x"}}}}}}, "1.45"},
		{"recursive", types.Project{Services: types.Services{"a": {Volumes: []types.ServiceVolumeConfig{{Bind: &types.ServiceVolumeBind{Recursive: "disabled"}}}}}}, "1.44"},
		{"gateway priority", types.Project{Services: types.Services{"a": {Networks: map[string]*types.ServiceNetworkConfig{"n": {GatewayPriority: 1}}}}}, "1.48"},
		{"no IPv4", types.Project{Networks: types.Networks{"n": {EnableIPv4: &off}}}, "1.47"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			found := ignoredFields(&c.project)
			require.Len(t, found, 1)
			require.Equal(t, c.want, found[0].api)
			require.False(t, found[0].mild)
		})
	}
}
