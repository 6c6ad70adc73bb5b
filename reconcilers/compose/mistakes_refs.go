package compose

import (
	"path"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"gopkg.in/yaml.v3"

	"dive-agent/desired"
)

// reportReferences reports every name in the services that nothing in the stack has: compose-go tells one of them.
func (s *Spec) reportReferences(c *desired.Check, at places) (found bool) {
	known := map[string][]string{}
	for _, kind := range []string{"services", "networks", "volumes", "configs", "secrets"} {
		for _, file := range at.files {
			_, section := child(file.root, kind)
			known[kind] = append(known[kind], keysOf(section)...)
		}
	}
	known["networks"] = append(known["networks"], "default")
	for _, file := range at.files {
		_, services := child(file.root, "services")
		for _, service := range keysOf(services) {
			_, definition := child(services, service)
			for _, ref := range references(definition) {
				if ref.name == "" || strings.Contains(ref.name, "$") || slices.Contains(known[ref.kind], ref.name) {
					continue
				}
				found = true
				where := desired.Position{File: file.name, Line: ref.node.Line, Column: ref.node.Column}
				c.Errorf(where, "service %s: %s names %s %q, and there is none%s", service, ref.key,
					strings.TrimSuffix(ref.kind, "s"), ref.name, desired.Hint(ref.name, known[ref.kind]))
			}
		}
	}
	return found
}

func keysOf(node *yaml.Node) (keys []string) {
	node = resolved(node)
	if node == nil || node.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		keys = append(keys, node.Content[i].Value)
	}
	return keys
}

// namedThing is a name in a service's definition.
type namedThing struct {
	key  string
	kind string // what it names, as its section is called
	name string
	node *yaml.Node
}

// references finds the names in a service's definition.
func references(definition *yaml.Node) (list []namedThing) {
	each := func(key, kind string, name func(item *yaml.Node) *yaml.Node) {
		_, value := child(definition, key)
		value = resolved(value)
		if value == nil {
			return
		}
		for i, item := range value.Content {
			if value.Kind == yaml.MappingNode && i%2 == 1 {
				continue // the keys are the names
			}
			if node := name(resolved(item)); node != nil {
				list = append(list, namedThing{key, kind, node.Value, node})
			}
		}
	}
	plain := func(item *yaml.Node) *yaml.Node { return item }
	source := func(item *yaml.Node) *yaml.Node {
		if item.Kind != yaml.MappingNode {
			return item
		}
		_, source := child(item, "source")
		return resolved(source)
	}
	each("networks", "networks", plain)
	each("configs", "configs", source)
	each("secrets", "secrets", source)
	each("volumes", "volumes", namedVolume)
	each("depends_on", "services", required(definition))
	for _, key := range []string{"network_mode", "ipc", "pid"} {
		if at, value := child(definition, key); at != nil {
			if name, ok := strings.CutPrefix(resolved(value).Value, types.ServicePrefix); ok {
				list = append(list, namedThing{key, "services", name, value})
			}
		}
	}
	return list
}

// required leaves out services that need not be there.
func required(definition *yaml.Node) func(*yaml.Node) *yaml.Node {
	return func(item *yaml.Node) *yaml.Node {
		_, all := child(definition, "depends_on")
		_, one := child(all, item.Value)
		if _, required := child(one, "required"); required != nil && required.Value == "false" {
			return nil
		}
		return item
	}
}

// namedVolume gives the name of a volume in one entry of volumes; nil for a path, and for one without a name.
func namedVolume(item *yaml.Node) *yaml.Node {
	if item.Kind == yaml.MappingNode {
		_, kind := child(item, "type")
		_, source := child(item, "source")
		if kind == nil || kind.Value != types.VolumeTypeVolume {
			return nil
		}
		return resolved(source)
	}
	name, _, more := strings.Cut(item.Value, ":")
	if !more || path.IsAbs(name) || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "~") {
		return nil
	}
	return &yaml.Node{Value: name, Line: item.Line, Column: item.Column}
}
