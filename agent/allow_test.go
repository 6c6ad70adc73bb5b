package agent

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
)

// wary is a spec that asks for what a host must allow.
type wary struct {
	Value string `yaml:"value" doc:"Not looked at."`
}

func (*wary) Validate(c *desired.Check) {
	if !slices.Contains(c.Allow, "commands") && !slices.Contains(c.Allow, desired.AllowAll) {
		c.Errorf(desired.Position{}, "%s may not run commands", c.Instance.Host)
	}
}

func TestAHostJudgesItsOwnInstances(t *testing.T) {
	w, _ := newHost(t, newWorld(t, [2]string{"a", "one"}))
	w.keepSnapshot(t, "one")
	w.Kinds = []desired.Kind{{Name: "Ledger", New: func() any { return &wary{} }}}
	revision := Revision{Commit: "2222222", Dir: w.snapshotDir("1111111")}
	_, err := w.load(revision)
	require.ErrorContains(t, err, "may not run commands")
	w.Allow = []string{"commands"}
	_, err = w.load(revision)
	require.NoError(t, err)
	w.Allow, w.Host = nil, "another-01"
	_, err = w.load(revision)
	require.NoError(t, err, "what another host allows is not known here")
}
