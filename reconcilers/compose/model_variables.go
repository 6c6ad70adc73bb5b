package compose

import (
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/template"
	"github.com/compose-spec/compose-go/v2/types"
)

// usedVariables finds, per service, the variables that its definition and what it refers to use, and those in the name of
// its image. The model is the merged one with its variables still in it.
func usedVariables(raw map[string]any, project *types.Project, r request) (uses, imageUses map[string][]string) {
	uses, imageUses = map[string][]string{}, map[string][]string{}
	for name, service := range project.Services {
		found := map[string]bool{}
		collect := func(node any) {
			for variable := range template.ExtractVariables(map[string]any{"": node}, template.DefaultPattern) {
				found[variable] = true
			}
		}
		definition, _ := section(raw, "services", name).(map[string]any)
		collect(definition["image"])
		collect(definition["build"])
		imageUses[name] = slices.Sorted(maps.Keys(found))
		collect(definition)
		bareNames(definition["environment"], found)
		for network := range service.Networks {
			collect(section(raw, "networks", network))
		}
		for _, volume := range service.Volumes {
			if volume.Type == types.VolumeTypeVolume {
				collect(section(raw, "volumes", volume.Source))
			}
		}
		for _, config := range service.Configs {
			collect(section(raw, "configs", config.Source))
			found[project.Configs[config.Source].Environment] = true
		}
		for _, secret := range service.Secrets {
			collect(section(raw, "secrets", secret.Source))
			found[project.Secrets[secret.Source].Environment] = true
		}
		for _, file := range envFiles(definition, r) {
			collect(file)
		}
		delete(found, "")
		delete(found, "COMPOSE_PROJECT_NAME")
		uses[name] = slices.Sorted(maps.Keys(found))
	}
	return uses, imageUses
}

// section gives one entry of a section of a Compose file.
func section(dict map[string]any, kind, name string) any {
	all, _ := dict[kind].(map[string]any)
	return all[name]
}

// volumeSources finds the variables that sources of services' volumes begin with.
func volumeSources(dict map[string]any) map[string]bool {
	found := map[string]bool{}
	services, _ := dict["services"].(map[string]any)
	for name := range services {
		definition, _ := services[name].(map[string]any)
		volumes, _ := definition["volumes"].([]any)
		for _, volume := range volumes {
			source, _ := volume.(string)
			if long, ok := volume.(map[string]any); ok {
				source, _ = long["source"].(string)
			}
			if strings.HasPrefix(source, "$") && !strings.HasPrefix(source, "$$") {
				found[variableName.FindString(source)] = true
			}
		}
	}
	return found
}

// bareNames finds `environment: [NAME]` and `environment: {NAME: }`, which take the value of the variable NAME.
func bareNames(environment any, found map[string]bool) {
	switch e := environment.(type) {
	case map[string]any:
		for name, value := range e {
			if value == nil {
				found[name] = true
			}
		}
	case []any:
		for _, item := range e {
			if name, ok := item.(string); ok && variableName.FindString(name) == name {
				found[name] = true
			}
		}
	}
}

// envFiles reads the env files of a service, for the variables in them. What cannot be read is reported elsewhere.
func envFiles(definition map[string]any, r request) []string {
	var texts []string
	list, _ := definition["env_file"].([]any)
	for _, item := range list {
		path, _ := item.(string)
		if entry, ok := item.(map[string]any); ok {
			path, _ = entry["path"].(string)
		}
		in, err := r.inside(path)
		if err != nil {
			continue
		}
		if content, err := os.ReadFile(in); err == nil {
			texts = append(texts, string(content))
		}
	}
	return texts
}
