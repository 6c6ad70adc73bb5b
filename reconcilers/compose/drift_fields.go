package compose

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
)

// fieldNames are the words for what inspect says of a container: those of a Compose file. An empty one is left out, as it
// says nothing of what was declared, or is told under another name. A field that is not here is named by its own words.
var fieldNames = map[string]string{
	"Hostname": "hostname", "Domainname": "domainname", "User": "user", "ExposedPorts": "expose", "Tty": "tty", "OpenStdin": "stdin_open",
	"AttachStdin": "", "AttachStdout": "", "AttachStderr": "", "StdinOnce": "", "ArgsEscaped": "", "OnBuild": "", "Shell": "", "Volumes": "",
	"Cmd": "command", "Entrypoint": "entrypoint", "Healthcheck": "healthcheck", "WorkingDir": "working_dir", "NetworkDisabled": "network_mode",
	"MacAddress": "mac_address", "StopSignal": "stop_signal", "StopTimeout": "stop_grace_period",

	"Binds": "", "Mounts": "", "Tmpfs": "", "ContainerIDFile": "", "ConsoleSize": "", "Isolation": "", "Cgroup": "",
	"LogConfig": "logging", "NetworkMode": "network_mode", "AutoRemove": "removal at its end", "VolumeDriver": "volume_driver",
	"VolumesFrom": "volumes_from", "Annotations": "annotations", "CapAdd": "cap_add", "CapDrop": "cap_drop", "CgroupnsMode": "cgroup",
	"Dns": "dns", "DnsOptions": "dns_opt", "DnsSearch": "dns_search", "ExtraHosts": "extra_hosts", "GroupAdd": "group_add", "IpcMode": "ipc",
	"Links": "links", "PidMode": "pid", "PublishAllPorts": "ports", "SecurityOpt": "security_opt", "StorageOpt": "storage_opt", "UTSMode": "uts",
	"UsernsMode": "userns_mode", "Sysctls": "sysctls", "Runtime": "runtime", "MaskedPaths": "masked paths", "ReadonlyPaths": "read-only paths",
	"CgroupParent": "cgroup_parent", "BlkioWeight": "blkio_config", "BlkioWeightDevice": "blkio_config", "BlkioDeviceReadBps": "blkio_config",
	"BlkioDeviceWriteBps": "blkio_config", "BlkioDeviceReadIOps": "blkio_config", "BlkioDeviceWriteIOps": "blkio_config", "Devices": "devices",
	"DeviceCgroupRules": "device_cgroup_rules", "DeviceRequests": "gpus", "Ulimits": "ulimits",
}

// plainFields are told with their values, as none of them can be a secret.
var plainFields = map[string]struct {
	name  string
	words func(json.RawMessage) string
}{
	"Image":              {"image", textWords},
	"RestartPolicy":      {"restart policy", restartWords},
	"Privileged":         {"privileged", plainWords},
	"ReadonlyRootfs":     {"read_only", plainWords},
	"Init":               {"init", plainWords},
	"ShmSize":            {"shm_size", byteWords},
	"OomScoreAdj":        {"oom_score_adj", plainWords},
	"OomKillDisable":     {"oom_kill_disable", plainWords},
	"Memory":             {"memory limit", byteWords},
	"MemorySwap":         {"memory and swap limit", byteWords},
	"MemoryReservation":  {"memory reservation", byteWords},
	"MemorySwappiness":   {"mem_swappiness", plainWords},
	"NanoCpus":           {"CPU limit", cpuWords},
	"CpuShares":          {"CPU shares", plainWords},
	"CpuPeriod":          {"CPU period", plainWords},
	"CpuQuota":           {"CPU quota", plainWords},
	"CpuRealtimePeriod":  {"CPU real-time period", plainWords},
	"CpuRealtimeRuntime": {"CPU real-time runtime", plainWords},
	"CpusetCpus":         {"cpuset", textWords},
	"CpusetMems":         {"cpuset of memory nodes", textWords},
	"PidsLimit":          {"pids limit", plainWords},
}

func plainWords(value json.RawMessage) string { return string(value) }

func textWords(value json.RawMessage) string {
	var text string
	_ = json.Unmarshal(value, &text)
	return text
}

func restartWords(value json.RawMessage) string {
	var policy container.RestartPolicy
	if json.Unmarshal(value, &policy) != nil || policy.Name == "" {
		return string(container.RestartPolicyDisabled)
	}
	if policy.MaximumRetryCount > 0 {
		return fmt.Sprintf("%s:%d", policy.Name, policy.MaximumRetryCount)
	}
	return string(policy.Name)
}

func byteWords(value json.RawMessage) string {
	n, err := strconv.ParseInt(string(value), 10, 64)
	switch {
	case err != nil || n%1024 != 0 || n <= 0:
		return string(value)
	case n%(1<<30) == 0:
		return fmt.Sprintf("%d GiB", n>>30)
	case n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%d KiB", n>>10)
}

func cpuWords(value json.RawMessage) string {
	n, err := strconv.ParseFloat(string(value), 64)
	if err != nil {
		return string(value)
	}
	return strconv.FormatFloat(n/1e9, 'f', -1, 64)
}

// volatileLabels differ between containers that are equal in substance.
var volatileLabels = []string{
	"com.docker.compose.replace", "com.docker.compose.version", "com.docker.compose.project.working_dir",
	"com.docker.compose.project.config_files", "com.docker.compose.project.environment_file", "com.docker.compose.image",
	"com.docker.compose.depends_on", "com.docker.compose.container-number",
}

// plainMark begins a value that stands as it is; all others are digests.
const plainMark = "="

// fields are digests of what a container, or a definition, consists of, by the names that people know. What is empty is
// left out: a field that a newer engine or program has too is no change.
type fields struct {
	rec record
	of  map[string]string
}

func isEmpty(value json.RawMessage) bool {
	return slices.Contains([]string{"", "null", `""`, "0", "false", "[]", "{}", "[0,0]", `{"Name":"","MaximumRetryCount":0}`}, string(value))
}

// add takes a field up. Two of one name, such as the parts of blkio_config, are one.
func (f fields) add(name string, value any) error {
	text, err := json.Marshal(value)
	if err != nil || isEmpty(text) {
		return err
	}
	f.of[name] = f.rec.digest(append([]byte(f.of[name]), text...))
	return nil
}

// live digests what inspect says of a container, without what differs between two containers made alike. The keys are the
// words of reasons and of `ignore`.
func (rec record) live(c *container.InspectResponse) (map[string]string, error) {
	f := fields{rec, map[string]string{}}
	for _, take := range []func(*container.InspectResponse) error{f.addConfig, f.addHost, f.addMounts, f.addNetworks} {
		if err := take(c); err != nil {
			return nil, err
		}
	}
	return f.of, nil
}

func (f fields) addConfig(c *container.InspectResponse) error {
	config := *c.Config
	if config.Hostname == c.ID[:12] {
		config.Hostname = "" // the engine's own
	}
	for _, pair := range config.Env {
		name, value, _ := strings.Cut(pair, "=")
		if err := f.add("environment "+name, []string{value}); err != nil {
			return err
		}
	}
	for name, value := range config.Labels {
		if slices.Contains(volatileLabels, name) {
			continue
		}
		if err := f.add("label "+name, []string{value}); err != nil {
			return err
		}
	}
	config.Env, config.Labels = nil, nil
	return f.addAll(&config)
}

func (f fields) addHost(c *container.InspectResponse) error {
	host := *c.HostConfig
	for port, bindings := range host.PortBindings {
		var published []string
		for _, b := range bindings {
			published = append(published, address(b.HostIP)+":"+b.HostPort)
		}
		slices.Sort(published)
		if err := f.add("port "+port.String(), published); err != nil {
			return err
		}
	}
	for target, options := range host.Tmpfs {
		if err := f.add("mount "+target, []string{"tmpfs", options}); err != nil {
			return err
		}
	}
	host.PortBindings = nil
	return f.addAll(&host)
}

func address(ip netip.Addr) string {
	if !ip.IsValid() || ip.IsUnspecified() {
		return ""
	}
	return ip.String()
}

// addAll takes up the fields of one of the engine's structs, sorted by their keys, so that those of one name are always
// joined alike.
func (f fields) addAll(of any) error {
	all, err := toFields(of)
	if err != nil {
		return err
	}
	for _, key := range sortedKeys(all) {
		value := all[key]
		if plain, ok := plainFields[key]; ok {
			if !isEmpty(value) {
				f.of[plain.name] = plainMark + plain.words(value)
			}
			continue
		}
		name, known := fieldNames[key]
		if !known {
			name = wordsOf(key)
		}
		if name == "" {
			continue
		}
		if err := f.add(name, value); err != nil {
			return err
		}
	}
	return nil
}

// wordsOf takes an engine's name apart: KernelMemory is "kernel memory".
func wordsOf(key string) string {
	var b strings.Builder
	for i, r := range key {
		if i > 0 && r >= 'A' && r <= 'Z' && (key[i-1] < 'A' || key[i-1] > 'Z') {
			b.WriteByte(' ')
		}
		b.WriteRune(r)
	}
	return strings.ToLower(b.String())
}

// addMounts takes up what is mounted, by its target. A volume without a name of its own is as good as another one.
func (f fields) addMounts(c *container.InspectResponse) error {
	options := map[string]mount.Mount{}
	for _, m := range c.HostConfig.Mounts {
		options[m.Target] = m
	}
	for _, m := range c.Mounts {
		what := []any{m.Type, m.Source, m.RW}
		if m.Type == mount.TypeVolume {
			what[1] = m.Name
			if len(m.Name) == anonymousName {
				what[1] = ""
			}
			if o := options[m.Destination].VolumeOptions; o != nil && o.Subpath != "" {
				what = append(what, o.Subpath)
			}
		}
		if o := options[m.Destination].TmpfsOptions; o != nil {
			what = append(what, o)
		}
		if m.Propagation != "" && m.Propagation != mount.PropagationRPrivate {
			what = append(what, m.Propagation)
		}
		if err := f.add("mount "+m.Destination, what); err != nil {
			return err
		}
	}
	return nil
}

// anonymousName is how long the names are that the engine gives to volumes.
const anonymousName = 64

func (f fields) addNetworks(c *container.InspectResponse) error {
	short := c.ID[:12]
	for name, endpoint := range c.NetworkSettings.Networks {
		aliases := slices.DeleteFunc(slices.Sorted(slices.Values(endpoint.Aliases)), func(a string) bool { return a == short })
		ipam := []byte("{}")
		if endpoint.IPAMConfig != nil {
			var err error
			if ipam, err = json.Marshal(endpoint.IPAMConfig); err != nil {
				return err
			}
		}
		if err := f.add("network "+name, []any{slices.Compact(aliases), string(ipam), strings.Join(endpoint.Links, " ")}); err != nil {
			return err
		}
	}
	return nil
}

// ignorable are the fields that a manifest may leave alone as a whole, and those of which it may name one.
func ignorable() (whole, named []string) {
	for _, f := range plainFields {
		whole = append(whole, f.name)
	}
	for _, name := range fieldNames {
		whole = append(whole, name)
	}
	named = []string{"environment", "label", "mount", "network", "port"}
	whole = slices.DeleteFunc(append(whole, named...), func(name string) bool { return name == "" })
	slices.Sort(whole)
	return slices.Compact(whole), named
}

// leftAlone says whether a field is in a list of fields to leave alone: it, or all of its kind.
func leftAlone(list []string, field string) bool {
	kind, _, named := strings.Cut(field, " ")
	return slices.ContainsFunc(list, func(name string) bool { return name == field || named && name == kind })
}
