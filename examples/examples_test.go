package examples_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/examples"
	"dive-agent/reconcilers/compose"
	"dive-agent/reconcilers/keycloak"
	"dive-agent/reconcilers/mongo"
	"dive-agent/reconcilers/registration"
)

var kinds = []desired.Kind{compose.Kind, mongo.Kind, keycloak.Kind, registration.SpokeKind, registration.ApprovalsKind}

// The example fleet is valid with the real kinds, as it is and with the test bed's images.
func TestExamplesLoad(t *testing.T) {
	for name, o := range map[string]examples.Options{"as it is": {}, "test bed": {Values: examples.TestbedValues()}} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, examples.Write(dir, o))
			fleet, err := desired.Load(dir, desired.Options{Kinds: kinds})
			require.NoError(t, err)
			require.Len(t, fleet.Instances, 4)
		})
	}
}
