package compose

import (
	"context"
	"fmt"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	"dive-agent/reconcilers"
)

var _ reconcilers.Outliner = (*Reconciler)(nil)

// Outline lists the services, volumes and networks of the stack's Compose file.
func (r *Reconciler) Outline(ctx context.Context, t reconcilers.Target) (reconcilers.Outline, error) {
	s, err := r.stack(ctx, t)
	if err != nil {
		return reconcilers.Outline{}, err
	}
	var out reconcilers.Outline
	for _, name := range sortedKeys(s.model.project.Services) {
		item := reconcilers.Item{Address: "service " + name, Attributes: outlineOf(s.model.project.Services[name])}
		for what, sum := range s.model.content[name].digest { // without the files of secrets, which only the host has
			item.Attributes["contents of "+what] = sum
		}
		out.Items = append(out.Items, item)
	}
	for _, name := range sortedKeys(s.model.project.Volumes) {
		out.Items = append(out.Items, reconcilers.Item{Address: "volume " + name})
	}
	for _, name := range sortedKeys(s.model.project.Networks) {
		out.Items = append(out.Items, reconcilers.Item{Address: "network " + name})
	}
	return out, nil
}

// outlineOf is what people look for in a service. What else the definition has is told by its hash.
func outlineOf(service types.ServiceConfig) map[string]string {
	known := map[string]string{"image": service.Image}
	for name, value := range service.Environment {
		if value != nil {
			known["environment."+name] = *value
		}
	}
	for _, port := range service.Ports {
		known[fmt.Sprintf("ports.%d/%s", port.Target, port.Protocol)] = strings.Trim(port.HostIP+":"+port.Published, ":")
	}
	if len(service.Command) > 0 {
		known["command"] = strings.Join(service.Command, " ")
	}
	return known
}
