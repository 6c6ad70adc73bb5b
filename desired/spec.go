package desired

import (
	"io/fs"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/zclconf/go-cty/cty"
)

var dynamic = cty.DynamicVal

// genericFields are the fields of a component that all kinds have. `after` is the kind's where its spec has one.
var genericFields = []string{"kind", "after", "publish"}

// spec fills a component's spec and its generic fields.
func (d *Decoder) spec(n *node, c *Component) {
	d.publication(n, c)
	v := reflect.ValueOf(c.Spec).Elem()
	if u, ok := c.Spec.(Unmarshaler); ok {
		u.UnmarshalManifest(d, d.tree(n))
	} else if v.Kind() == reflect.Struct {
		d.structure(n, v, "component "+c.Name, genericFields)
		if slices.Contains(infoOf(v.Type()).names, "after") {
			return
		}
	}
	after := n.get("after")
	if after == nil {
		return
	}
	if after.kind != sequenceNode {
		d.wrong(after, "after", "a list of components")
		return
	}
	for _, item := range after.items {
		if item.kind != scalarNode || item.tag != "!!str" {
			d.wrong(item, "an entry of after", "a component, or component/part")
			continue
		}
		c.after = append(c.after, dependency{item.text, item.at})
	}
}

// At gives the place of a field of the component, such as At("members", "0", "service"); where the manifest does not
// have it, the place of what comes nearest.
func (c *Check) At(path ...string) Position {
	if c.Component == nil {
		return Position{}
	}
	at, n := c.Component.Position, c.Component.node
	for _, step := range path {
		if n == nil {
			break
		}
		var next *node
		switch n.kind {
		case mappingNode:
			next = n.get(step)
		case sequenceNode:
			if i, err := strconv.Atoi(step); err == nil && i >= 0 && i < len(n.items) {
				next = n.items[i]
			}
		}
		if next == nil {
			break
		}
		at, n = next.at, next
	}
	return at
}

// Problems gives what was reported so far.
func (c *Check) Problems() Problems {
	if c.problems == nil {
		return nil
	}
	return c.problems.Sort()
}

// Path checks that a path from a manifest stays inside the instance's source folder and is there: a regular file, or a
// folder. It gives the cleaned path and reports what is wrong.
func (c *Check) Path(at Position, name string, folder bool) (clean string, ok bool) {
	clean = path.Clean(name)
	if name == "" || strings.Contains(name, "\\") || !fs.ValidPath(clean) {
		c.Errorf(at, "path %q leaves the folder %s", name, c.source())
		return "", false
	}
	if c.Files == nil {
		return clean, true
	}
	info, err := fs.Stat(c.Files, clean)
	switch {
	case err != nil:
		c.Errorf(at, "cannot read %s: %v", path.Join(c.source(), clean), cause(err))
	case folder && !info.IsDir():
		c.Errorf(at, "%s is a file, not a folder", path.Join(c.source(), clean))
	case !folder && !info.Mode().IsRegular():
		c.Errorf(at, "%s is no regular file", path.Join(c.source(), clean))
	default:
		return clean, true
	}
	return "", false
}

func (c *Check) source() string {
	if c.Instance == nil {
		return "."
	}
	return c.Instance.Source
}
