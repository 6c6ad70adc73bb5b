package compose

import (
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"
)

// What somebody does to a container while the agent mends another thing of it is not taken for what the agent made.
func TestWhatIsDoneWhileAContainerIsMendedIsFound(t *testing.T) {
	t.Parallel()
	w := newWorld(t, oneService)
	w.up("web")
	id := w.inspect("web").ID
	_, err := w.engine.ContainerPause(t.Context(), id, client.ContainerPauseOptions{})
	require.NoError(t, err)
	p := w.plan("web")
	require.Len(t, p.Changes, 1)
	require.Equal(t, "unpause", p.Changes[0].Reason)
	_, err = w.engine.ContainerUpdate(t.Context(), id, client.ContainerUpdateOptions{Resources: &container.Resources{CPUShares: 100}})
	require.NoError(t, err)
	_, err = w.r.Apply(t.Context(), w.target("web"), p, &heard{t: t})
	require.NoError(t, err)
	require.Equal(t, "changed by hand: CPU shares 100 instead of none", w.change("web").Reason)
	require.NoError(t, w.try("web"))
	w.inSync("web")
	require.Zero(t, w.inspect("web").HostConfig.CPUShares)
}
