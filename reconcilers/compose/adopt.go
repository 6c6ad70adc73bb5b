package compose

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/docker/compose/v5/pkg/api"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
)

// A container that another Compose made has another config hash although it may be the same: the hash holds paths of env
// files and the spelling of the tool's version. equalInSubstance says whether such a container runs what is wanted: image,
// command, environment, mounts, ports, networks, labels, limits and how it restarts.
func (st *serviceState) equalInSubstance(c *container.InspectResponse) bool {
	if st.image == nil || st.image.Config == nil || c.Image != st.imageID {
		return false
	}
	checks := []func(*container.InspectResponse) bool{
		st.sameCommand, st.sameEnvironment, st.sameMounts, st.samePorts, st.sameNetworks, st.sameLabels, st.sameHost, st.sameHealthCheck,
	}
	for _, same := range checks {
		if !same(c) {
			return false
		}
	}
	return true
}

func (st *serviceState) sameCommand(c *container.InspectResponse) bool {
	entrypoint, command := st.image.Config.Entrypoint, st.image.Config.Cmd
	if st.service.Entrypoint != nil {
		entrypoint, command = st.service.Entrypoint, nil
	}
	if st.service.Command != nil {
		command = st.service.Command
	}
	same := func(a, b []string) bool { return len(a) == 0 && len(b) == 0 || slices.Equal(a, b) }
	return same(c.Config.Entrypoint, entrypoint) && same(c.Config.Cmd, command) &&
		(st.service.User == "" || st.service.User == c.Config.User) &&
		(st.service.WorkingDir == "" || st.service.WorkingDir == c.Config.WorkingDir) &&
		st.service.Tty == c.Config.Tty
}

func (st *serviceState) sameEnvironment(c *container.InspectResponse) bool {
	want := pairs(st.image.Config.Env)
	for name, value := range st.service.Environment {
		if value != nil {
			want[name] = *value
		}
	}
	return maps.Equal(want, pairs(c.Config.Env))
}

func pairs(list []string) map[string]string {
	m := map[string]string{}
	for _, pair := range list {
		name, value, _ := strings.Cut(pair, "=")
		m[name] = value
	}
	return m
}

// sameMounts compares named volumes, binds and files of configs and secrets. Volumes that the image asks for have no name.
func (st *serviceState) sameMounts(c *container.InspectResponse) bool {
	want, have := map[string]string{}, map[string]string{}
	put := func(kind, source, target string, readOnly bool) {
		want[path.Clean(target)] = fmt.Sprintf("%s %s %t", kind, source, !readOnly)
	}
	for _, volume := range st.service.Volumes {
		switch {
		case volume.Type == types.VolumeTypeVolume && volume.Source != "":
			put("volume", st.model.project.Volumes[volume.Source].Name, volume.Target, volume.ReadOnly)
		case volume.Type == types.VolumeTypeBind:
			put("bind", volume.Source, volume.Target, volume.ReadOnly)
		}
	}
	for _, used := range st.service.Configs {
		if file := st.model.project.Configs[used.Source].File; file != "" {
			put("bind", file, absolute("/", used.Target, used.Source), true)
		}
	}
	for _, used := range st.service.Secrets {
		if file := st.model.project.Secrets[used.Source].File; file != "" {
			put("bind", file, absolute("/run/secrets/", used.Target, used.Source), true)
		}
	}
	for _, m := range c.Mounts {
		switch m.Type {
		case mount.TypeVolume:
			if len(m.Name) != 64 {
				have[m.Destination] = fmt.Sprintf("volume %s %t", m.Name, m.RW)
			}
		case mount.TypeBind:
			have[m.Destination] = fmt.Sprintf("bind %s %t", m.Source, m.RW)
		}
	}
	return maps.Equal(want, have)
}

func (st *serviceState) samePorts(c *container.InspectResponse) bool {
	var want, have []string
	for _, port := range st.service.Ports {
		want = append(want, fmt.Sprintf("%d/%s %s:%s", port.Target, port.Protocol, port.HostIP, port.Published))
	}
	for port, bindings := range c.HostConfig.PortBindings {
		for _, binding := range bindings {
			address := ""
			if binding.HostIP.IsValid() {
				address = binding.HostIP.String()
			}
			have = append(have, fmt.Sprintf("%s %s:%s", port, address, binding.HostPort))
		}
	}
	slices.Sort(want)
	slices.Sort(have)
	return slices.Equal(want, have)
}

func (st *serviceState) sameNetworks(c *container.InspectResponse) bool {
	if st.service.NetworkMode != "" {
		return string(c.HostConfig.NetworkMode) == st.service.NetworkMode
	}
	if len(c.NetworkSettings.Networks) != len(st.service.Networks) {
		return false
	}
	for key, settings := range st.service.Networks {
		endpoint, ok := c.NetworkSettings.Networks[st.model.project.Networks[key].Name]
		if !ok || !slices.Contains(endpoint.Aliases, st.name) {
			return false
		}
		if settings == nil {
			continue
		}
		for _, alias := range settings.Aliases {
			if !slices.Contains(endpoint.Aliases, alias) {
				return false
			}
		}
	}
	return true
}

// sameLabels compares the labels of users. Those of tools say how the container was made, not what it is.
func (st *serviceState) sameLabels(c *container.InspectResponse) bool {
	want, have := maps.Clone(st.image.Config.Labels), map[string]string{}
	if want == nil {
		want = map[string]string{}
	}
	maps.Copy(want, st.service.Labels)
	for name, value := range c.Config.Labels {
		_, wanted := want[name]
		tools := strings.HasPrefix(name, "com.docker.compose.") || strings.HasPrefix(name, "cd.doco.") || name == contentLabel
		if wanted || !tools {
			have[name] = value
		}
	}
	return maps.Equal(want, have)
}

func (st *serviceState) sameHost(c *container.InspectResponse) bool {
	host := c.HostConfig
	memory := int64(st.service.MemLimit)
	if deploy := st.service.Deploy; deploy != nil && deploy.Resources.Limits != nil {
		memory = max(memory, int64(deploy.Resources.Limits.MemoryBytes))
	}
	policy, _, _ := strings.Cut(st.service.Restart, ":")
	if policy == "" {
		policy = string(host.RestartPolicy.Name)
	}
	initial := st.service.Init != nil && *st.service.Init
	return host.Memory == memory && string(host.RestartPolicy.Name) == policy && host.Privileged == st.service.Privileged &&
		host.ReadonlyRootfs == st.service.ReadOnly && (host.Init != nil && *host.Init) == initial &&
		sameCapabilities(host.CapAdd, st.service.CapAdd) && sameCapabilities(host.CapDrop, st.service.CapDrop)
}

// sameCapabilities compares sets of capabilities: NET_ADMIN and CAP_NET_ADMIN are one.
func sameCapabilities(a, b []string) bool {
	plain := func(list []string) []string {
		var names []string
		for _, name := range list {
			names = append(names, strings.TrimPrefix(strings.ToUpper(name), "CAP_"))
		}
		slices.Sort(names)
		return slices.Compact(names)
	}
	return slices.Equal(plain(a), plain(b))
}

func (st *serviceState) sameHealthCheck(c *container.InspectResponse) bool {
	want := st.service.HealthCheck
	if want == nil || want.Disable {
		return true
	}
	return c.Config.Healthcheck != nil && slices.Equal([]string(want.Test), c.Config.Healthcheck.Test)
}

// standsFor says whether a container counts as made from the wanted definition although its hash says otherwise: it was
// made by hand, and is, or was when it was taken over, the same.
func (st *serviceState) standsFor(c *container.InspectResponse) bool {
	if _, ours := c.Config.Labels[contentLabel]; ours || c.Config.Labels[api.ProjectLabel] != st.project {
		return false
	}
	if st.record.Container == c.ID {
		return st.record.StandsFor == st.hash
	}
	return st.record.Container == "" && st.record.Good == nil && st.record.Pending == nil && st.equalInSubstance(c)
}
