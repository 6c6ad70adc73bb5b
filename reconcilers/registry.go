package reconcilers

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/moby/moby/client"

	"dive-agent/desired"
)

// Deps is what reconcilers are made of: the host's engine and tools, and everything that tests hold in their hands.
type Deps struct {
	Engine    *client.Client
	Clock     Clock
	Rand      io.Reader
	Log       *slog.Logger
	Redact    func(string) string // cleans text from engines of every secret value the agent knows
	Terraform Terraform
	OpenTofu  Terraform
	Compose   Compose

	DockerConfig string // Docker configuration (config.json) whose credentials images are pulled with; empty: none

	// Dial connects to what has no container on this host; nil: as net.Dialer does.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Terraform says where the tool, or OpenTofu in its place, is on this host.
type Terraform struct {
	Path      string   // executable; empty: terraform, or tofu, in PATH
	CLIConfig string   // TF_CLI_CONFIG_FILE, for hosts with a mirror; may be empty
	Allow     []string // of Deps.Terraform, for both: what modules may do on this host beyond the usual (keycloak/policy.go has the words)
}

// Compose says what stacks may do on this host beyond the usual (compose/policy.go has the words).
type Compose struct{ Allow []string }

// Clock is time as it comes in from outside.
type Clock interface {
	Now() time.Time
	// After gives a channel that fires once, after d.
	After(d time.Duration) <-chan time.Time
}

// Registration is one line in the program's list of reconcilers.
type Registration struct {
	Kind desired.Kind
	New  func(Deps) Reconciler
}

// Registry is the program's list of reconcilers.
type Registry []Registration

// Kinds gives what desired.Load needs to read manifests.
func (r Registry) Kinds() []desired.Kind {
	kinds := make([]desired.Kind, len(r))
	for i, registration := range r {
		kinds[i] = registration.Kind
	}
	return kinds
}

// Make constructs all reconcilers, by kind.
func (r Registry) Make(deps Deps) (map[string]Reconciler, error) {
	made := make(map[string]Reconciler, len(r))
	for _, registration := range r {
		if _, twice := made[registration.Kind.Name]; twice {
			return nil, fmt.Errorf("kind %s is registered twice", registration.Kind.Name)
		}
		made[registration.Kind.Name] = registration.New(deps)
	}
	return made, nil
}

// SystemClock is the machine's clock.
type SystemClock struct{}

// Now is the present time.
func (SystemClock) Now() time.Time { return time.Now() }

// After is time.After.
func (SystemClock) After(d time.Duration) <-chan time.Time { return time.After(d) }
