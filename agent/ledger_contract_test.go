package agent

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"dive-agent/desired"
	"dive-agent/reconcilers"
	"dive-agent/reconcilers/conformance"
)

// TestLedgerKeepsTheContract holds the engine of these tests to what real ones are held to.
func TestLedgerKeepsTheContract(t *testing.T) {
	conformance.Run(t, conformance.Subject{World: func(t *testing.T) *conformance.World {
		l := newLedger()
		component := &desired.Component{Name: "a", Kind: "Ledger", Spec: &entry{Value: desired.Literal("one")}}
		return &conformance.World{
			Target:  reconcilers.Target{Component: component, Scope: desired.NewScope(nil)},
			New:     func(*testing.T) reconcilers.Reconciler { return l },
			Secrets: []string{"token-of-one"},
			State: func(*testing.T) string {
				l.mu.Lock()
				defer l.mu.Unlock()
				return fmt.Sprint(slices.Sorted(maps.Keys(l.entries)), l.entries)
			},
		}
	}})
}
