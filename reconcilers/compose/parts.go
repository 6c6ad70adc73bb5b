package compose

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	"dive-agent/desired"
)

var (
	_ desired.Validator = (*Spec)(nil)
	_ desired.Parter    = (*Spec)(nil)
	_ desired.Claimer   = (*Spec)(nil)
)

// checked keeps the models that validation loaded last: checks, parts and claims of an instance ask one after the other.
var checked = newCache(8)

// model loads the stack as validation sees it: values are known; secrets, outputs and what is not set have stand-ins.
func (s *Spec) model(c *desired.Check, unset ...string) (*model, error) {
	r, err := s.checkRequest(c, unset)
	if err != nil {
		return nil, err
	}
	return checked.load(context.Background(), r)
}

func (s *Spec) checkRequest(c *desired.Check, unset []string) (r request, err error) {
	if c.SourceDir == "" {
		return r, errors.New("the Compose files are not on disk")
	}
	project, err := s.projectName(c.Instance.Name, c.Scope)
	if err != nil {
		return r, err
	}
	profiles, err := s.profiles(c.Scope)
	if err != nil {
		return r, err
	}
	env := map[string]string{secretsVariable: "/secrets"}
	unknown := slices.Clone(unset)
	for _, name := range unset {
		env[name] = standIn
	}
	for _, name := range sortedKeys(s.Environment) {
		if value, err := s.Environment[name].Eval(c.Scope); err == nil && value.Known() && !value.Secret() {
			env[name] = value.Text()
			continue
		}
		env[name] = standIn
		unknown = append(unknown, name)
	}
	return request{
		sourceDir: c.SourceDir, projectDir: "/project", secretsDir: "/secrets", project: project,
		files: s.files(), profiles: profiles, env: env, unknown: unknown, shallow: true,
	}, nil
}

// Parts is desired.Parter: one part per active service and one for what they share.
func (s *Spec) Parts(c *desired.Check) []desired.Part {
	if c.Light {
		return nil
	}
	m, err := s.model(c)
	if err != nil {
		return nil // Validate reports it
	}
	parts := []desired.Part{{Name: SharedPart, Title: "images, networks, volumes", Needs: s.sharedNeeds(m)}}
	for _, name := range sortedKeys(m.project.Services) {
		needs := []desired.Need{{Component: c.Component.Name, Part: SharedPart, Why: "images, networks and volumes come first"}}
		needs = append(needs, dependencies(c, m, name)...)
		needs = append(needs, s.outputs(name, m.uses[name])...)
		for _, component := range s.After[name] {
			needs = append(needs, desired.Need{Component: component, Why: "after", Position: c.At("after", name)})
		}
		service := m.project.Services[name]
		parts = append(parts, desired.Part{Name: name, Needs: needs, Minor: isMinor(service), Replicas: service.GetScale()})
	}
	return parts
}

// sharedNeeds are the outputs that names of images are made of: they are needed before an image can be found.
func (s *Spec) sharedNeeds(m *model) []desired.Need {
	needs := s.registryNeeds()
	for _, name := range sortedKeys(m.imageUses) {
		needs = append(needs, s.outputs(name, m.imageUses[name])...)
	}
	return needs
}

func dependencies(c *desired.Check, m *model, name string) []desired.Need {
	var needs []desired.Need
	depends := m.project.Services[name].DependsOn
	for _, other := range sortedKeys(depends) {
		if _, active := m.project.Services[other]; !active {
			continue // optional, and off by its profile
		}
		needs = append(needs, desired.Need{
			Component: c.Component.Name, Part: other,
			Started: depends[other].Condition == types.ServiceConditionStarted,
			Why:     "depends_on, " + strings.ReplaceAll(strings.TrimPrefix(depends[other].Condition, "service_"), "_", " "),
		})
	}
	return needs
}

// outputs gives the outputs of other components and of other instances, and the secrets, that come in by the variables.
func (s *Spec) outputs(service string, variables []string) []desired.Need {
	var needs []desired.Need
	for _, variable := range variables {
		needs = append(needs, s.Environment[variable].Needs(fmt.Sprintf("%s of service %s uses", variable, service))...)
	}
	return needs
}

func isComponent(instance *desired.Instance, name string) bool {
	for _, component := range instance.Components {
		if component.Name == name {
			return true
		}
	}
	return false
}

// Claims is desired.Claimer: the project's name, container names and published ports.
func (s *Spec) Claims(c *desired.Check) []desired.Claim {
	var claims []desired.Claim
	at := s.Project.Position()
	if at.Line == 0 {
		at = c.Component.Position
	}
	if project, err := s.projectName(c.Instance.Name, c.Scope); err == nil {
		claims = append(claims, desired.Claim{Name: "project/" + project, Position: at})
	}
	if c.Light {
		return claims
	}
	m, err := s.model(c)
	if err != nil {
		return claims
	}
	places := s.places(c)
	for _, name := range sortedKeys(m.project.Services) {
		service := m.project.Services[name]
		if service.ContainerName != "" {
			claims = append(claims, desired.Claim{
				Name: "container/" + service.ContainerName, By: name, Position: places.find("services", name, "container_name"),
			})
		}
		for _, port := range service.Ports {
			for _, claim := range portClaims(port) {
				claims = append(claims, desired.Claim{Name: claim, By: name, Position: places.find("services", name, "ports")})
			}
		}
	}
	return claims
}

// portClaims names what one published port, or a range of them, takes: on one address of the host, or on all.
func portClaims(port types.ServicePortConfig) []string {
	first, last, isRange := strings.Cut(port.Published, "-")
	from, err := strconv.ParseUint(first, 10, 16)
	if err != nil || from == 0 {
		return nil // the engine picks one
	}
	to := from
	if isRange {
		if to, err = strconv.ParseUint(last, 10, 16); err != nil || to < from || to-from > 1000 {
			return nil
		}
	}
	protocol := port.Protocol
	if protocol == "" {
		protocol = "tcp"
	}
	var claims []string
	for number := from; number <= to; number++ {
		if port.HostIP == "" || port.HostIP == "0.0.0.0" || port.HostIP == "::" {
			claims = append(claims, fmt.Sprintf("%s/%d", protocol, number))
		} else {
			claims = append(claims, fmt.Sprintf("%s/%s:%d", protocol, port.HostIP, number))
		}
	}
	return claims
}

// repositoryPath gives the name of a file of the source folder in the repository.
func repositoryPath(c *desired.Check, file string) string {
	return path.Join(c.Instance.Source, file)
}
