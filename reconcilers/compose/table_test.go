package compose

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
)

// A row of a table in docs/compose.md: | `key` | verdict | how |
var tableRow = regexp.MustCompile("(?m)^\\| (network |volume )?`([a-z0-9_]+)` \\| (yes|word|engine|ignored|refused) \\| (.*) ?\\|$")

// keyTables gives the verdicts of docs/compose.md by section and key.
func keyTables(t *testing.T) map[string]map[string]string {
	t.Helper()
	text, err := os.ReadFile("../../docs/compose.md")
	require.NoError(t, err)
	tables := map[string]map[string]string{}
	for _, section := range strings.Split(string(text), "\n## ")[1:] {
		title, body, _ := strings.Cut(section, "\n")
		for _, row := range tableRow.FindAllStringSubmatch(body, -1) {
			name := strings.TrimSpace(row[1])
			if name == "" {
				name = title
			}
			if tables[name] == nil {
				tables[name] = map[string]string{}
			}
			require.Empty(t, tables[name][row[2]], "%s %s stands there twice", name, row[2])
			tables[name][row[2]] = row[3]
		}
	}
	return tables
}

// Every key of Compose's schema stands in docs/compose.md, and no other.
func TestTheTableOfKeysIsWhole(t *testing.T) {
	tables := keyTables(t)
	for name, place := range map[string][]string{
		"Top level": {"properties"},
		"Services":  {"$defs", "service", "properties"},
		"Deploy":    {"$defs", "deployment", "properties"},
		"network":   {"$defs", "network", "properties"},
		"volume":    {"$defs", "volume", "properties"},
	} {
		known := schemaKeys(place...)
		require.NotEmpty(t, known)
		require.Equal(t, known, sortedKeys(tables[name]), name)
	}
}

// What the table says of a key of services is so: each is tried.
func TestTheTableOfKeysIsTrue(t *testing.T) {
	samples := map[string]string{
		"annotations": "{a: b}", "attach": "false", "blkio_config": "{weight: 300}", "build": ".", "cap_add": "[NET_ADMIN]", "cap_drop": "[ALL]",
		"cgroup": "private", "cgroup_parent": "m-executor", "command": "run", "configs": "[c]", "container_name": "aa", "cpu_count": "2",
		"cpu_percent": "50", "cpu_period": "10000", "cpu_quota": "5000", "cpu_rt_period": "10000", "cpu_rt_runtime": "5000", "cpu_shares": "512",
		"cpus": "0.5", "cpuset": "0,1", "credential_spec": "{file: x.json}", "depends_on": "[other]", "deploy": "{resources: {limits: {memory: 1M}}}",
		"develop": "{watch: [{path: ., action: rebuild}]}", "device_cgroup_rules": "[\"c 1:3 mr\"]", "devices": "[\"/dev/ttyUSB0:/dev/ttyUSB0\"]",
		"dns": "8.8.8.8", "dns_opt": "[use-vc]", "dns_search": "example.org", "domainname": "example.org", "entrypoint": "run",
		"env_file": "x.env", "environment": "{A: b}", "expose": "[80]", "extends": "other", "external_links": "[\"x:y\"]", "extra_hosts": "{a: 10.0.0.1}",
		"gpus": "all", "group_add": "[mail]", "healthcheck": "{test: [CMD, \"true\"]}", "hostname": "a", "image": "x:2", "init": "true", "ipc": "shareable",
		"isolation": "hyperv", "label_file": "x.labels", "labels": "{a: b}", "links": "[other]", "logging": "{driver: json-file}",
		"mac_address": "\"02:42:ac:11:65:43\"", "mem_limit": "10M", "mem_reservation": "10M", "mem_swappiness": "10", "memswap_limit": "20M", "models": "[m]",
		"network_mode": "none", "networks": "[net]", "oom_kill_disable": "true", "oom_score_adj": "100", "pid": "\"service:other\"", "pids_limit": "10",
		"platform": "linux/amd64", "ports": "[\"127.0.0.1:81:80\"]", "post_start": "[{command: x}]", "pre_start": "[{command: x}]", "pre_stop": "[{command: x}]",
		"privileged": "true", "profiles": "[p]", "provider": "{type: x}", "pull_policy": "never", "pull_refresh_after": "24h", "read_only": "true",
		"restart": "always", "runtime": "runc", "scale": "1", "secrets": "[s]", "security_opt": "[\"no-new-privileges:true\"]", "shm_size": "64M",
		"stdin_open": "true", "stop_grace_period": "10s", "stop_signal": "SIGINT", "storage_opt": "{size: 1G}", "sysctls": "{net.core.somaxconn: 1024}",
		"tmpfs": "/run", "tty": "true", "ulimits": "{nproc: 100}", "use_api_socket": "true", "user": "\"1000\"", "userns_mode": "host", "uts": "host",
		"volumes": "[\"vol:/data\"]", "volumes_from": "[other]", "working_dir": "/",
	}
	verdicts := keyTables(t)["Services"]
	require.Equal(t, sortedKeys(verdicts), sortedKeys(samples))
	more := map[string]string{"blueprints/spoke/Dockerfile": "FROM scratch\n", "blueprints/spoke/x.env": "A=b\n", "blueprints/spoke/x.labels": "a=b\n", "blueprints/spoke/x.json": "{}"}
	for _, key := range sortedKeys(samples) {
		t.Run(key, func(t *testing.T) {
			file := "services:\n  a:\n    " + key + ": " + samples[key] + "\n"
			if key != "image" && key != "build" {
				file += "    image: x:1\n"
			}
			file += "  other: {image: \"x:1\"}\nnetworks: {net: {}}\nvolumes: {vol: {}}\nconfigs: {c: {content: x}}\nsecrets: {s: {environment: PASSWORD}}\nmodels: {m: {model: x}}\n"
			component := "      environment: {PASSWORD: \"${PASSWORD}\"}\n"
			_, problems := repository(t, component, file, more)
			switch verdicts[key] {
			case "word":
				require.Contains(t, problems.Error(), "compose.yaml:3:")
				require.Contains(t, problems.Error(), "let the host allow it")
				_, problems = repositoryOn(t, []string{desired.AllowAll}, component, file, more)
				require.Empty(t, problems)
			case "refused":
				require.Contains(t, problems.Error(), "compose.yaml:3:5: ")
			default:
				require.Empty(t, problems)
			}
			if verdicts[key] == "engine" {
				dir := t.TempDir()
				write(t, dir+"/compose.yaml", file)
				m, err := load(t.Context(), request{sourceDir: dir, files: []string{"compose.yaml"}, project: "p", env: map[string]string{"PASSWORD": "x"}})
				require.NoError(t, err)
				require.True(t, slices.ContainsFunc(ignoredFields(m.project), func(f ignored) bool { return !f.mild && f.api != "" && strings.HasPrefix(f.what, key) }))
			}
		})
	}
}
