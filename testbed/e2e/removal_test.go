package e2e

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"

	"dive-agent/report"
	"dive-agent/testbed/agenttest"
	"dive-agent/testbed/gitserver"
)

// TestAnInstanceIsTakenAway removes a manifest that said what is to become of what runs, while the agent is killed before and after
// each change. Then it is merged again.
func TestAnInstanceIsTakenAway(t *testing.T) {
	t.Parallel()
	s := newSmall(t)
	files := s.files("")
	files["instances/one.yaml"] = s.instance("", "  onRemove: destroy\n  destroyVolumes: true\n")
	commit := s.Merge("Begin", files)
	h := agenttest.NewHost(t, s.Fleet, agenttest.HostOptions{Tags: []string{"failpoint"}})
	h.Start()
	h.AwaitPhase(2*soon, "one", report.Ready, commit)
	h.Stop()

	s.Merge("Remove instance one", map[string]string{"instances/one.yaml": gitserver.Remove})
	points := agenttest.Failpoints{File: filepath.Join(h.Dir, "failpoints")}
	h.Env = points.Env()
	kills := agenttest.UntilThrough(t, 2*soon, func() <-chan struct{} {
		h.Launch()
		return h.Ended()
	}, func() error {
		status, err := h.Status("one")
		if err == nil && (status.Phase != report.Removed || len(status.Nodes) > 0) {
			err = fmt.Errorf("it is %s: %s", status.Phase, status.News)
		}
		return err
	})
	require.GreaterOrEqual(t, kills, 14, "two containers stopped and removed, an archive, a network, a volume: %q", points.Places(t))
	require.Empty(t, s.remains(), "nothing is left on the engine")
	archives, err := filepath.Glob(filepath.Join(h.Dir, "state/archives/one/*", s.project+"_data.tar.gz*"))
	require.NoError(t, err)
	require.Len(t, archives, 2, "one archive and its sum, however often the agent was killed")
	status, err := h.Status("one")
	require.NoError(t, err)
	require.Contains(t, status.News, "what the volumes held is in "+filepath.Dir(archives[0]))

	// The volume's loss is known, and no empty one takes its place without a word.
	h.Stop()
	h.Env = nil
	commit = s.Merge("Bring instance one back", map[string]string{"instances/one.yaml": files["instances/one.yaml"]})
	h.Start()
	status = h.AwaitPhase(soon, "one", report.Blocked, commit)
	require.Contains(t, fmt.Sprint(status.Why), s.project+"_data")
}

// remains lists what the engine has of the project.
func (s *small) remains() (names []string) {
	filters := client.Filters{}.Add("label", "com.docker.compose.project="+s.project)
	containers, err := s.engine.ContainerList(s.t.Context(), client.ContainerListOptions{All: true, Filters: filters})
	require.NoError(s.t, err)
	for _, c := range containers.Items {
		names = append(names, c.Names...)
	}
	networks, err := s.engine.NetworkList(s.t.Context(), client.NetworkListOptions{Filters: filters})
	require.NoError(s.t, err)
	for _, n := range networks.Items {
		names = append(names, n.Name)
	}
	volumes, err := s.engine.VolumeList(s.t.Context(), client.VolumeListOptions{Filters: filters})
	require.NoError(s.t, err)
	for _, v := range volumes.Items {
		names = append(names, v.Name)
	}
	return names
}
