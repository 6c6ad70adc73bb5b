package keycloak

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

// inputs is what a module is run with.
type inputs struct {
	variables map[string]any
	secrets   []string // values that may stand nowhere
	unknown   []string // what is not known yet, by name
	digest    string   // keyed; of variables, module and the tool's configuration
	url, ca   string   // url is empty where the service tells
}

// gather evaluates the spec's expressions.
func gather(t reconcilers.Target, s *Spec, w *workspace) (*inputs, error) {
	in := &inputs{variables: map[string]any{}}
	for _, name := range sortedKeys(s.Variables) {
		tree := s.Variables[name]
		v, err := tree.Eval(t.Scope)
		if err != nil {
			return nil, err
		}
		if !v.Known() {
			in.unknown = append(in.unknown, missing(name, tree.Exprs(), t.Scope)...)
			continue
		}
		in.variables[name] = v.Go()
		if v.Secret() {
			in.secrets = append(in.secrets, leaves(in.variables[name])...)
		}
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
			in.unknown = append(in.unknown, missing(name, []desired.Expr{expr}, t.Scope)...)
			continue
		}
		if name == "url" {
			in.url = v.Text()
		} else {
			in.ca = v.Text()
		}
	}
	slices.Sort(in.unknown)
	in.unknown = slices.Compact(in.unknown)
	var err error
	in.digest, err = digest(w.key, []any{in.variables, in.url, w.moduleHash, fileHash(w.tool.CLIConfig), w.tool.Path})
	return in, err
}

// missing names the references of expressions that have no value yet.
func missing(name string, exprs []desired.Expr, scope *desired.Scope) []string {
	var names []string
	for _, expr := range exprs {
		if v, err := expr.Eval(scope); err == nil && v.Known() {
			continue
		}
		for _, reference := range expr.References() {
			text := reference.String()
			single, problems := desired.ParseExpr("${"+text+"}", expr.Position())
			if v, err := single.Eval(scope); len(problems) > 0 || err != nil || !v.Known() {
				names = append(names, text)
			}
		}
	}
	if len(names) == 0 {
		names = []string{name}
	}
	return names
}

// leaves lists the texts in a value.
func leaves(v any) []string {
	switch value := v.(type) {
	case string:
		return []string{value}
	case []any:
		var all []string
		for _, e := range value {
			all = append(all, leaves(e)...)
		}
		return all
	case map[string]any:
		var all []string
		for _, e := range value {
			all = append(all, leaves(e)...)
		}
		return all
	}
	return nil
}

// redact takes the secrets among the variables out of a text.
func (in *inputs) redact(text string) string {
	for _, secret := range in.secrets {
		if len(secret) >= 4 {
			text = strings.ReplaceAll(text, secret, "(secret)")
		}
	}
	return text
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
	}
	return nil
}

// tell gives the module the server's address, where it has the variable and the manifest leaves it out.
func (in *inputs) tell(source string) error {
	if _, given := in.variables[urlVariable]; given {
		return nil
	}
	module, err := readModule(os.DirFS(filepath.Dir(source)), filepath.Base(source))
	if err != nil {
		return fmt.Errorf("read Terraform module %s: %w", filepath.Base(source), err)
	}
	if _, has := module.variables[urlVariable]; has {
		in.variables[urlVariable] = in.url
	}
	return nil
}
