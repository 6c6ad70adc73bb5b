package compose

import (
	"fmt"
	"regexp"

	"gopkg.in/yaml.v3"
)

// portsLimit bounds the ports that the services of a stack publish and expose, ranges counted out: compose-go makes an
// entry of each port and compares each with all others.
const portsLimit = 5000

var portRange = regexp.MustCompile(`(\d{1,5})-(\d{1,5})`)

// portsOf gives how many ports a text such as 8000-8010:8000-8010/udp stands for.
func portsOf(text string) int {
	widest := 1
	for _, found := range portRange.FindAllStringSubmatch(text, -1) {
		widest = max(widest, atoi(found[2])-atoi(found[1])+1)
	}
	return widest
}

// countPorts adds the ports of a document as they are written, before the variables have values.
func (g *gatherer) countPorts(file *sourceFile, root *yaml.Node) error {
	_, services := child(root, "services")
	services = resolved(services)
	if services == nil || services.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(services.Content); i += 2 {
		for _, key := range []string{"ports", "expose"} {
			_, list := child(services.Content[i+1], key)
			if list = resolved(list); list == nil {
				continue
			}
			for _, item := range list.Content {
				text := resolved(item).Value
				if _, long := child(item, "published"); long != nil {
					text = long.Value
				}
				if g.ports += portsOf(text); g.ports > portsLimit {
					return &placedError{at: positionIn(file, item), text: tooManyPorts}
				}
			}
		}
	}
	return nil
}

var tooManyPorts = fmt.Sprintf("the stack has more than %d ports, with all of each range", portsLimit)

// checkPorts counts the ports of a merged stack with the values of its variables.
func (r request) checkPorts(dict map[string]any) error {
	ports := 0
	lookup := func(name string) (string, bool) {
		value, ok := r.env[name]
		return value, ok
	}
	services, _ := dict["services"].(map[string]any)
	for name, service := range services {
		definition, _ := service.(map[string]any)
		for _, key := range []string{"ports", "expose"} {
			list, _ := definition[key].([]any)
			for _, item := range list {
				text, _ := item.(string)
				if long, ok := item.(map[string]any); ok {
					text, _ = long["published"].(string)
				}
				if value, err := substituteStrictly(text, lookup); err == nil {
					text = value
				}
				if ports += portsOf(text); ports > portsLimit {
					return fmt.Errorf("services.%s.%s: %s", name, key, tooManyPorts)
				}
			}
		}
	}
	return nil
}
