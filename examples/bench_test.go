package examples_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/examples"
)

// A thousand spokes and their hub, loaded and validated.
func BenchmarkLoad1000(b *testing.B) {
	dir := b.TempDir()
	require.NoError(b, examples.WriteMany(dir, 1000))
	for name, o := range map[string]desired.Options{
		"without Compose files": {Kinds: kinds, Light: true},
		"with Compose files":    {Kinds: kinds},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				fleet, err := desired.Load(dir, o)
				require.NoError(b, err)
				require.Len(b, fleet.Instances, 1001)
			}
		})
	}
}
