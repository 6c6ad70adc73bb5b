package bench

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/reconcilers/all"
	"dive-agent/testbed"
	"dive-agent/testbed/pki"
)

// TestTheFleetIsValid: what the bench takes from the examples, and takes away from them, is a fleet; its hosts are not enrolled, so
// nothing of it reads what others publish.
func TestTheFleetIsValid(t *testing.T) {
	t.Parallel()
	ca, err := pki.New("bench")
	require.NoError(t, err)
	files, err := firstFiles(testbed.ExampleValues(), ca.PEM())
	require.NoError(t, err)
	files["hosts/deu-01.yaml"], files["hosts/three-01.yaml"] = hostManifest("deu-01"), hostManifest("three-01")
	files["instances/deu.yaml"] = instanceManifest("deu", "spoke", "deu-01", "code: DEU", "country: Germany", "portOffset: 471")
	files["instances/three.yaml"] = instanceManifest("three", "three-set", "three-01", "project: three")
	dir := t.TempDir()
	for name, text := range files {
		file := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o700))
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	}
	for _, hub := range []string{"small-hub", "hub"} {
		if hub == "hub" {
			manifest := instanceManifest("usa", hub, "usa-01", "code: USA", "country: United States")
			require.NoError(t, os.WriteFile(filepath.Join(dir, "instances/usa.yaml"), []byte(manifest), 0o600))
		}
		fleet, err := desired.Load(dir, desired.Options{Kinds: all.Registry.Kinds()})
		require.NoError(t, err)
		for _, instance := range fleet.Instances {
			require.Empty(t, instance.Imports(), instance.Name)
		}
	}
}
