package e2e

import (
	"regexp"
	"strings"
	"testing"

	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"

	"dive-agent/report"
	"dive-agent/testbed"
	"dive-agent/testbed/agenttest"
)

func removeContainer(t *testing.T, s *small, id string) {
	t.Helper()
	_, err := s.engine.ContainerRemove(t.Context(), id, client.ContainerRemoveOptions{Force: true})
	require.NoError(t, err)
}

// TestAMissingImageTouchesNothing and is not tried again until the revision changes.
func TestAMissingImageTouchesNothing(t *testing.T) {
	t.Parallel()
	s := newSmall(t)
	h, good := s.ready(agenttest.HostOptions{})
	before := s.running()
	image := testbed.NewRegistry(t, testbed.RegistryOptions{}).Image("nothing:here")
	bad := s.Merge("Name an image that does not exist", s.files("image: \""+image+"\", label: second"))
	status := h.AwaitPhase(soon, "one", report.Degraded, bad)
	require.Contains(t, why(status), image)
	require.Contains(t, why(status), "nothing was changed")
	require.Contains(t, why(status), "sync --retry one")
	require.Equal(t, good, status.Applied)
	require.Equal(t, before, s.running())
	runs := len(status.Runs)

	h.Do("sync", "one")
	status = h.AwaitPhase(soon, "one", report.Degraded, bad)
	require.Len(t, status.Runs, runs, "a rejected revision is not tried again")
	removeContainer(t, s, before["front"])
	h.Await(soon, "one", "is healed at the applied revision", func(*report.Status) bool { return s.running()["front"] != "" })

	fixed := s.Merge("Take it back", s.files("label: third"))
	status = h.AwaitPhase(soon, "one", report.Ready, fixed)
	require.Equal(t, fixed, status.Applied)
	require.Equal(t, before["store"], s.running()["store"], "the store was never touched")
}

// TestAServiceThatNeverGetsHealthyIsPutBack with its last words, redacted, in the status.
func TestAServiceThatNeverGetsHealthyIsPutBack(t *testing.T) {
	t.Parallel()
	s := newSmall(t)
	h, good := s.ready(agenttest.HostOptions{})
	before := s.running()
	bad := s.Merge("Never healthy", s.files(`healthy: "false"`))
	status := h.AwaitPhase(2*soon, "one", report.Degraded, bad)
	require.Contains(t, why(status), "front")
	require.Contains(t, why(status), "put back")
	require.NotEmpty(t, status.Logs)
	require.Equal(t, good, status.Applied)
	running := s.running()
	require.Equal(t, before["store"], running["store"], "the other service was touched")
	require.NotEmpty(t, running["front"])

	secret := secretOf(t, h, "PASSWORD")
	for _, out := range []string{h.Log(), h.Do("status", "one"), h.Do("events"), h.Do("history", "one"), strings.Join(status.Logs, "\n")} {
		require.NotContains(t, out, strings.TrimSpace(secret))
	}
	page, err := s.Repo.Git("show", "status/one:README.md")
	require.NoError(t, err)
	require.Contains(t, page, "put back")
	fixed := s.Merge("Healthy", s.files("label: fourth"))
	h.AwaitPhase(soon, "one", report.Ready, fixed)
}

// TestAFirstDeploymentThatIsMerelySlowIsTriedAgain: there is nothing to put back; once the service is healthy, late, the
// rest follows by itself.
func TestAFirstDeploymentThatIsMerelySlowIsTriedAgain(t *testing.T) {
	t.Parallel()
	s := newSmall(t)
	files := s.files("")
	files["blueprints/small/blueprint.yaml"] = strings.Replace(files["blueprints/small/blueprint.yaml"], "healthTimeout: 20s", "healthTimeout: 3s", 1)
	files["blueprints/small/compose.yaml"] = strings.Replace(smallCompose, `healthcheck: {test: [CMD, "true"]`,
		`command: [sh, -c, "(sleep 10; touch /tmp/well) & exec redis-server"]
    healthcheck: {test: [CMD, test, -e, /tmp/well]`, 1)
	commit := s.Merge("Begin", files)
	h := agenttest.NewHost(t, s.Fleet, agenttest.HostOptions{})
	h.Start()
	status := h.AwaitPhase(soon, "one", report.Degraded, "")
	require.Contains(t, why(status), "service store is not healthy within 3s")
	require.Contains(t, why(status), commit[:7]+" is tried again when stack/store is healthy")
	require.Contains(t, why(status), "See blueprints/small/blueprint.yaml:14:5")
	require.Empty(t, s.running()["front"])
	before := s.running()["store"]
	h.AwaitPhase(soon, "one", report.Ready, commit)
	require.Equal(t, before, s.running()["store"], "nothing was made anew")
	require.NotEmpty(t, s.running()["front"])
}

// TestAPlanThatDestroysWaitsForItsDigest, and exactly that plan goes through once it is merged.
func TestAPlanThatDestroysWaitsForItsDigest(t *testing.T) {
	t.Parallel()
	s := newSmall(t)
	h, _ := s.ready(agenttest.HostOptions{})
	before := s.running()
	changed := s.files("")
	changed["blueprints/small/compose.yaml"] = strings.Replace(smallCompose, "  data: {}", "  data: {labels: {kept: \"no\"}}", 1)
	changed["instances/one.yaml"] = s.instance("", "")
	waits := s.Merge("Change the volume", changed)
	status := h.AwaitPhase(soon, "one", report.Blocked, waits)
	require.Equal(t, before, s.running(), "nothing was touched before the approval")
	found := regexp.MustCompile(`approve: \{"?([^:"]+)"?: "?([0-9a-f]{16})"?\}`).FindStringSubmatch(why(status))
	require.NotNil(t, found, why(status))

	approve := func(digest string) string {
		return s.Merge("Approve "+digest, map[string]string{"instances/one.yaml": s.instance("", "  approve: {\""+found[1]+"\": \""+digest+"\"}\n")})
	}
	other := approve("0123456789abcdef")
	h.AwaitPhase(soon, "one", report.Blocked, other)
	require.Equal(t, before, s.running(), "another digest let the plan through")
	approved := approve(found[2])
	status = h.AwaitPhase(soon, "one", report.Ready, approved)
	require.Equal(t, approved, status.Applied)
	volume, err := s.engine.VolumeInspect(t.Context(), s.project+"_data", client.VolumeInspectOptions{})
	require.NoError(t, err)
	require.Equal(t, "no", volume.Volume.Labels["kept"])
}

// TestARemovedContainerIsHealed whatever its restart policy, without a poll.
func TestARemovedContainerIsHealed(t *testing.T) {
	t.Parallel()
	s := newSmall(t)
	h, _ := s.ready(agenttest.HostOptions{})
	before := s.running()
	removeContainer(t, s, before["front"])
	testbed.Eventually(t, soon, "front runs again", func() error {
		if now := s.running()["front"]; now == "" || now == before["front"] {
			return errNotYet
		}
		return nil
	})
	status := h.AwaitPhase(soon, "one", report.Ready, "")
	require.Equal(t, before["store"], s.running()["store"])
	require.NotEmpty(t, status.Runs)
}
