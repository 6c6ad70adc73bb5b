package agent

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

// What stands for values that only a host has. Texts, so that modules and Compose files take them, and long ones, so that
// they pass for a password.
const (
	standInSecret  = "Dive-Agent-Stand-In-For-A-Secret-01"
	standInUnknown = "Dive-Agent-Stand-In-For-An-Output-01"
)

// withoutStandIns also finds them after upper() and lower().
var withoutStandIns = strings.NewReplacer(
	standInSecret, "(secret)", strings.ToUpper(standInSecret), "(secret)", strings.ToLower(standInSecret), "(secret)",
	standInUnknown, "(known after apply)", strings.ToUpper(standInUnknown), "(known after apply)", strings.ToLower(standInUnknown), "(known after apply)",
)

// OfflineOptions are what plans without a host are made with.
type OfflineOptions struct {
	Kinds       []desired.Kind
	Reconcilers map[string]reconcilers.Reconciler
	Log         *slog.Logger
	Instance    string                     // only this one; empty: all
	Allow       func(host string) []string // as desired.Options.Allow
}

// Offline tells what the instances of a folder consist of, or with a base folder what changes from there: by the manifests
// alone, with no host, no engine, no state and no secret. unchanged counts the instances that are the same in both.
func Offline(ctx context.Context, dir, base string, o OfflineOptions) (previews []Preview, unchanged int, err error) {
	scratch, err := os.MkdirTemp("", "dive-agent-plan-")
	if err != nil {
		return nil, 0, fmt.Errorf("cannot make a folder for the plan: %w", err)
	}
	defer func() { _ = os.RemoveAll(scratch) }()
	head, err := newSide(dir, scratch, o)
	if err != nil {
		return nil, 0, err
	}
	from := &side{fleet: &desired.Fleet{}}
	if base != "" {
		if from, err = newSide(base, scratch, o); err != nil {
			return nil, 0, fmt.Errorf("the base %s: %w", base, err)
		}
	}
	names := map[string]bool{}
	for _, fleet := range []*desired.Fleet{head.fleet, from.fleet} {
		for name := range fleet.Instances {
			names[name] = o.Instance == "" || o.Instance == name
		}
	}
	if o.Instance != "" && !names[o.Instance] {
		return nil, 0, &UnknownError{Name: o.Instance, Have: slices.Sorted(maps.Keys(head.fleet.Instances))}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		after, before := head.fleet.Instances[name], from.fleet.Instances[name]
		switch {
		case !names[name]:
		case after != nil && before != nil && after.Digest == before.Digest:
			unchanged++
		default:
			preview, err := offline(ctx, head, from, after, before)
			if err != nil {
				return nil, 0, fmt.Errorf("%s: %w", name, err)
			}
			previews = append(previews, preview)
		}
	}
	return previews, unchanged, nil
}

// side is one of the two folders that are compared.
type side struct {
	OfflineOptions
	dir     string
	scratch string
	fleet   *desired.Fleet
}

func newSide(dir, scratch string, o OfflineOptions) (*side, error) {
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return nil, fmt.Errorf("cannot read the fleet repository: %s is not a folder", dir)
	}
	fleet, err := desired.Load(dir, desired.Options{Kinds: o.Kinds, Allow: o.Allow})
	return &side{OfflineOptions: o, dir: dir, scratch: scratch, fleet: fleet}, err
}

// offline compares two states of one instance, one of which may be nil.
func offline(ctx context.Context, head, from *side, after, before *desired.Instance) (Preview, error) {
	if after == nil {
		left := removal{OnRemove: before.OnRemove, DestroyVolumes: before.DestroyVolumes}
		gone := PreviewChange{Change: reconcilers.Change{
			Action: reconcilers.Delete, Address: "instance " + before.Name, Reason: "its manifest is gone; " + left.means(),
			Destroys: before.OnRemove == desired.OnRemoveDestroy,
		}}
		return Preview{Instance: before.Name, Host: before.Host, Offline: true, Base: true, Nodes: []PreviewNode{{ID: before.Name, Component: before.Name, Changes: []PreviewChange{gone}}}}, nil
	}
	preview := Preview{Nodes: []PreviewNode{}, Instance: after.Name, Host: after.Host, Offline: true, Base: before != nil}
	if before == nil {
		before = &desired.Instance{}
	}
	var order []string
	for _, node := range after.Graph.Nodes { // as they come about
		if !slices.Contains(order, node.Component.Name) {
			order = append(order, node.Component.Name)
		}
	}
	for _, c := range before.Components {
		if after.Component(c.Name) == nil {
			order = append(order, c.Name)
		}
	}
	for _, name := range order {
		was, err := from.items(ctx, before, before.Component(name))
		if err != nil {
			return preview, fmt.Errorf("%s, in the base: %w", name, err)
		}
		is, err := head.items(ctx, after, after.Component(name))
		if err != nil {
			return preview, fmt.Errorf("%s: %w", name, err)
		}
		if changes := compareItems(was, is); len(changes) > 0 {
			preview.Nodes = append(preview.Nodes, PreviewNode{ID: name, Component: name, Changes: changes, Note: is.Note})
		}
	}
	return preview, nil
}

// items are what a component consists of: itself, with what its manifest says, and its outline.
func (s *side) items(ctx context.Context, inst *desired.Instance, c *desired.Component) (reconcilers.Outline, error) {
	if c == nil {
		return reconcilers.Outline{}, nil
	}
	scope := standIns(inst)
	own := reconcilers.Item{Address: "component " + c.Name, Attributes: map[string]string{}}
	said(c.Tree(), "", scope, own.Attributes)
	outline := reconcilers.Outline{}
	if outliner, ok := s.Reconcilers[c.Kind].(reconcilers.Outliner); ok {
		var err error
		if outline, err = outliner.Outline(ctx, s.target(inst, c, scope)); err != nil {
			return outline, err
		}
	}
	outline.Items = append([]reconcilers.Item{own}, outline.Items...)
	return outline, nil
}

func (s *side) target(inst *desired.Instance, c *desired.Component, scope *desired.Scope) reconcilers.Target {
	return reconcilers.Target{
		Instance: inst, Component: c, Fleet: s.fleet, Scope: scope, Log: s.Log,
		SourceDir: filepath.Join(s.dir, filepath.FromSlash(inst.Source)), ProjectDir: "/project", SecretsDir: "/secrets",
		Dir: filepath.Join(s.scratch, c.Name),
	}
}

// standIns is the scope of an instance in which everything is known: stand-ins for secrets and outputs.
func standIns(inst *desired.Instance) *desired.Scope {
	secrets := map[string]desired.Value{}
	for _, secret := range inst.Secrets {
		secrets[secret.Name] = desired.Secret(standInSecret)
	}
	scope := inst.Scope(secrets, desired.Builtins{ProjectDir: "/project", SecretsDir: "/secrets"})
	for _, c := range inst.Components {
		outputter, ok := c.Spec.(desired.Outputter)
		if !ok {
			continue
		}
		outputs := map[string]desired.Value{}
		for _, output := range outputter.Outputs() {
			outputs[output.Name] = desired.String(standInUnknown)
			if output.Secret {
				outputs[output.Name] = desired.Secret(standInSecret)
			}
		}
		scope = scope.WithOutputs(c, outputs)
	}
	return scope.WithInstances(importedStandIns(inst))
}

// importedStandIns stand for what the instance imports, as if all of it were published.
func importedStandIns(inst *desired.Instance) map[string]map[string]map[string]desired.Value {
	values := map[string]map[string]map[string]desired.Value{}
	for _, i := range inst.Imports() {
		if values[i.Instance] == nil {
			values[i.Instance] = map[string]map[string]desired.Value{}
		}
		if values[i.Instance][i.Component] == nil {
			values[i.Instance][i.Component] = map[string]desired.Value{}
		}
		values[i.Instance][i.Component][i.Output] = desired.String(standInUnknown)
		if i.Secret {
			values[i.Instance][i.Component][i.Output] = desired.Secret(standInSecret)
		}
	}
	return values
}

// said collects what a manifest says, by path, with its expressions evaluated.
func said(t desired.Tree, path string, scope *desired.Scope, into map[string]string) {
	at := func(name string) string { return strings.TrimPrefix(path+"."+name, ".") }
	for _, f := range t.Fields() {
		said(f.Value, at(f.Name), scope, into)
	}
	for i, item := range t.Items() {
		said(item, at(fmt.Sprint(i)), scope, into)
	}
	if !t.IsScalar() {
		return
	}
	text := t.Expr().Source()
	if v, err := t.Eval(scope); err == nil {
		if plain, ok := v.Go().(string); ok {
			text = plain
		} else if v.Text() != "" {
			text = v.Text()
		}
	}
	into[path] = text
}

// compareItems gives the changes from one outline to another.
func compareItems(was, is reconcilers.Outline) []PreviewChange {
	before := map[string]reconcilers.Item{}
	for _, item := range was.Items {
		before[item.Address] = item
	}
	var changes []PreviewChange
	for _, item := range is.Items {
		old, there := before[item.Address]
		delete(before, item.Address)
		if !there {
			changes = append(changes, PreviewChange{Change: reconcilers.Change{Action: reconcilers.Create, Address: item.Address, Reason: "new"}})
			continue
		}
		c := PreviewChange{Change: reconcilers.Change{Action: reconcilers.Update, Address: item.Address}, Differences: compareAttributes(old.Attributes, item.Attributes)}
		for _, d := range c.Differences {
			name, _, _ := strings.Cut(d.Path, "[")
			if !slices.Contains(c.Details, name) {
				c.Details = append(c.Details, name)
			}
		}
		if c.Reason = strings.Join(c.Details, ", "); len(c.Details) > 0 {
			changes = append(changes, c)
		}
	}
	for _, item := range was.Items {
		if _, left := before[item.Address]; left {
			changes = append(changes, PreviewChange{Change: reconcilers.Change{Action: reconcilers.Delete, Address: item.Address, Reason: "no longer declared", Destroys: item.Lasting}})
		}
	}
	return changes
}

func compareAttributes(was, is map[string]string) (found []reconcilers.Difference) {
	names := map[string]string{}
	maps.Copy(names, was)
	maps.Copy(names, is)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if was[name] != is[name] {
			found = append(found, reconcilers.Difference{Path: name, Before: withoutStandIns.Replace(was[name]), After: withoutStandIns.Replace(is[name])})
		}
	}
	return found
}
