package compose

import (
	"io/fs"
	"regexp"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	"dive-agent/desired"
)

// Validate is desired.Validator.
func (s *Spec) Validate(c *desired.Check) {
	if _, err := s.projectName(c.Instance.Name, c.Scope); err != nil {
		c.Errorf(s.Project.Position(), "project: %v", err)
		return
	}
	if _, err := s.profiles(c.Scope); err != nil {
		c.Errorf(c.At("profiles"), "profiles: %v", err)
		return
	}
	s.checkRegistries(c)
	s.checkPolicies(c)
	missing := false
	for _, file := range s.files() {
		if _, err := fs.Stat(c.Files, strings.TrimPrefix(file, "./")); err != nil {
			c.Errorf(c.At("files"), "files: there is no Compose file %s", repositoryPath(c, file))
			missing = true
		}
	}
	if missing || c.Light || c.SourceDir == "" {
		return
	}
	unset := s.checkVariables(c)
	m, err := s.model(c, unset...)
	if err != nil {
		s.reportLoad(c, err, unset)
		return
	}
	s.checkServices(c, m)
	s.checkPolicy(c, m)
	s.checkExternals(c, m)
	s.checkSettings(c, m)
	s.checkClasses(c, m)
	s.checkAfter(c, m)
	s.checkImages(c, m)
	s.checkTracking(c, m)
	s.checkUpdates(c, m)
}

// drive is how a path begins on Windows, and with it a volume whose name has one letter.
var drive = regexp.MustCompile(`^[A-Za-z]:[\\/]`)

// checkServices refuses, at their places in the Compose file, what Compose takes and the agent would not do.
func (s *Spec) checkServices(c *desired.Check, m *model) {
	at := s.places(c)
	checkSources(c, at, m)
	names := map[string]string{}
	for _, name := range sortedKeys(m.project.Services) {
		service := m.project.Services[name]
		refuse := func(key, format string, args ...any) { c.Errorf(at.find("services", name, key), format, args...) }
		if service.Build != nil {
			for _, key := range buildProblems(service.Build) {
				c.Errorf(at.find("services", name, "build", key), "service %s: build.%s is not done by the engine's own builder: build and push the image in CI, and give its name in image", name, key)
			}
		} else if service.Image == "" {
			refuse("image", "service %s has no image", name)
		}
		m.checkReplicas(name, refuse)
		if len(service.PreStart) > 0 {
			refuse("pre_start", "service %s has pre_start containers, which are not run: name a service for each, with depends_on and service_completed_successfully", name)
		}
		for _, volume := range service.Volumes {
			if drive.MatchString(volume.Target) || drive.MatchString(volume.Source) {
				refuse("volumes", "service %s: Compose takes %s%s for a drive of Windows: give the volume a name of two letters or more", name, volume.Source, volume.Target)
			}
		}
		for _, key := range windowsOnly(service) {
			refuse(key, "service %s: %s is for Windows, and Linux engines ignore it without a word", name, key)
		}
		if service.Provider != nil {
			refuse("provider", "service %s has a provider, which is not supported: run what it provides as a service", name)
		}
		if len(service.Models) > 0 {
			refuse("models", "service %s uses models, which are not supported", name)
		}
		if service.ContainerName != "" {
			if other, twice := names[service.ContainerName]; twice {
				refuse("container_name", "container_name %s is taken by service %s", service.ContainerName, other)
			}
			names[service.ContainerName] = name
		}
	}
}

func (s *Spec) checkAfter(c *desired.Check, m *model) {
	for _, service := range sortedKeys(s.After) {
		if _, ok := m.project.Services[service]; !ok {
			c.Errorf(c.At("after", service), "after: the Compose file has no active service %s", service)
		}
		for _, component := range s.After[service] {
			if !isComponent(c.Instance, component) {
				c.Errorf(c.At("after", service), "after: service %s waits for %s, and the instance has no such component", service, component)
			}
		}
	}
}

// checkSources refuses configs and secrets that Swarm would keep: here they would be empty.
func checkSources(c *desired.Check, at places, m *model) {
	for _, key := range sortedKeys(m.project.Configs) {
		if config := m.project.Configs[key]; bool(config.External) || config.TemplateDriver != "" {
			c.Errorf(at.find("configs", key), "config %s is kept by Swarm: give it a file, content or environment", key)
		}
	}
	for _, key := range sortedKeys(m.project.Secrets) {
		if secret := m.project.Secrets[key]; bool(secret.External) || secret.TemplateDriver != "" || secret.Driver != "" {
			c.Errorf(at.find("secrets", key), "secret %s is kept by Swarm: give it a file, such as ${SECRETS_DIR}/NAME, or environment", key)
		}
	}
}

// windowsOnly names the keys of a service that no Linux engine knows.
func windowsOnly(service types.ServiceConfig) (keys []string) {
	for key, set := range map[string]bool{
		"cpu_count": service.CPUCount != 0, "cpu_percent": service.CPUPercent != 0,
		"isolation": service.Isolation != "" && service.Isolation != "default", "credential_spec": service.CredentialSpec != nil,
	} {
		if set {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}
