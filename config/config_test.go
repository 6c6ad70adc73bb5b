package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func write(t *testing.T, content string) string {
	path := filepath.Join(t.TempDir(), "agent.yaml")
	require.NoError(t, os.WriteFile(path, []byte(content), 0o640))
	return path
}

func TestLoadFillsDefaultsAndResolvesPaths(t *testing.T) {
	path := write(t, "host: deu-01\nstateDir: state\nsource: {url: /srv/fleet.git, interval: 2s, caFile: ca.pem}\n")
	c, err := Load(path)
	require.NoError(t, err)
	require.Equal(t, "main", c.Source.Branch)
	require.Equal(t, Duration(2*time.Second), c.Source.Interval)
	require.Equal(t, Duration(5*time.Minute), c.Resync)
	require.Equal(t, filepath.Join(filepath.Dir(path), "state"), c.StateDir)
	require.Equal(t, filepath.Join(filepath.Dir(path), "ca.pem"), c.Source.CAFile)
	require.Equal(t, "/run/dive-agent/agent.sock", c.Socket)
}

func TestLoadNamesEveryProblem(t *testing.T) {
	for name, c := range map[string]struct {
		content string
		wants   []string
	}{
		"empty":         {"", []string{"host is missing", "source.url is missing"}},
		"unknown":       {"host: a\nsource: {url: /x}\nhots: b\n", []string{"line 3: there is no option hots here"}},
		"type":          {"host: [a]\nsource: 'https://git:secret@x'\n", []string{"line 1: a list does not fit here; line 2: a text does not fit here"}},
		"both":          {"host: a\nsource: {url: /x, interval: 1m, schedule: '@hourly'}\n", []string{"source.interval and source.schedule exclude"}},
		"schedule":      {"host: a\nsource: {url: /x, schedule: often}\n", []string{`"often" is no cron expression`}},
		"duration":      {"host: a\nsource: {url: /x, interval: fast}\n", []string{`line 2: "fast" is no duration`}},
		"listen":        {"host: a\nsource: {url: /x}\nlisten: {address: '0.0.0.0:80'}\n", []string{"public: true"}},
		"webhook":       {"host: a\nsource: {url: /x}\nreport: {webhooks: [{url: 'https://x'}]}\nlogLevel: loud\n", []string{"report.webhooks[0]", `logLevel "loud"`}},
		"allow":         {"host: a\nsource: {url: /x}\nterraform: {allow: [provisioners, external, 'module:git::https://x', 'provider:a/b', 'provider:a', all]}\nopentofu: {allow: [external]}\n", []string{"allow stands under terraform", `"provider:a" is none of`, `"all" is none of`}},
		"compose allow": {"host: a\nsource: {url: /x}\ncompose: {allow: [privileged, engine-socket, 'cap:SYS_ADMIN', 'mount:/srv', 'mount:srv', external, everything]}\n", []string{`compose.allow: "mount:srv" is none of`, `compose.allow: "external" is none of`, `"everything" is none of`}},
		"broken":        {"host: [", []string{"line 1"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Load(write(t, c.content))
			require.Error(t, err)
			for _, want := range c.wants {
				require.Contains(t, err.Error(), want)
			}
		})
	}
}

func TestLoadSaysWhereToPutAMissingFile(t *testing.T) {
	_, err := Load(filepath.Join(t.TempDir(), "none.yaml"))
	require.Error(t, err)
	require.True(t, strings.Contains(err.Error(), "--config"), err.Error())
}
