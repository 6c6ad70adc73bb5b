package keycloak

import (
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/reconcilers"
)

func TestFlowsAreDeletedOneAtATime(t *testing.T) {
	flow := reconcilers.Change{Action: reconcilers.Delete, Address: `module.sign_in["a"].keycloak_authentication_flow.browser`, Destroys: true}
	role := reconcilers.Change{Action: reconcilers.Delete, Address: "keycloak_role.one", Destroys: true}
	made := reconcilers.Change{Action: reconcilers.Create, Address: "keycloak_authentication_flow.other"}
	for _, c := range []struct {
		changes []reconcilers.Change
		want    int
	}{{[]reconcilers.Change{made, role}, 20}, {[]reconcilers.Change{made, role, flow}, 1}} {
		r := &run{look: &look{spec: &Spec{Parallelism: 20}}, plan: &saved{changes: c.changes}}
		require.Equal(t, c.want, r.parallelism())
	}
}
