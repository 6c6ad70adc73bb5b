package main

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/agent"
	"dive-agent/report"
)

// TestOnceEndsWithTheCodeOfTheWorst: what calls it in a script relies on these numbers.
func TestOnceEndsWithTheCodeOfTheWorst(t *testing.T) {
	for name, c := range map[string]struct {
		phases []report.Phase
		poll   error
		code   int
	}{
		"nothing here":       {nil, nil, 0},
		"all is well":        {[]report.Phase{report.Ready, report.Suspended}, nil, 0},
		"one waits":          {[]report.Phase{report.Ready, report.Blocked, report.Ready}, nil, 3},
		"one failed":         {[]report.Phase{report.Degraded, report.Ready}, nil, 1},
		"failed before":      {[]report.Phase{report.Degraded, report.Blocked}, nil, 1},
		"failed after":       {[]report.Phase{report.Blocked, report.Degraded}, nil, 1},
		"could not be asked": {[]report.Phase{report.Ready, report.Blocked}, errors.New("no network"), 1},
	} {
		overview := &agent.Overview{}
		for _, phase := range c.phases {
			overview.Instances = append(overview.Instances, &report.Status{Phase: phase})
		}
		err, code := worstExit(overview, c.poll), 0
		var exit *exitError
		if errors.As(err, &exit) {
			code = exit.code
		}
		require.Equal(t, c.code, code, name)
	}
}
