package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/agent"
	"dive-agent/report"
)

// verified is an instance with a check of each verdict, one with words that are no XML, and one whose checks were not made.
func verified() []agent.Verification {
	at := time.Date(2026, 3, 1, 14, 0, 0, 0, time.UTC)
	check := func(name, severity string, passed bool, saw string) report.Check {
		return report.Check{Component: "checks", Name: name, Severity: severity, Passed: passed, Saw: saw, At: at, Took: 1234 * time.Millisecond, Since: at}
	}
	return []agent.Verification{
		{Instance: "deu", Host: "deu-01", Revision: strings.Repeat("5", 40), Checks: []report.Check{
			check("primary", "fail", true, "PRIMARY of rs0"),
			check("backend", "fail", false, "status 503, expected 200 <\"&\x01>"),
			check("opal", "warn", false, "connection refused"),
		}},
		{Instance: "fra", Host: "deu-01", Checks: []report.Check{}, Why: []string{"the engine does not answer"}},
	}
}

func TestJUnit(t *testing.T) {
	file := filepath.Join(t.TempDir(), "checks.xml")
	require.NoError(t, writeJUnit(file, verified()))
	content, err := os.ReadFile(file)
	require.NoError(t, err)
	var read junitSuites
	decoder := xml.NewDecoder(bytes.NewReader(content))
	decoder.Strict = true
	require.NoError(t, decoder.Decode(&read), "%s", content)
	require.Equal(t, []int{4, 2, 1}, []int{read.Tests, read.Failures, read.Skipped})
	require.Len(t, read.Suites, 2)
	deu, fra := read.Suites[0], read.Suites[1]
	require.Equal(t, "3.702", deu.Time)
	require.Equal(t, "2026-03-01T14:00:00", deu.Timestamp)
	require.Equal(t, "deu.checks", deu.Cases[0].Class)
	require.Equal(t, "PRIMARY of rs0", deu.Cases[0].Out)
	require.Nil(t, deu.Cases[0].Failure)
	require.Contains(t, deu.Cases[1].Failure.Message, "status 503, expected 200 <\"&")
	require.Equal(t, "warning: connection refused", deu.Cases[2].Skipped.Message)
	require.Nil(t, deu.Cases[2].Failure)
	require.Equal(t, "no check was made; the engine does not answer", fra.Cases[0].Failure.Message)

	require.ErrorContains(t, writeJUnit(filepath.Join(file, "x"), nil), "cannot write the results for the CI: open ")
}

// TestVerifiedIsTold: what failed stands first, and the exit code is that of the checks of severity fail.
func TestVerifiedIsTold(t *testing.T) {
	all := verified()
	tell := func(output string, all ...agent.Verification) (string, int) {
		var out bytes.Buffer
		g := &globals{streams: streams{&out, &out}, output: output}
		err, code := g.tellVerified(all), exitDone
		var exit *exitError
		if errors.As(err, &exit) {
			code = exit.code
		} else {
			require.NoError(t, err)
		}
		return out.String(), code
	}
	text, code := tell("text", all[0])
	require.Equal(t, exitFailed, code)
	require.Equal(t, `deu  3 checks: 1 passed, 1 failed, 1 warning   at 5555555   host deu-01

  ✗ backend    1.23 s  status 503, expected 200 <"&> (since 2026-03-01 14:00 UTC)
  ! opal       1.23 s  connection refused (since 2026-03-01 14:00 UTC)
  ✓ primary    1.23 s  PRIMARY of rs0
`, text)

	all[0].Checks = []report.Check{all[0].Checks[0], all[0].Checks[2]}
	_, code = tell("text", all[0])
	require.Equal(t, exitDone, code, "a warning fails nothing")
	text, code = tell("text", all...)
	require.Equal(t, exitFailed, code, "checks that were not made verify nothing")
	require.Contains(t, text, "fra  0 checks: 0 passed   host deu-01\n\n  no check was made\n  why   the engine does not answer\n")
	text, code = tell("text")
	require.Equal(t, exitFailed, code)
	require.Equal(t, "no instance is bound to this host yet\n", text)

	text, code = tell("json", all[0])
	require.Equal(t, exitDone, code)
	var read []agent.Verification
	require.NoError(t, json.Unmarshal([]byte(text), &read))
	require.Equal(t, all[:1], read)
}
