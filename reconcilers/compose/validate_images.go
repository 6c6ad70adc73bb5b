package compose

import (
	"fmt"
	"slices"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/containerd/platforms"

	"dive-agent/desired"
)

// checkImages refuses what the stack says of its images and could not be done.
func (s *Spec) checkImages(c *desired.Check, m *model) {
	at := s.places(c)
	asked := map[string]types.ServiceConfig{} // image -> a service that names a platform for it
	for _, name := range sortedKeys(m.project.Services) {
		service := m.project.Services[name]
		if _, _, err := service.GetPullPolicy(); err != nil {
			c.Errorf(at.find("services", name, "pull_policy"), "service %s: %v: write always, missing, never, daily, weekly or every_12h", name, err)
		}
		if service.Platform == "" {
			continue
		}
		if _, err := platforms.Parse(service.Platform); err != nil {
			c.Errorf(at.find("services", name, "platform"), "service %s: platform %q: write linux/amd64 or linux/arm64", name, service.Platform)
		}
		if other, twice := asked[service.Image]; twice && other.Platform != service.Platform {
			c.Errorf(at.find("services", name, "platform"), "service %s runs image %s for %s, and service %s for %s: an engine has one of a name",
				name, service.Image, service.Platform, other.Name, other.Platform)
		}
		asked[service.Image] = service
	}
}

// checkTracking refuses what would ask registries all the time, and services that are not there.
func (s *Spec) checkTracking(c *desired.Check, m *model) {
	if s.TrackEvery != 0 && s.TrackEvery.Std() < time.Minute {
		c.Errorf(c.At("trackEvery"), "trackEvery: registries are asked each 1m at the most, not each %s", s.TrackEvery.Std())
	}
	for _, name := range s.TrackServices {
		if _, ok := m.project.Services[name]; !ok {
			c.Errorf(c.At("trackServices"), "trackServices: the Compose file has no active service %s", name)
		}
	}
}

// checkRegistries refuses names that no image has.
func (s *Spec) checkRegistries(c *desired.Check) {
	for _, host := range sortedKeys(s.Registries) {
		switch {
		case host != "docker.io" && slices.Contains(hubNames, host):
			c.Errorf(c.At("registries", host), "registries: images call Docker Hub docker.io, not %s", host)
		case !registryName.MatchString(host):
			c.Errorf(c.At("registries", host), "registries: %q is no registry: write its host as images do, such as ghcr.io or registry.example.org:5000", host)
		}
	}
}

// registryNeeds are the secrets and outputs that registries are signed in to with: they are needed before an image is pulled.
func (s *Spec) registryNeeds() []desired.Need {
	var needs []desired.Need
	for _, host := range sortedKeys(s.Registries) {
		for _, expr := range []desired.Expr{s.Registries[host].Username, s.Registries[host].Password} {
			needs = append(needs, expr.Needs(fmt.Sprintf("registry %s is signed in to with", host))...)
		}
	}
	return needs
}
