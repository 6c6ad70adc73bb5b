package compose

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"
)

const driftingNetworks = `
services:
  web: {image: "${IMAGE}", init: true, command: [bash, -c, "${RUN}"], networks: [back], volumes: [data:/data], healthcheck: {test: [CMD, "true"], interval: 300ms}}
networks: {back: {labels: {team: blue}}}
volumes: {data: {}}
`

// removeNetwork removes a network although a container is on it, as `docker network disconnect -f` and `rm` do.
func (w *world) removeNetwork(t *testing.T, key string) error {
	if err := disconnect(w, w.inspect("web").ID, key); err != nil {
		return err
	}
	_, err := w.engine.NetworkRemove(t.Context(), w.project+"_"+key, client.NetworkRemoveOptions{})
	return err
}

// What somebody does to a network is heard, said and mended without an approval, as nothing is lost by it.
func TestDriftOfNetworks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, driftingNetworks)
	w.up("web")
	want := w.picture(t)
	remake := func(options client.NetworkCreateOptions) func() error {
		return func() error {
			if err := w.removeNetwork(t, "back"); err != nil {
				return err
			}
			_, err := w.engine.NetworkCreate(t.Context(), w.project+"_back", options)
			return err
		}
	}
	team := func(name string) map[string]string { return map[string]string{"team": name} }
	var lines strings.Builder
	woken := w.watching(t)
	for _, c := range []struct {
		name string
		do   func() error
	}{
		{"removed", func() error { return w.removeNetwork(t, "back") }},
		{"made anew, internal", remake(client.NetworkCreateOptions{Internal: true, Labels: team("blue")})},
		{"made anew, another label", remake(client.NetworkCreateOptions{Labels: team("red"), Options: map[string]string{"com.docker.network.driver.mtu": "1400"}})},
	} {
		for len(woken) > 0 {
			<-woken
		}
		require.NoError(t, c.do(), c.name)
		hear(t, woken, SharedPart)
		change := w.change(SharedPart)
		require.False(t, change.Destroys)
		require.NoError(t, w.try(SharedPart))
		w.inSync(SharedPart)
		service := w.change("web")
		_, err := fmt.Fprintf(&lines, "%-24s %-8s %s\n%-24s %-8s web: %s\n", c.name, change.Action, change.Reason, "", service.Action, service.Reason)
		require.NoError(t, err)
		require.NoError(t, w.try("web"))
		w.inSync("web")
		require.Equal(t, want, w.picture(t), c.name)
	}
	golden(t, "drift-networks.golden", lines.String())

	require.NoError(t, remake(client.NetworkCreateOptions{Labels: team("blue")})())
	require.NoError(t, w.try(SharedPart))
	w.inSync(SharedPart)
	require.Equal(t, "not connected to network back", w.change("web").Reason)
	w.up("web")
	w.exec(t, "web", "getent", "hosts", "web")
}

// A network that is gone or another one is told and left with drift: report, until something else is to be done.
func TestDriftOfNetworksIsLeft(t *testing.T) {
	t.Parallel()
	w := newWorld(t, driftingNetworks)
	w.up("web")
	w.spec.Drift = driftReport
	require.NoError(t, w.removeNetwork(t, "back"))
	w.inSync(SharedPart)
	o := w.observe(SharedPart)
	require.Len(t, o.Facts.Notes, 1)
	require.Regexp(t, `^the stack was changed by hand: network back removed, first seen .* UTC; left as it is \(drift: report\)$`, o.Facts.Notes[0])
	w.inSync("web")
	require.Contains(t, strings.Join(w.observe("web").Facts.Notes, "\n"), "not on network back")
	require.Equal(t, o.Facts.Notes, w.observe(SharedPart).Facts.Notes, "since when is kept")
	w.spec.Drift = driftIgnore
	w.inSync(SharedPart)
	require.Empty(t, w.observe(SharedPart).Facts.Notes)
	w.spec.Drift = driftCorrect
	require.Equal(t, "removed by hand", w.change(SharedPart).Reason)
	w.up("web")
}

// A volume that somebody put in the place of another one is named, and left: it may hold what was put back.
func TestDriftOfVolumes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, driftingNetworks)
	w.up("web")
	woken := w.watching(t)
	first, err := w.engine.VolumeInspect(t.Context(), w.project+"_data", client.VolumeInspectOptions{})
	require.NoError(t, err)
	_, err = w.engine.ContainerRemove(t.Context(), w.inspect("web").ID, client.ContainerRemoveOptions{Force: true})
	require.NoError(t, err)
	for len(woken) > 0 {
		<-woken
	}
	_, err = w.engine.VolumeRemove(t.Context(), w.project+"_data", client.VolumeRemoveOptions{})
	require.NoError(t, err)
	hear(t, woken, SharedPart)
	require.True(t, w.change(SharedPart).Destroys, "to begin empty waits for an approval")
	w.eventually("the engine tells whole seconds", func() bool {
		_, err := w.engine.VolumeCreate(t.Context(), client.VolumeCreateOptions{Name: w.project + "_data"})
		require.NoError(t, err)
		now, err := w.engine.VolumeInspect(t.Context(), w.project+"_data", client.VolumeInspectOptions{})
		require.NoError(t, err)
		if now.Volume.CreatedAt != first.Volume.CreatedAt {
			return true
		}
		_, err = w.engine.VolumeRemove(t.Context(), w.project+"_data", client.VolumeRemoveOptions{})
		require.NoError(t, err)
		return false
	})
	hear(t, woken, SharedPart)
	for range 2 {
		w.inSync(SharedPart)
		notes := strings.Join(w.observe(SharedPart).Facts.Notes, "\n")
		require.Contains(t, notes, "volume "+w.project+"_data was removed and made anew, and not by the agent: the one made at "+first.Volume.CreatedAt+" is gone with its data")
	}
	w.up("web")
}

// `docker compose down -v; up` leaves one of the same definition.
func TestVolumeMadeAnewByCompose(t *testing.T) {
	t.Parallel()
	w := newWorld(t, driftingNetworks)
	w.up("web")
	_, err := w.engine.ContainerRemove(t.Context(), w.inspect("web").ID, client.ContainerRemoveOptions{Force: true})
	require.NoError(t, err)
	_, err = w.engine.VolumeRemove(t.Context(), w.project+"_data", client.VolumeRemoveOptions{})
	require.NoError(t, err)
	w.upByHand(t)
	w.restart()
	w.inSync(SharedPart)
	require.Contains(t, strings.Join(w.observe(SharedPart).Facts.Notes, "\n"), "volume "+w.project+"_data was removed and made anew, and not by the agent")
	w.up("web")
}

// An engine that says of a volume that it was made when something at its top last changed does not make it another one.
func TestAVolumeInUseIsNoOtherOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t, driftingNetworks)
	w.up("web")
	before, err := w.engine.VolumeInspect(t.Context(), w.project+"_data", client.VolumeInspectOptions{})
	require.NoError(t, err)
	w.eventually("a second later", func() bool {
		_, code, err := w.r.Services(w.target("")).Exec(t.Context(), "web", []string{"sh", "-c", "rm -f /data/new && touch /data/new"}, nil, nil)
		require.NoError(t, err)
		require.Zero(t, code)
		now, err := w.engine.VolumeInspect(t.Context(), w.project+"_data", client.VolumeInspectOptions{})
		require.NoError(t, err)
		return now.Volume.CreatedAt != before.Volume.CreatedAt || time.Since(mustTime(t, before.Volume.CreatedAt)) > 3*time.Second
	})
	for range 2 {
		w.inSync(SharedPart)
		require.Empty(t, notes(w.observe(SharedPart)))
	}
}

func mustTime(t *testing.T, text string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, text)
	require.NoError(t, err)
	return at
}
