package desired_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestWhatUsesASecretComesAfterWhatSetsIt: with the exception of what the setter itself needs.
func TestWhatUsesASecretComesAfterWhatSetsIt(t *testing.T) {
	blueprint := strings.NewReplacer(
		"mongodb: {}", "mongodb: {environment: {ROOT: \"${PASSWORD}\"}}",
		"frontend: {}", "frontend: {environment: {URL: \"mongodb://app:${PASSWORD}@mongodb\", KEY: \"${KEYFILE}\"}}",
		"MONGODB_URL: ${database.uri}", "MONGODB_PASSWORD: ${urlencode(PASSWORD)}",
		`steps: ["register`, `steps: ["${PASSWORD}", "register`,
		"after: [database]", "after: []",
	).Replace(spokeBlueprint)
	graph := loadTree(t, map[string]string{"blueprints/spoke/blueprint.yaml": blueprint}).Instances["deu"].Graph
	needs := map[string][]string{}
	for _, n := range graph.Nodes {
		for _, e := range n.Needs {
			if e.Secret != "" {
				needs[n.ID] = append(needs[n.ID], e.On+": "+e.Why)
			}
		}
	}
	require.Equal(t, map[string][]string{
		"stack/backend":  {"database: MONGODB_PASSWORD uses ${PASSWORD}"},
		"stack/frontend": {"database: URL uses ${PASSWORD}"},
		"registration":   {"database: uses ${PASSWORD}"},
	}, needs, "the database's own server comes before it; a secret that nothing sets makes no order")
}
