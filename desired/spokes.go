package desired

import (
	"encoding/json"
	"fmt"
	"hash"
	"maps"
	"slices"
	"strings"

	"github.com/zclconf/go-cty/cty"
)

// fleetFields are the fields of the object "fleet".
var fleetFields = []string{"name", "spokes"}

// fleetName is the object's name in expressions.
const fleetName = "fleet"

// shareSpokes gives every instance the object "fleet". It is made of manifests alone: a spoke has its name, its host and its
// values, never a secret or an output. Spokes stand in the order of their names.
func (l *loader) shareSpokes() {
	spokes := []cty.Value{}
	for _, name := range slices.Sorted(maps.Keys(l.fleet.Instances)) {
		i := l.fleet.Instances[name]
		if i == nil || i.Role != RoleSpoke {
			continue
		}
		spokes = append(spokes, cty.ObjectVal(map[string]cty.Value{
			"name": cty.StringVal(i.Name), "host": cty.StringVal(i.Host), "values": object(i.Values).Cty(),
		}))
	}
	l.fleet.object = Value{cty.ObjectVal(map[string]cty.Value{"name": cty.StringVal(l.fleet.Name), "spokes": cty.TupleVal(spokes)})}
	for _, i := range l.fleet.Instances {
		if i != nil {
			i.fleet = l.fleet.object
		}
	}
}

// fleetDigest adds what the instance takes of other manifests: what each of its expressions that use the fleet gives, with
// names in place of what other instances publish, so that a published value is no part of it. One that cannot be evaluated
// before secrets or outputs are known, or in which a published value decides, counts for all spokes.
func (b *builder) fleetDigest(sum hash.Hash) {
	var scope *Scope
	for _, c := range b.instance.Components {
		for _, e := range c.exprs {
			if !slices.ContainsFunc(e.uses, func(u use) bool { return u.path[0] == fleetName }) {
				continue
			}
			if scope == nil {
				scope = b.instance.Scope(nil).WithInstances(b.importNames())
			}
			taken, err := e.Eval(scope)
			if err != nil || !taken.Known() || decided(taken) {
				taken = b.instance.fleet
			}
			text, err := json.Marshal(taken.Go())
			if err != nil { // a number that JSON cannot write
				text = fmt.Append(nil, taken.Cty().GoString())
			}
			put(sum, "fleet", []byte(c.Name), []byte(e.source), text)
		}
	}
}

// decided says whether a published value did more than stand in its place: it chose among others, or was made to something
// else. The names that stand for published values are marked as secrets are.
func decided(taken Value) bool {
	plain, marks := taken.Cty().UnmarkDeepWithPaths()
	return slices.ContainsFunc(marks, func(m cty.PathValueMarks) bool {
		at, err := m.Path.Apply(plain)
		return err != nil || at.Type() != cty.String || !strings.Contains(at.AsString(), instancesName+".")
	})
}
