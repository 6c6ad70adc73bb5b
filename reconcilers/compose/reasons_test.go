package compose

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const reasonedStack = `
services:
  web:
    image: ${IMAGE}
    init: true
    command: [bash, -c, "${RUN}"]
    environment: {A: "1", B: "2"}
    labels: {team: blue, tier: front}
    restart: unless-stopped
    cap_add: [NET_ADMIN, NET_RAW]
    ports: ["127.0.0.1::80", "127.0.0.1::81"]
    volumes: [data:/data, cache:/cache]
    networks: {default: {aliases: [www]}, back: {}}
    configs: [conf]
    ulimits: {nofile: 1024}
    sysctls: {net.core.somaxconn: 128}
    healthcheck: {test: [CMD, "true"], interval: 300ms}
    deploy: {resources: {limits: {memory: 64m}}}
volumes: {data: {}, cache: {}}
networks: {back: {}, other: {}}
configs: {conf: {content: "a"}, more: {content: "b"}}
`

// Every reason names what changed in the file, in its words and without a value; what changes nothing is no reason.
func TestReasonsOfChanges(t *testing.T) {
	t.Parallel()
	w := newWorld(t, reasonedStack)
	w.up("web")
	edit := func(pairs ...string) string {
		text := reasonedStack
		for i := 0; i < len(pairs); i += 2 {
			require.Contains(t, text, pairs[i])
			text = strings.Replace(text, pairs[i], pairs[i+1], 1)
		}
		return text
	}
	var lines strings.Builder
	for _, c := range []struct{ name, file string }{
		{"a variable changed", edit(`A: "1"`, `A: hunter2`)},
		{"a variable added, one removed", edit(`B: "2"`, `C: "2"`)},
		{"a variable emptied", edit(`B: "2"`, `B: ""`)},
		{"a label", edit("team: blue", "team: red")},
		{"the command", edit(`"${RUN}"]`, `"${RUN}", more]`)},
		{"the restart policy", edit("restart: unless-stopped", "restart: always")},
		{"the memory limit", edit("memory: 64m", "memory: 96m")},
		{"a CPU limit", edit("memory: 64m", "memory: 64m, cpus: '0.5'")},
		{"a port", edit("127.0.0.1::81", "127.0.0.1::82")},
		{"a port bound elsewhere", edit("127.0.0.1::81", "127.0.0.2::81")},
		{"a mount made read-only", edit("cache:/cache", "cache:/cache:ro")},
		{"another volume at a place", edit("cache:/cache", "data:/cache")},
		{"a network more", edit("back: {}}\n    configs", "back: {}, other: {}}\n    configs")},
		{"an alias", edit("aliases: [www]", "aliases: [web2]")},
		{"a config more", edit("configs: [conf]", "configs: [conf, more]")},
		{"a config's content", edit(`content: "a"`, `content: "hunter2"`)},
		{"a limit of files", edit("nofile: 1024", "nofile: 2048")},
		{"a kernel setting", edit("somaxconn: 128", "somaxconn: 256")},
		{"the health check", edit("interval: 300ms", "interval: 400ms")},
		{"rights", edit("NET_ADMIN, NET_RAW", "NET_ADMIN")},
		{"six things", edit(`A: "1"`, `A: "3"`, "team: blue", "team: red", "restart: unless-stopped", "restart: always", "memory: 64m", "memory: 96m",
			"nofile: 1024", "nofile: 2048", "cache:/cache", "cache:/cache:ro")},
	} {
		w.write(map[string]string{"compose.yaml": c.file})
		change := w.change("web")
		_, err := fmt.Fprintf(&lines, "%-30s %s\n", c.name, w.plain(change.Reason))
		require.NoError(t, err)
		for _, detail := range change.Details {
			_, err := fmt.Fprintf(&lines, "%-30s   %s\n", "", w.plain(detail))
			require.NoError(t, err)
		}
	}
	require.NotContains(t, lines.String(), "hunter2")
	golden(t, "reasons.golden", lines.String())

	for name, file := range map[string]string{
		"a comment":               "# about it\n" + reasonedStack,
		"another spelling":        edit(`environment: {A: "1", B: "2"}`, "environment: [B=2, A=1]"),
		"ports in another order":  edit(`"127.0.0.1::80", "127.0.0.1::81"`, `"127.0.0.1::81", "127.0.0.1::80"`),
		"mounts in another order": edit("data:/data, cache:/cache", "cache:/cache, data:/data"),
		"rights in another order": edit("NET_ADMIN, NET_RAW", "NET_RAW, NET_ADMIN"),
		"labels in another order": edit("{team: blue, tier: front}", "{tier: front, team: blue}"),
		"how it is updated":       edit("deploy: {", "deploy: {update_config: {order: stop-first}, "),
		"when it is pulled":       edit("init: true", "init: true\n    pull_policy: missing"),
		"a key of nobody's":       edit("init: true", "init: true\n    x-note: hello"),
	} {
		w.write(map[string]string{"compose.yaml": file})
		require.Empty(t, w.plan("web").Changes, name)
		w.inSync("web")
	}
}
