package e2e

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/report"
	"dive-agent/testbed/agenttest"
)

// TestServicesOfAllStacksAreFound: an instance of two stacks, with checks on a service of each.
func TestServicesOfAllStacksAreFound(t *testing.T) {
	t.Parallel()
	s := newSmall(t)
	t.Cleanup(func() { removeProject(t, s.engine, s.project+"-side") })
	files := s.files("")
	files["blueprints/small/side.yaml"] = strings.NewReplacer("store", "shelf", "front", "window").Replace(smallCompose)
	files["blueprints/small/blueprint.yaml"] += `    side:
      kind: ComposeStack
      project: ${project}-side
      files: [side.yaml]
      environment: {IMAGE: "${image}", LABEL: "${label}", HEALTHY: "${healthy}", PASSWORD: "${PASSWORD}"}
    checks:
      kind: Verification
      checks:
        - {name: store, logs: {service: store, absent: no such word}}
        - {name: shelf, logs: {service: shelf, absent: no such word}}
`
	commit := s.Merge("Begin", files)
	h := agenttest.NewHost(t, s.Fleet, agenttest.HostOptions{})
	h.Start()
	status := h.AwaitPhase(2*soon, "one", report.Ready, commit)
	require.Len(t, status.Services, 4)
	require.Len(t, status.Checks, 2)
}
