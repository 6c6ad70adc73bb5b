package keycloak

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"dive-agent/reconcilers"
)

var _ reconcilers.Outliner = (*Reconciler)(nil)

// offlineURL stands for the server where there is none to ask.
const offlineURL = "http://keycloak.invalid:8080"

// offlineFile lets the provider begin without a server to sign in to, where the module configures it. A plan with an empty state
// asks for nothing else, unless the module has data sources.
const (
	offlineFile = "dive_agent_offline_override.tf"
	offlineText = "provider \"keycloak\" {\n  initial_login = false\n}\n"
)

// Outline lists the resources that the module would create, by a plan of Terraform with an empty state. Where Terraform, its
// provider or what the module reads is not at hand, they are listed by the module's text.
func (r *Reconciler) Outline(ctx context.Context, t reconcilers.Target) (reconcilers.Outline, error) {
	spec, ok := t.Component.Spec.(*Spec)
	if !ok {
		return reconcilers.Outline{}, fmt.Errorf("component %s is not of kind %s", t.Component.Name, Kind.Name)
	}
	source, err := readSource(t, spec)
	if err != nil {
		return reconcilers.Outline{}, err
	}
	t.Dir = filepath.Join(t.Dir, source.hash[:16]) // one init for all instances of a module
	if err := os.MkdirAll(t.Dir, 0o700); err != nil {
		return reconcilers.Outline{}, err
	}
	in, err := evaluate(t, spec)
	if err != nil {
		return reconcilers.Outline{}, err
	}
	if in.url == "" {
		in.url = offlineURL
	}
	if err := r.lawful(spec, source.module); err != nil {
		return reconcilers.Outline{}, err
	}
	in.tell(source.module)
	items, problem := r.plannedItems(ctx, t, spec, source, in)
	if ctx.Err() != nil {
		return reconcilers.Outline{}, ctx.Err()
	}
	if problem == nil {
		return reconcilers.Outline{Items: append(spec.accountItems(), items...), Note: "by " + title[spec.tool()] + ", for an empty realm"}, nil
	}
	items, err = textItems(source.folder, in.variables)
	if err != nil {
		return reconcilers.Outline{}, fmt.Errorf("read Terraform module %s: %w", spec.Module, err)
	}
	return reconcilers.Outline{Items: append(spec.accountItems(), items...), Note: "by the module's text, since " + title[spec.tool()] + " cannot plan here: " + cutText(strings.ReplaceAll(r.deps.Redact(problem.Error()), "\n", " "), 300)}, nil
}

// plannedItems asks Terraform.
func (r *Reconciler) plannedItems(ctx context.Context, t reconcilers.Target, spec *Spec, source *source, in *inputs) ([]reconcilers.Item, error) {
	w, err := openWorkspace(t, spec, r.deps, source, &r.memory)
	if err != nil {
		return nil, err
	}
	w.offline = true
	unable := filepath.Join(t.Dir, "unable") // asked once: a registry that is away may take minutes to say so
	if said, err := os.ReadFile(unable); err == nil {
		return nil, errors.New(string(said))
	}
	if err := w.prepare(ctx); err != nil {
		return nil, errors.Join(err, os.WriteFile(unable, []byte(err.Error()), 0o600))
	}
	p, err := w.plan(ctx, in, spec.Parallelism)
	if err != nil {
		l := &look{Reconciler: r, target: t, spec: spec, work: w, in: in, record: &record{}}
		return nil, l.failed("plan", p.stream, err)
	}
	if !p.changes {
		return nil, nil
	}
	var items []reconcilers.Item
	for _, rc := range p.plan.ResourceChanges {
		if _, told := changeOf(rc, ""); !told {
			continue
		}
		c := compared{redact: r.deps.Redact, outline: true}
		after, _ := rc.Change.After.(map[string]any)
		for _, name := range sortedKeys(after) {
			c.add(name, sides(rc.Change).get(name))
		}
		items = append(items, reconcilers.Item{Address: rc.Address, Attributes: c.attributes(), Lasting: true})
	}
	return items, nil
}
