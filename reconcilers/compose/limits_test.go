package compose

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// What nobody can mean is refused in less than a second and with less than 50 MB, by validate and by load.
func TestWhatIsTooMuchIsRefusedSoon(t *testing.T) {
	services := func(n int, definition string) string {
		var text strings.Builder
		text.WriteString("services:\n")
		for i := range n {
			fmt.Fprintf(&text, "  s%d: %s\n", i, definition)
		}
		return text.String()
	}
	wide := strings.Repeat("x, ", 5000) + "x"
	cases := []struct {
		name, compose, want string
		more                map[string]string
	}{
		{"alias bomb", bomb(), "once its aliases are expanded", nil},
		{"alias of itself", "x-a: &a [*a]\n" + services(1, "{image: x}"), "compose.yaml", nil},
		{"bomb in a second document", services(1, "{image: x}") + "---\n" + bomb(), "once its aliases are expanded", nil},
		{"bomb of merges", mergeBomb(), "once its aliases are expanded", nil},
		{"large file", "x: " + strings.Repeat("x", 50<<20), "it has 52428803 bytes, 1048576 are allowed", nil},
		{"many services", services(10_000, "{image: x}"), "the stack has 10000 services, 500 are allowed", nil},
		{"many services, larger", services(10_000, "{image: registry.example.org/team/application:1.2.3, restart: unless-stopped, init: true}"), "some 100000 are allowed", nil},
		{"as many values as fit", "x: [" + strings.Repeat("a,", 1<<19-100) + "a]\n", "some 100000 are allowed", nil},
		{"as deep as it gets", "x: " + strings.Repeat("[", 90_000), "compose.yaml", nil},
		{"large service that many extend", "x: &x [" + wide + "]\n" + "services:\n  base: {image: x, command: [" + wide + "]}\n" + strings.TrimPrefix(services(400, "{extends: base}"), "services:\n"), "once services are extended", nil},
		{"all ports", "services:\n  a:\n    image: x\n    ports: [\"1-65535:1-65535\"]\n", "blueprints/spoke/compose.yaml:4:13: the stack has more than 5000 ports", nil},
		{"all ports by a variable", "services:\n  a:\n    image: x\n    ports: [\"${FROM:-1}-${TO:-65535}:${FROM:-1}-${TO:-65535}/udp\"]\n", "blueprints/spoke/compose.yaml:4:5: services.a.ports: the stack has more than 5000 ports", nil},
		{"bomb in what is included", "include: [more.yaml]\n" + services(1, "{image: x}"), "blueprints/spoke/compose.yaml:1:11: include: more.yaml: ", map[string]string{"blueprints/spoke/more.yaml": bomb()}},
		{"bomb in what is extended", services(1, "{extends: {file: more.yaml, service: a}}"), "extends: more.yaml: ", map[string]string{"blueprints/spoke/more.yaml": bomb()}},
		{"large environment of what is included", "include: [{path: more.yaml, env_file: big.env}]\n" + services(1, "{image: x}"), "it has 2097152 bytes", map[string]string{"blueprints/spoke/more.yaml": "services: {}", "blueprints/spoke/big.env": strings.Repeat("x", 2<<20)}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, text := range c.more {
				write(t, filepath.Join(dir, filepath.Base(name)), text)
			}
			write(t, filepath.Join(dir, "compose.yaml"), c.compose)
			r := request{sourceDir: dir, files: []string{"compose.yaml"}, project: "p"}
			took, memory := cost(func() {
				_, err := load(t.Context(), r)
				require.Error(t, err)
			})
			t.Logf("%s, %d MB", took, memory>>20)
			require.Less(t, took, time.Second*raceFactor)
			require.Less(t, memory, uint64(50<<20)*raceFactor)
			_, problems := repository(t, "", c.compose, c.more)
			require.Contains(t, problems.Error(), c.want)
			require.Less(t, len(problems.Error()), 2000)
		})
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
}

// cost gives the time of the quickest of three runs, and all memory that one takes, freed meanwhile or not.
func cost(f func()) (took time.Duration, memory uint64) {
	defer debug.FreeOSMemory()
	for range 3 {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		begin := time.Now()
		f()
		if spent := time.Since(begin); took == 0 || spent < took {
			took = spent
		}
		runtime.ReadMemStats(&after)
		memory = after.TotalAlloc - before.TotalAlloc
	}
	return took, memory
}

func mergeBomb() string {
	lines := []string{"x-0: &a0 {a: x, b: x, c: x, d: x}"}
	for i := 1; i < 12; i++ {
		lines = append(lines, fmt.Sprintf("x-%d: &a%d {<<: [*a%d, *a%d, *a%d, *a%d]}", i, i, i-1, i-1, i-1, i-1))
	}
	return strings.Join(append(lines, "services: {a: {image: \"x:1\", <<: *a11}}"), "\n")
}

// What a real stack has is far below the limits.
func TestALargeStackIsWithinTheLimits(t *testing.T) {
	var text strings.Builder
	text.WriteString("x-base: &base {restart: unless-stopped, init: true, labels: {a: b, c: d}, logging: {driver: json-file, options: {max-size: 10m}}}\nservices:\n")
	for i := range 400 {
		fmt.Fprintf(&text, "  s%d:\n    <<: *base\n    image: registry.example.org/team/application:1.2.3\n    environment: {A: b, C: d, E: f}\n    healthcheck: {test: [CMD, \"true\"], interval: 2s}\n", i)
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "compose.yaml"), text.String())
	m, err := load(t.Context(), request{sourceDir: dir, files: []string{"compose.yaml"}, project: "p"})
	require.NoError(t, err)
	require.Len(t, m.project.Services, 400)
}

// Files that are included from folders, with folders of their own for what they refer to.
func TestIncludeAndExtendsFromFolders(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"compose.yaml": "include:\n  - sub/compose.yaml\n  - {path: [other/a.yaml, other/b.yaml], project_directory: sub}\n" +
			"services: {main: {extends: {file: base/base.yaml, service: top}}}\n",
		"sub/compose.yaml":        "include: [deeper/compose.yaml]\nservices: {sub: {image: \"sub:1\", volumes: [\"./conf:/conf:ro\"]}}\n",
		"sub/deeper/compose.yaml": "services: {deeper: {extends: {file: ../../base/base.yaml, service: top}}}\n",
		"other/a.yaml":            "services: {a: {image: \"a:1\", volumes: [\"./conf:/conf:ro\"]}}\n",
		"other/b.yaml":            "services: {a: {environment: {X: y}}}\n",
		"base/base.yaml":          "services:\n  top: {extends: {file: bottom.yaml, service: bottom}, environment: {TOP: \"1\"}}\n",
		"base/bottom.yaml":        "services: {bottom: {image: \"bottom:1\", environment: {BOTTOM: \"1\"}}}\n",
		"sub/conf/x":              "x",
	} {
		write(t, filepath.Join(dir, name), text)
	}
	r := request{sourceDir: dir, projectDir: "/project", files: []string{"compose.yaml"}, project: "p"}
	m, err := load(t.Context(), r)
	require.NoError(t, err)
	require.Equal(t, []string{"a", "deeper", "main", "sub"}, sortedKeys(m.project.Services))
	require.Equal(t, "bottom:1", m.project.Services["main"].Image)
	require.Equal(t, "bottom:1", m.project.Services["deeper"].Image)
	require.Equal(t, "/project/sub/conf", m.project.Services["sub"].Volumes[0].Source)
	require.Equal(t, "/project/sub/conf", m.project.Services["a"].Volumes[0].Source)
	require.Equal(t, "y", *m.project.Services["a"].Environment["X"])
	read, err := r.gather()
	require.NoError(t, err)
	require.Len(t, read.files, 7)
}

// Nothing outside of the source folder is read, however it is named.
func TestIncludeAndExtendsThatLeave(t *testing.T) {
	cases := map[string]string{
		"include":                    "include: [../out.yaml]",
		"long include":               "include: [{path: [sub/a.yaml, ../out.yaml]}]",
		"absolute":                   "include: [/etc/out.yaml]",
		"remote":                     "include: [\"oci://example.org/stack\"]",
		"git":                        "include: [\"https://example.org/stack.git\"]",
		"project directory":          "include: [{path: sub/a.yaml, project_directory: ..}]",
		"absolute project directory": "include: [{path: sub/a.yaml, project_directory: /etc}]",
		"environment":                "include: [{path: sub/a.yaml, env_file: [../out.env]}]",
		"variable":                   "include: [\"${WHERE}/a.yaml\"]",
		"extends":                    "services: {a: {extends: {file: ../out.yaml, service: a}}}",
		"merged":                     "x-a: &a {extends: {file: ../out.yaml, service: a}}\nservices: {a: {<<: *a}}",
		"from below":                 "include: [sub/leaves.yaml]",
		"environment from below":     "include: [sub/environment.yaml]",
	}
	for name, text := range cases {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "source")
			write(t, filepath.Join(dir, "compose.yaml"), text+"\n")
			write(t, filepath.Join(dir, "sub/a.yaml"), "services: {a: {image: \"a:1\"}}\n")
			write(t, filepath.Join(dir, "sub/leaves.yaml"), "include: [../../out.yaml]\n")
			write(t, filepath.Join(dir, "sub/environment.yaml"), "include: [{path: a.yaml, env_file: a.env}]\n")
			write(t, filepath.Join(dir, "../out.yaml"), "services: {a: {image: \"out:1\"}}\n")
			write(t, filepath.Join(dir, "../out.env"), "A=b\n")
			_, err := load(t.Context(), request{sourceDir: dir, files: []string{"compose.yaml"}, project: "p", env: map[string]string{"WHERE": ".."}})
			var placed *placedError
			require.ErrorAs(t, err, &placed)
			require.NotZero(t, placed.at.Column)
			require.NotContains(t, err.Error(), dir)
		})
	}
}

// hangs is longer than anything takes that comes to an end, with the race detector and beside all other tests.
const hangs = 3 * time.Minute

// Whatever the bytes are, reading them ends soon, and a stack comes of them only within the limits.
func FuzzComposeFile(f *testing.F) {
	for _, seed := range []string{
		sharingStack, conformingStack, twoServices, bomb(), mergeBomb(),
		"include: [compose.yaml]\n", "services: {a: {extends: a}}\n", "services: {a: {extends: {file: compose.yaml, service: a}}}\n",
		"include: [{path: [a, b], env_file: x, project_directory: .}]\n", "x: &a [*a]\n", "services: [1, 2]\n", "---\n---\n", "\x00", "a: !!binary x\n",
		"services: {a: {image: \"${X:-${Y:-${Z}}}\", ports: [\"1-65535:1-65535\"]}}\n", "services: {? [a, b] : c}\n", "<<: {services: {}}\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, "compose.yaml"), content, 0o644))
		r := request{sourceDir: dir, projectDir: "/project", secretsDir: "/secrets", files: []string{"compose.yaml"}, project: "p", env: map[string]string{"IMAGE": "x:1"}, shallow: true}
		begin := time.Now()
		m, err := load(t.Context(), r)
		require.Less(t, time.Since(begin), hangs)
		if err == nil {
			require.LessOrEqual(t, len(m.project.Services), serviceLimit)
		}
	})
}

// Whatever the bytes are, they are judged, and each mistake has a place.
func FuzzValidation(f *testing.F) {
	for _, seed := range []string{
		builtStack, hookedStack, "services:\n  a:\n    imagee: x\n    ports: {x: 1}\n", "services: {a: {image: x, networks: [n], volumes: [\"v:/v\"], depends_on: {b: {required: false}}}}\n",
		"services: {a: {image: x, privileged: true, cap_add: [ALL], volumes: [{type: bind, source: /, target: /x}]}}\n", "services: {a: {<<: [1, {b: c}], extends: {file: [x], service: {}}}}\n",
		"services: !reset null\n", "services: {a: {image: \"${X\"}}\n", "configs: {c: {external: true}}\nvolumes: {v: {driver_opts: {o: \"a=/b:/c\", device: 1}}}\n", "a: b\nservices: {}\nb: {1: 2}\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		begin := time.Now()
		_, problems := repository(t, "", string(content), nil)
		require.Less(t, time.Since(begin), hangs)
		for _, p := range problems {
			require.NotEmpty(t, p.Position.File)
			require.NotEmpty(t, p.Message)
		}
	})
}
