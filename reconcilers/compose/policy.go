package compose

import (
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

// What a stack may do beyond its own containers is for each host to say, in its own configuration and not in the fleet
// repository: who may merge must not by that become root on the hosts. The words of compose.allow:
//
//	privileged ......... privileged containers and hooks; what follows up to devices too
//	unconfined ......... without seccomp, AppArmor, SELinux or masked paths
//	cap:NAME ........... a capability that reaches the host, such as cap:SYS_ADMIN; cap:ALL is every one
//	devices ............ devices of the host
//	host-namespaces .... processes, shared memory, names, users or control groups of the host
//	host-network ....... the host's network, with all that listens on loopback alone
//	foreign-containers . namespaces and volumes of containers that are not the stack's
//	engine-socket ...... the engine's socket, which is root on the host
//	mount:PATH ......... a path of the host, and all below it; one that holds the engine's socket needs both words
const (
	allowPrivileged = "privileged"
	allowUnconfined = "unconfined"
	allowDevices    = "devices"
	allowNamespaces = "host-namespaces"
	allowNetwork    = "host-network"
	allowForeign    = "foreign-containers"
	allowSocket     = "engine-socket"
	allowCapability = "cap:"
	allowMount      = "mount:"
)

// reaching are the capabilities with which a container reaches the host, or what does not belong to it.
var reaching = []string{
	"ALL", "AUDIT_CONTROL", "BPF", "CHECKPOINT_RESTORE", "DAC_READ_SEARCH", "MAC_ADMIN", "MAC_OVERRIDE", "PERFMON", "SYSLOG",
	"SYS_ADMIN", "SYS_BOOT", "SYS_MODULE", "SYS_PTRACE", "SYS_RAWIO", "SYS_TIME",
}

// harmless are paths of the host that containers may read anywhere: time zones and the authorities that the host trusts.
var harmless = []string{"/etc/localtime", "/etc/timezone", "/usr/share/zoneinfo", "/etc/ssl/certs"}

// sockets are where engines, and the agent, are usually reached. A socket of an engine's name counts anywhere.
var sockets = []string{
	"/run/docker.sock", "/var/run/docker.sock", "/run/containerd/containerd.sock", "/var/run/containerd/containerd.sock",
	"/run/podman/podman.sock", "/var/run/podman/podman.sock", "/run/dive-agent/agent.sock", "/var/run/dive-agent/agent.sock",
}

// finding is something for which a host's word is needed.
type finding struct {
	keys  []string // where it stands in the Compose file
	text  string   // and with what text, where there are several
	what  string
	needs []string // words, all of which are needed
}

func (f finding) told() string {
	quoted := make([]string, len(f.needs))
	for i, need := range f.needs {
		quoted[i] = fmt.Sprintf("%q", need)
	}
	return f.what + ". Take it out, or let the host allow it, in its agent.yaml: compose: {allow: [" + strings.Join(quoted, ", ") + "]}"
}

// allowance is what a host allows: words as above, or desired.AllowAll.
type allowance []string

func (a allowance) passes(f finding) bool { return !slices.ContainsFunc(f.needs, a.lacks) }

func (a allowance) lacks(need string) bool {
	return !slices.ContainsFunc(a, func(word string) bool {
		folder, mount := strings.CutPrefix(word, allowMount)
		needed, isMount := strings.CutPrefix(need, allowMount)
		switch {
		case word == desired.AllowAll || word == need:
			return true
		case mount && isMount:
			return within(path.Clean(folder), needed)
		case word == allowPrivileged:
			return need == allowUnconfined || need == allowDevices || strings.HasPrefix(need, allowCapability)
		}
		return word == allowCapability+"ALL" && strings.HasPrefix(need, allowCapability)
	})
}

// judge finds all of a service for which a host's word is needed, in what it uses too.
type judge struct {
	r       request
	project *types.Project
	sockets []string // beyond the usual ones
	found   []finding
}

func (j *judge) find(keys []string, text string, needs []string, format string, args ...any) {
	j.found = append(j.found, finding{keys, text, fmt.Sprintf(format, args...), needs})
}

// service looks at one service.
func (j *judge) service(name string) {
	s := j.project.Services[name]
	add := func(need, key, text, format string, args ...any) {
		j.find([]string{"services", name, key}, text, []string{need}, "service "+name+" "+format, args...)
	}
	if s.Privileged {
		add(allowPrivileged, "privileged", "", "is privileged, which is root on the host")
	}
	for _, hooks := range []struct {
		key  string
		list []types.ServiceHook
	}{{"pre_start", s.PreStart}, {"post_start", s.PostStart}, {"pre_stop", s.PreStop}} {
		if slices.ContainsFunc(hooks.list, func(h types.ServiceHook) bool { return h.Privileged }) {
			add(allowPrivileged, hooks.key, "", "runs a privileged command in %s", hooks.key)
		}
	}
	if s.UseAPISocket {
		add(allowSocket, "use_api_socket", "", "is given the engine's socket, which is root on the host")
	}
	for _, capability := range s.CapAdd {
		if plain := strings.TrimPrefix(strings.ToUpper(capability), "CAP_"); slices.Contains(reaching, plain) {
			add(allowCapability+plain, "cap_add", capability, "has the capability %s, which reaches beyond its container", plain)
		}
	}
	for _, option := range s.SecurityOpt {
		if name, value, _ := strings.Cut(strings.Replace(option, "=", ":", 1), ":"); value == "unconfined" || name == "label" && strings.HasPrefix(value, "disable") {
			add(allowUnconfined, "security_opt", option, "runs with %s", option)
		}
	}
	for _, option := range s.SecurityOpt {
		if profile, ok := seccompProfile(option); ok && path.IsAbs(profile) {
			j.path([]string{"services", name, "security_opt"}, profile, true, "the seccomp profile of service "+name+" is")
		}
	}
	for _, device := range s.Devices {
		add(allowDevices, "devices", device.Source, "uses the host's device %s", device.Source)
	}
	for _, rule := range s.DeviceCgroupRules {
		add(allowDevices, "device_cgroup_rules", rule, "may use devices of the host (%s)", rule)
	}
	j.namespaces(s, add)
	j.mounts(name, s)
}

func (j *judge) namespaces(s types.ServiceConfig, add func(need, key, text, format string, args ...any)) {
	for _, mode := range []struct{ key, value, what string }{
		{"pid", s.Pid, "processes"},
		{"ipc", s.Ipc, "shared memory"},
		{"uts", s.Uts, "name"},
		{"userns_mode", s.UserNSMode, "users"},
		{"cgroup", s.Cgroup, "control groups"},
	} {
		if mode.value == "host" {
			add(allowNamespaces, mode.key, "", "shares the %s of the host (%s: host)", mode.what, mode.key)
		}
	}
	if s.CgroupParent != "" {
		add(allowNamespaces, "cgroup_parent", "", "runs in the control group %s of the host", s.CgroupParent)
	}
	if s.NetworkMode == "host" {
		add(allowNetwork, "network_mode", "", "uses the host's network, and reaches what listens there on loopback alone")
	}
	for key := range s.Networks {
		if network := j.project.Networks[key]; bool(network.External) && network.Name == "host" {
			add(allowNetwork, "networks", "", "uses the host's network, and reaches what listens there on loopback alone")
		}
	}
	for _, mode := range []struct{ key, value string }{{"network_mode", s.NetworkMode}, {"pid", s.Pid}, {"ipc", s.Ipc}} {
		if container, ok := strings.CutPrefix(mode.value, types.ContainerPrefix); ok {
			add(allowForeign, mode.key, "", "shares the %s of container %s, which is not of the stack", strings.TrimSuffix(mode.key, "_mode"), container)
		}
	}
	for _, from := range s.VolumesFrom {
		if container, ok := strings.CutPrefix(from, types.ContainerPrefix); ok {
			add(allowForeign, "volumes_from", from, "has the volumes of container %s, which is not of the stack", container)
		}
	}
}

// mounts looks at the paths of the host that a service gets: by binds, by volumes, configs and secrets that are made of some.
func (j *judge) mounts(name string, s types.ServiceConfig) {
	for _, volume := range s.Volumes {
		keys := []string{"services", name, "volumes"}
		switch volume.Type {
		case types.VolumeTypeBind:
			j.path(keys, volume.Source, volume.ReadOnly, "service "+name+" binds")
		case types.VolumeTypeVolume:
			if volume.Source != "" {
				j.volume(volume.Source)
			}
		}
	}
	for _, used := range s.Configs {
		if file := j.project.Configs[used.Source].File; file != "" {
			j.path([]string{"configs", used.Source, "file"}, file, true, "config "+used.Source+" of service "+name+" is")
		}
	}
	for _, used := range s.Secrets {
		if file := j.project.Secrets[used.Source].File; file != "" {
			j.path([]string{"secrets", used.Source, "file"}, file, true, "secret "+used.Source+" of service "+name+" is")
		}
	}
}

// networked are kinds of file systems whose device is no path of the host.
var networked = []string{"nfs", "nfs4", "cifs", "smb3", "tmpfs"}

// volume looks at what a named volume is made of: the local driver mounts whatever its options say.
func (j *judge) volume(key string) {
	volume := j.project.Volumes[key]
	if volume.Driver != "" && volume.Driver != "local" || slices.Contains(networked, volume.DriverOpts["type"]) {
		return
	}
	keys := []string{"volumes", key, "driver_opts"}
	for _, option := range append(strings.Split(volume.DriverOpts["o"], ","), "device="+volume.DriverOpts["device"]) {
		_, value, _ := strings.Cut(option, "=")
		for _, source := range strings.Split(value, ":") {
			if path.IsAbs(source) {
				j.path(keys, source, false, "volume "+key+" is")
			}
		}
	}
}

// path judges one path of the host.
func (j *judge) path(keys []string, source string, readOnly bool, what string) {
	source = j.real(path.Clean(source))
	if source == "" || within(j.r.projectDir, source) || within(j.r.secretsDir, source) ||
		readOnly && slices.ContainsFunc(harmless, func(folder string) bool { return within(folder, source) }) {
		return
	}
	if isSocket(path.Base(source)) || slices.Contains(j.sockets, source) || slices.Contains(sockets, source) {
		j.find(keys, source, []string{allowSocket}, "%s %s, the engine's socket, which is root on the host", what, source)
		return
	}
	needs := []string{allowMount + source}
	holds := func(socket string) bool { return within(source, socket) }
	if slices.ContainsFunc(j.sockets, holds) || slices.ContainsFunc(sockets, holds) {
		j.find(keys, source, append(needs, allowSocket), "%s %s of the host, with the engine's socket in it", what, source)
		return
	}
	j.find(keys, source, needs, "%s %s of the host, outside of the repository", what, source)
}

func isSocket(base string) bool {
	return slices.Contains([]string{"docker.sock", "containerd.sock", "podman.sock"}, base)
}

// real follows the links of a path on the host: one in a folder that a container writes to leads wherever it wants. "" stands
// for a path that is made of a value not known yet.
func (j *judge) real(source string) string {
	if len(j.r.unknown) > 0 && within("/"+standIn, source) {
		return ""
	}
	if j.r.shallow {
		return source // validated without the host
	}
	if resolved, err := filepath.EvalSymlinks(source); err == nil && resolved != source {
		if base, err := filepath.EvalSymlinks(j.r.projectDir); err == nil && within(base, resolved) {
			return source
		}
		if base, err := filepath.EvalSymlinks(j.r.secretsDir); err == nil && within(base, resolved) {
			return source
		}
		if slices.Contains(harmless, source) {
			return source
		}
		return resolved
	}
	return source
}

// checkPolicy reports what the host of the instance does not allow.
func (s *Spec) checkPolicy(c *desired.Check, m *model) {
	r, err := s.checkRequest(c, nil)
	if err != nil {
		return
	}
	at := s.places(c)
	told := map[string]bool{}
	for _, name := range sortedKeys(m.project.Services) {
		j := &judge{r: r, project: m.project}
		j.service(name)
		for _, f := range j.found {
			if allowance(c.Allow).passes(f) || told[f.what] {
				continue
			}
			told[f.what] = true
			where, found := at.findText(func(text string) bool { return f.text != "" && strings.Contains(text, f.text) }, f.keys...)
			if !found {
				where = at.find(f.keys...)
			}
			c.Errorf(where, "%s", f.told())
		}
	}
}

// lawful gives a BlockedError when the service has something that this host does not allow. A revision with such a service is
// refused before; this holds for values that were not known then, and for links on the host.
func (r *Reconciler) lawful(s *stack, service string) error {
	j := &judge{r: s.request, project: s.model.project}
	if socket, ok := strings.CutPrefix(r.engine.DaemonHost(), "unix://"); ok {
		j.sockets = []string{socket}
	}
	j.service(service)
	var told []string
	for _, f := range j.found {
		if !r.allow.passes(f) {
			told = append(told, f.told())
		}
	}
	if len(told) == 0 {
		return nil
	}
	return &reconcilers.BlockedError{
		Reason: "ServiceRefused", Message: strings.Join(told[:min(5, len(told))], "; "),
		Do: "Correct it in the fleet repository and merge, or change the host's configuration and restart the agent",
	}
}
