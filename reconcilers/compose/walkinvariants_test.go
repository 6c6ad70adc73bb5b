package compose

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"
)

// nothingElse checks what holds after every pass, also after one that was cut off: no volume went, and nothing was done to what
// is none of the stack's.
func (s *walk) nothingElse() {
	s.t.Helper()
	require.Equal(s.t, s.beside, s.lookBeside(s.beside))
	list, err := s.engine.VolumeList(s.t.Context(), client.VolumeListOptions{Filters: projectFilter(s.project)})
	require.NoError(s.t, err)
	now := map[string]bool{}
	for _, v := range list.Items {
		now[v.Name] = true
	}
	for name := range s.made {
		require.Contains(s.t, now, name, "a volume went")
	}
	s.made = now
}

// asDeclared holds all that the engine has of the stack against the declaration.
func (s *walk) asDeclared() {
	s.t.Helper()
	list, err := s.engine.ContainerList(s.t.Context(), client.ContainerListOptions{All: true, Filters: projectFilter(s.project)})
	require.NoError(s.t, err)
	for _, item := range list.Items {
		require.Contains(s.t, s.declared.Services, item.Labels["com.docker.compose.service"], "service of container %s", containerName(item))
	}
	now := s.lives()
	for _, name := range s.declared.order() {
		all := s.all(name)
		var names []string
		for _, c := range all {
			names = append(names, strings.TrimPrefix(c.Name, "/"+s.project+"-"))
			s.serviceAsDeclared(name, &c)
		}
		require.ElementsMatch(s.t, s.containersOf(name), names, "containers of service %s", name)
		if was, ok := s.was[name]; ok && !s.touched[name] && !s.follows(name) {
			require.Equal(s.t, was, now[name], "service %s, which nobody touched", name)
		} else if ok && !s.touched[name] {
			require.Equal(s.t, ids(was), ids(now[name]), "service %s, which nobody touched", name)
		}
		s.filesAsDeclared(name)
		s.dataStays(name, all)
	}
	s.networksAsDeclared()
	s.namesResolve()
}

// containersOf are the names of a service's containers, without the project's.
func (s *walk) containersOf(name string) (names []string) {
	if s.declared.Services[name].Named {
		return []string{"named-" + name}
	}
	for number := range 1 + s.declared.Services[name].Scale {
		names = append(names, fmt.Sprintf("%s-%d", name, 1+number))
	}
	return names
}

func (s *walk) serviceAsDeclared(name string, c *container.InspectResponse) {
	s.t.Helper()
	want := s.declared.Services[name]
	if want.Job {
		require.Equal(s.t, container.StateExited, c.State.Status, name)
		require.Zero(s.t, c.State.ExitCode, name)
	} else {
		require.Equal(s.t, container.StateRunning, c.State.Status, name)
	}
	image := s.held[want.Image]
	if image == "" {
		result, err := s.engine.ImageInspect(s.t.Context(), s.images[want.Image])
		require.NoError(s.t, err)
		image = result.ID
	}
	require.Equal(s.t, image, c.Image, "image of %s", name)
	require.Equal(s.t, want.command(name), c.Config.Cmd, name)
	require.Contains(s.t, c.Config.Env, fmt.Sprintf("GENERATION=%d", want.Env), name)
	require.NotContains(s.t, c.Config.Env, "BY=hand", name)
	require.Equal(s.t, fmt.Sprint(want.Label), c.Config.Labels["generation"], name)
	require.EqualValues(s.t, want.Memory<<20, c.HostConfig.Memory, name)
	policy := string(c.HostConfig.RestartPolicy.Name)
	if n := c.HostConfig.RestartPolicy.MaximumRetryCount; n > 0 {
		policy = fmt.Sprintf("%s:%d", policy, n)
	}
	require.Equal(s.t, strings.TrimPrefix(want.Restart, "no"), strings.TrimPrefix(policy, "no"), "restart policy of %s", name)
	require.Equal(s.t, want.Check, hasHealthCheck(c), name)
	s.connectionsAsDeclared(name, c)
}

func (s *walk) connectionsAsDeclared(name string, c *container.InspectResponse) {
	s.t.Helper()
	want := s.declared.Services[name]
	var networks, mounted []string
	for _, key := range want.Networks {
		networks = append(networks, s.project+"_"+key)
	}
	slices.Sort(networks)
	require.Equal(s.t, networks, slices.Sorted(maps.Keys(c.NetworkSettings.Networks)), "networks of %s", name)
	for _, endpoint := range c.NetworkSettings.Networks {
		require.Contains(s.t, endpoint.Aliases, name)
	}
	for _, m := range c.Mounts {
		if m.Name != "" {
			mounted = append(mounted, strings.TrimPrefix(m.Name, s.project+"_"))
		}
	}
	volumes := slices.Clone(want.Volumes)
	if want.Data {
		volumes = append(volumes, "own-"+name)
	}
	require.ElementsMatch(s.t, volumes, mounted, "volumes of %s", name)
}

// run gives what a command in a service's container prints.
func (s *walk) run(name string, argv ...string) string {
	s.t.Helper()
	out, code, err := s.r.Services(s.targetOf("")).Exec(s.t.Context(), name, argv, nil, nil)
	require.NoError(s.t, err)
	require.Zero(s.t, code, "%v in %s: %s", argv, name, out)
	return string(out)
}

func (s *walk) filesAsDeclared(name string) {
	s.t.Helper()
	want := s.declared.Services[name]
	if want.Job || len(want.Uses) == 0 {
		return
	}
	at := map[string]string{"config": "/" + name + "-config", "secret": "/run/secrets/" + name + "-secret", "bound": "/bound/file"}
	argv, expected := []string{"cat"}, ""
	for _, use := range want.Uses {
		argv = append(argv, at[use])
		expected += s.declared.files()[walkFile(name, use)]
	}
	require.Equal(s.t, expected, s.run(name, argv...), "files of %s", name)
}

// dataStays checks that what a service wrote into its volume is there, and that it wrote when it was started.
func (s *walk) dataStays(name string, all map[string]container.InspectResponse) {
	s.t.Helper()
	if service := s.declared.Services[name]; service.Job || !service.Data {
		return
	}
	volume := s.project + "_own-" + name
	now := s.run(name, "cat", "/data/log")
	require.True(s.t, strings.HasPrefix(now, s.written[volume]), "volume %s has %q, and had %q", volume, now, s.written[volume])
	for _, c := range all {
		require.Contains(s.t, now, c.Config.Hostname)
	}
	s.written[volume] = now
}

// networksAsDeclared checks that each network is there once, by its definition.
func (s *walk) networksAsDeclared() {
	s.t.Helper()
	list, err := s.engine.NetworkList(s.t.Context(), client.NetworkListOptions{})
	require.NoError(s.t, err)
	var names, want []string
	for _, n := range list.Items {
		key, ok := strings.CutPrefix(n.Name, s.project+"_")
		if !ok {
			continue
		}
		names = append(names, key)
		if generation, ok := s.declared.Networks[key]; ok {
			require.Equal(s.t, fmt.Sprint(generation), n.Labels["generation"], "network %s", key)
		}
	}
	for key := range s.declared.Networks {
		want = append(want, key)
	}
	require.ElementsMatch(s.t, want, names, "networks")
}

// namesResolve checks that a service finds another one on a network of both by its name.
func (s *walk) namesResolve() {
	s.t.Helper()
	for _, name := range s.declared.order() {
		for _, other := range s.declared.order() {
			a, b := s.declared.Services[name], s.declared.Services[other]
			if name == other || a.Job || b.Job || s.random.IntN(3) > 0 {
				continue
			}
			if slices.ContainsFunc(a.Networks, func(key string) bool { return slices.Contains(b.Networks, key) }) {
				require.NotEmpty(s.t, s.run(name, "getent", "hosts", other))
				return
			}
		}
	}
}
