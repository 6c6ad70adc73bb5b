package compose

import (
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
)

// BenchmarkValidation is the cost of one more instance of a blueprint with nine services: checks, parts and claims.
func BenchmarkValidation(b *testing.B) {
	const source = "../../examples/desired/blueprints/spoke"
	environment := map[string]desired.Expr{}
	for _, name := range []string{
		"MONGO_PASSWORD", "POSTGRES_PASSWORD", "KEYCLOAK_ADMIN_PASSWORD", "REDIS_PASSWORD", "MONGODB_URL", "SPOKE_ID", "SPOKE_TOKEN",
	} {
		environment[name] = desired.Literal("x")
	}
	n := 0
	for b.Loop() {
		n++
		instance := &desired.Instance{Name: fmt.Sprintf("i%d", n), Source: "blueprints/spoke"}
		spec := &Spec{Environment: environment}
		spec.Environment["PROJECT"] = desired.Literal("dive-" + instance.Name)
		spec.Environment["BACKEND_PORT"] = desired.Literal(fmt.Sprint(4000 + n))
		c := &desired.Check{
			Fleet: &desired.Fleet{}, Instance: instance, Component: &desired.Component{Name: "stack", Spec: spec},
			Files: os.DirFS(source), SourceDir: source, Scope: desired.NewScope(nil),
		}
		parts := spec.Parts(c)
		require.Len(b, parts, 10)
		require.NotEmpty(b, spec.Claims(c))
		spec.Validate(c)
	}
}
