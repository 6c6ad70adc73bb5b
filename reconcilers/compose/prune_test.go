package compose

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/reconcilers"
	"dive-agent/testbed"
)

// Only what this stack pulled goes, when it was not named for the declared time, and nothing that anybody uses or may be put back.
func TestUnusedImagesArePruned(t *testing.T) {
	t.Parallel()
	w, registry := pulling(t, testbed.RegistryOptions{})
	const month = 30 * 24 * time.Hour
	w.spec.PruneImages = desired.Duration(month)
	clock := &movedClock{}
	w.r.clock = clock
	has := func(name string) bool {
		_, err := w.engine.ImageInspect(t.Context(), registry.Image(name))
		return err == nil
	}
	versions := []string{"1", "2", "3", "4", "5"}
	for _, version := range versions {
		registry.Push(testbed.Pushed{Name: "app:" + version, Labels: map[string]string{"v": version}})
	}
	registry.Push(testbed.Pushed{Name: "app:bad", Command: []string{"fail"}})
	foreign, err := w.engine.ImagePull(t.Context(), registry.Image("app:4"), client.ImagePullOptions{})
	require.NoError(t, err)
	require.NoError(t, foreign.Wait(t.Context())) // there before the stack came
	for _, version := range versions {
		w.set("WEB", registry.Image("app:"+version))
		w.up("web", "other")
	}
	// app:1 is used by a container of somebody else, that does not even run; app:3 has a name that somebody gave it.
	made, err := w.engine.ContainerCreate(t.Context(), client.ContainerCreateOptions{
		Name: w.project + "-theirs", Config: &container.Config{Image: registry.Image("app:1")},
	})
	require.NoError(t, err)
	theirs := func() {
		_, _ = w.engine.ContainerRemove(context.WithoutCancel(t.Context()), made.ID, client.ContainerRemoveOptions{Force: true})
	}
	t.Cleanup(theirs)
	_, err = w.engine.ImageTag(t.Context(), client.ImageTagOptions{Source: registry.Image("app:3"), Target: registry.Image("theirs:3")})
	require.NoError(t, err)

	clock.by += month - time.Hour
	w.inSync(SharedPart)
	clock.by += 2 * time.Hour
	p := w.plan(SharedPart)
	require.Len(t, p.Changes, 2)
	for _, change := range p.Changes {
		require.Equal(t, reconcilers.Delete, change.Action)
		require.False(t, change.Destroys)
		require.Regexp(t, `/app:[23], not used since 20\d\d-\d\d-\d\d; images are removed 720h later \(pruneImages\)$`, change.Reason)
	}
	require.NoError(t, w.try(SharedPart))
	w.inSync(SharedPart)
	w.inSync("web")
	require.False(t, has("app:2"))
	for _, name := range []string{"app:1", "app:3", "app:4", "app:5", "theirs:3"} {
		require.True(t, has(name), name)
	}

	// What a service may be put back to is kept, however old, and not removed once it is named again.
	theirs()
	w.set("WEB", registry.Image("app:bad"))
	w.write(map[string]string{"compose.yaml": strings.Replace(pulledStack, `command: ["${DO:-serve}"], `, "", 1)})
	require.NoError(t, w.try(SharedPart))
	require.Contains(t, rejected(t, w.try("web")).PutBack, "put back to")
	_, err = w.engine.ContainerRemove(t.Context(), w.inspect("web").ID, client.ContainerRemoveOptions{Force: true})
	require.NoError(t, err)
	clock.by += month + time.Hour
	w.restart()
	w.r.clock = clock
	require.NoError(t, w.try(SharedPart))
	require.NoError(t, w.try(SharedPart))
	require.True(t, has("app:5"), "the last good one")
	require.True(t, has("app:4"), "never pulled by this stack")
	require.False(t, has("app:1"))
	w.set("WEB", registry.Image("app:5"))
	w.up("web", "other")
}
