package systemd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/client"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"dive-agent/config"
	"dive-agent/testbed"
)

// machine is a Debian that has booted with systemd, in a container.
type machine struct {
	t   *testing.T
	cli *client.Client
	id  string
}

func boot(t *testing.T) *machine {
	t.Helper()
	cli := testbed.Engine(t)
	program := testbed.GoBinary(t, "./cmd/dive-agent")
	files := filepath.Join(testbed.Checkout(t), "systemd")
	made, err := cli.ContainerCreate(t.Context(), client.ContainerCreateOptions{
		Name: testbed.Prefix(t), Image: testbed.Image(t, testbed.Systemd),
		Config: &container.Config{StopSignal: "SIGRTMIN+3"},
		HostConfig: &container.HostConfig{
			CapAdd:      []string{"SYS_ADMIN"},
			SecurityOpt: []string{"seccomp=unconfined", "apparmor=unconfined"},
			Tmpfs:       map[string]string{"/run": "", "/run/lock": ""},
			Mounts: []mount.Mount{
				{Type: mount.TypeBind, Source: "/sys/fs/cgroup", Target: "/sys/fs/cgroup"},
				{Type: mount.TypeBind, Source: program, Target: "/src/bin/dive-agent", ReadOnly: true},
				{Type: mount.TypeBind, Source: files, Target: "/src/systemd", ReadOnly: true},
			},
		},
	})
	require.NoError(t, err)
	m := &machine{t: t, cli: cli, id: made.ID}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_, err := cli.ContainerRemove(ctx, made.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
		assert.NoError(t, err)
	})
	_, err = cli.ContainerStart(t.Context(), made.ID, client.ContainerStartOptions{})
	require.NoError(t, err)
	testbed.Eventually(t, time.Minute, "boot", func() error {
		out, _, err := m.run("systemctl is-system-running")
		if err == nil && strings.TrimSpace(out) != "running" && strings.TrimSpace(out) != "degraded" {
			return errors.New(out)
		}
		return err
	})
	return m
}

// run runs a shell line in the machine and returns what it printed and its exit code.
func (m *machine) run(line string) (string, int, error) {
	ctx, cancel := context.WithTimeout(m.t.Context(), time.Minute)
	defer cancel()
	made, err := m.cli.ExecCreate(ctx, m.id, client.ExecCreateOptions{
		Cmd: []string{"/bin/bash", "-c", line}, AttachStdout: true, AttachStderr: true,
	})
	if err != nil {
		return "", 0, err
	}
	attached, err := m.cli.ExecAttach(ctx, made.ID, client.ExecAttachOptions{})
	if err != nil {
		return "", 0, err
	}
	defer attached.Close()
	var out bytes.Buffer
	if _, err := stdcopy.StdCopy(&out, &out, attached.Reader); err != nil && !errors.Is(err, io.EOF) {
		return "", 0, err
	}
	info, err := m.cli.ExecInspect(ctx, made.ID, client.ExecInspectOptions{})
	return out.String(), info.ExitCode, err
}

// must runs a shell line that has to succeed.
func (m *machine) must(line string) string {
	m.t.Helper()
	out, code, err := m.run(line)
	require.NoError(m.t, err)
	if code != 0 {
		log, _, _ := m.run("journalctl -u dive-agent --no-pager -o cat | tail -30")
		m.t.Fatalf("%s: exit %d\n%s\n%s", line, code, out, log)
	}
	return strings.TrimSpace(out)
}

func (m *machine) property(name string) string {
	m.t.Helper()
	return m.must("systemctl show dive-agent --value -p " + name)
}

// becomes waits for a property of the unit.
func (m *machine) becomes(name, want string) {
	m.t.Helper()
	testbed.Eventually(m.t, 30*time.Second, fmt.Sprintf("%s = %s", name, want), func() error {
		if got := m.property(name); got != want {
			return errors.New(got)
		}
		return nil
	})
}

// step is a subtest on the machine.
func (m *machine) step(name string, do func(t *testing.T, m *machine)) {
	m.t.Run(name, func(t *testing.T) { do(t, &machine{t: t, cli: m.cli, id: m.id}) })
}

// The agent has no engine and no fleet repository here: a service that is up says so and waits.
const configuration = `mkdir -p /etc/dive-agent && cat >/etc/dive-agent/agent.yaml <<'END'
host: test-01
source: {url: "file:///srv/nowhere.git"}
END`

func TestExampleConfigurationLoads(t *testing.T) {
	c, err := config.Load("agent.yaml.example")
	require.NoError(t, err)
	assert.Equal(t, "deu-01", c.Host)

	// What is commented out is right too.
	raw, err := os.ReadFile("agent.yaml.example")
	require.NoError(t, err)
	var lines []string
	for line := range strings.Lines(string(raw)) {
		if option, ok := strings.CutPrefix(strings.TrimLeft(line, " "), "#"); ok && !strings.HasPrefix(option, " ") || strings.HasPrefix(line, "#  ") {
			line = strings.Replace(line, "#", "", 1)
		}
		lines = append(lines, line)
	}
	all := filepath.Join(t.TempDir(), "agent.yaml")
	text := strings.Replace(strings.Join(lines, ""), "https://git.example.org/coalition", "ssh://git@git.example.org", 1)
	require.NoError(t, os.WriteFile(all, []byte(text), 0o600))
	c, err = config.Load(all)
	require.NoError(t, err, "%s", text)
	assert.Equal(t, "127.0.0.1:9464", c.Listen.Address)
	assert.Len(t, c.Report.Webhooks, 1)
}

func TestUnitUnderSystemd(t *testing.T) {
	m := boot(t)
	m.must("/src/systemd/install.sh /src/bin/dive-agent")
	assert.Contains(t, m.must("cat /etc/dive-agent/agent.yaml"), "host: deu-01", "the first time it leaves the example")
	assert.Equal(t, "inactive", m.property("ActiveState"), "which nobody has looked at yet")
	m.must(configuration)
	m.must("/src/systemd/install.sh /src/bin/dive-agent")

	m.step("verify finds nothing to say", func(t *testing.T, m *machine) {
		out, code, err := m.run("systemd-analyze verify /usr/lib/systemd/system/dive-agent.service")
		require.NoError(t, err)
		assert.Zero(t, code)
		assert.Empty(t, out)
	})
	m.step("it is hardened", func(t *testing.T, m *machine) {
		out, code, err := m.run("systemd-analyze security --no-pager --threshold=30 dive-agent.service")
		require.NoError(t, err)
		assert.Zero(t, code, "%s", out)
	})
	m.step("it is ready, with its folders to itself", func(t *testing.T, m *machine) {
		assert.Equal(t, "active", m.property("ActiveState"))
		assert.Equal(t, "dive-agent", m.must("ps -o user:32= -p "+m.property("MainPID")))
		assert.Equal(t, "dive-agent docker", m.must("id -nG dive-agent"))
		assert.Equal(t, "700 dive-agent dive-agent", m.must("stat -c '%a %U %G' /var/lib/dive-agent"))
		assert.Equal(t, "750 dive-agent dive-agent", m.must("stat -c '%a %U %G' /run/dive-agent"))
		assert.Equal(t, "640 root dive-agent", m.must("stat -c '%a %U %G' /etc/dive-agent/agent.yaml"))
		m.must("dive-agent status")
	})
	m.step("reload", func(t *testing.T, m *machine) {
		pid := m.property("MainPID")
		m.must("systemctl reload dive-agent")
		m.becomes("ActiveState", "active")
		assert.Equal(t, pid, m.property("MainPID"))
	})
	m.step("killed, it comes back", func(t *testing.T, m *machine) {
		m.must("systemctl kill -s KILL dive-agent")
		m.becomes("NRestarts", "1")
		m.becomes("ActiveState", "active")
	})
	m.step("hanging, the watchdog ends it", func(t *testing.T, m *machine) {
		m.must("mkdir -p /run/systemd/system/dive-agent.service.d && printf '[Service]\\nWatchdogSec=2\\nWatchdogSignal=KILL\\n'" +
			" >/run/systemd/system/dive-agent.service.d/test.conf && systemctl daemon-reload && systemctl restart dive-agent")
		m.becomes("ActiveState", "active")
		before := m.property("NRestarts")
		m.must("systemctl kill -s STOP dive-agent")
		testbed.Eventually(t, 30*time.Second, "another start", func() error {
			if now := m.property("NRestarts"); now == before {
				return errors.New(now)
			}
			return nil
		})
		m.becomes("ActiveState", "active")
	})
	m.step("stop drains", func(t *testing.T, m *machine) {
		m.must("systemctl stop dive-agent")
		assert.Equal(t, "inactive", m.property("ActiveState"))
		assert.Equal(t, "success", m.property("Result"))
		assert.Contains(t, m.must("journalctl -u dive-agent --no-pager -o cat"), "stopped")
	})
	m.step("a configuration that is wrong is named, and taken when it is right", func(t *testing.T, m *machine) {
		m.must("echo 'hots: x' >/etc/dive-agent/agent.yaml")
		_, code, err := m.run("systemctl start dive-agent")
		require.NoError(t, err)
		assert.NotZero(t, code)
		assert.Contains(t, m.must("journalctl -u dive-agent --no-pager -o cat"), "hots")
		m.must(configuration)
		m.becomes("ActiveState", "active")
	})
}
