package keycloak

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

// inputs is what a module is run with.
type inputs struct {
	variables map[string]any
	unknown   []string  // what is not known yet, by name
	digest    string    // keyed; of variables, module and the tool's configuration
	url, ca   string    // url is empty where the service tells
	health    string    // where the server's management interface tells whether it is ready; empty: not known
	container string    // the server's; empty: not known
	started   time.Time // that container; zero: not known
	admin     admin
	account   account
	backend   *remote // where the manifest keeps the state; nil: on this host
}

// gather evaluates the spec's expressions, and makes their digest.
func gather(t reconcilers.Target, s *Spec, w *workspace) (*inputs, error) {
	in, err := evaluate(t, s)
	if err != nil {
		return nil, err
	}
	if s.Backend != nil {
		values, unknown, err := s.Backend.values(t.Scope)
		if err != nil {
			return nil, err
		}
		in.unknown = append(in.unknown, unknown...)
		if len(unknown) == 0 {
			if in.backend, err = newRemote(s.Backend.Kind, values); err != nil {
				return nil, err
			}
		}
	}
	asked := []any{in.variables, in.url, w.source.hash, fileHash(w.tool.CLIConfig), w.tool.Path, w.toolVersion}
	if len(s.Imports) > 0 {
		asked = append(asked, s.Imports)
	}
	in.digest, err = digest(w.key, asked)
	return in, err
}

// evaluate evaluates the spec's expressions.
func evaluate(t reconcilers.Target, s *Spec) (*inputs, error) {
	in := &inputs{variables: map[string]any{}}
	for _, name := range sortedKeys(s.Variables) {
		tree := s.Variables[name]
		v, err := tree.Eval(t.Scope)
		if err != nil {
			return nil, err
		}
		if !v.Known() {
			for _, expr := range tree.Exprs() {
				if v, err := expr.Eval(t.Scope); err == nil && !v.Known() {
					in.unknown = append(in.unknown, expr.Missing(t.Scope)...)
				}
			}
			continue
		}
		in.variables[name] = v.Go()
	}
	for name, expr := range map[string]desired.Expr{"url": s.URL, "ca": s.CA} {
		if expr.IsZero() {
			continue
		}
		v, err := expr.Eval(t.Scope)
		if err != nil {
			return nil, err
		}
		if !v.Known() {
			in.unknown = append(in.unknown, expr.Missing(t.Scope)...)
			continue
		}
		if name == "url" {
			in.url = v.Text()
		} else {
			in.ca = v.Text()
		}
	}
	in.admin = adminOf(s, in.variables, t.Scope)
	if err := in.takeAccount(s, t.Scope); err != nil {
		return nil, err
	}
	slices.Sort(in.unknown)
	in.unknown = slices.Compact(in.unknown)
	return in, nil
}

// locate finds the server. The address of a container is no part of the digest: a container that was made anew is no
// reason to run Terraform.
func (in *inputs) locate(ctx context.Context, t reconcilers.Target, s *Spec) error {
	if in.url == "" {
		if t.Services == nil {
			return errors.New("the instance runs no services, and no url is given")
		}
		container, err := t.Services.Find(ctx, s.Service)
		if err != nil {
			return err
		}
		address := container.Addr()
		if !address.IsValid() {
			return fmt.Errorf("service %s has no network address", s.Service)
		}
		in.url = "http://" + net.JoinHostPort(address.String(), strconv.Itoa(s.Port))
		in.health = "http://" + net.JoinHostPort(address.String(), strconv.Itoa(s.Management)) + "/health/ready"
		in.container, in.started = container.Name, container.StartedAt
	}
	return nil
}

// tell gives the module the server's address, where it has the variable and the manifest leaves it out.
func (in *inputs) tell(module moduleFiles) {
	if _, given := in.variables[urlVariable]; given {
		return
	}
	if _, has := module.variables[urlVariable]; has {
		in.variables[urlVariable] = in.url
	}
}
