package agent

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/report"
	"dive-agent/state"
)

// stepwise has one secret whose replacement goes on in a second pass.
type stepwise struct {
	HostSecrets
	steps int
}

func (s *stepwise) Former(*desired.Instance, string) (map[string][]desired.Value, error) {
	return map[string][]desired.Value{"KEY": {desired.Secret("former-value-of-it")}}, nil
}

func (s *stepwise) Forget(context.Context, *desired.Instance, string, map[string]desired.Value) (goOn []string, err error) {
	if s.steps++; s.steps == 1 {
		goOn = []string{"KEY"}
	}
	return goOn, nil
}

// TestAReplacementGoesOnInTheSameRound: the next step of a key's replacement follows at once, and does not wait for the round itself.
func TestAReplacementGoesOnInTheSameRound(t *testing.T) {
	w, _ := newHost(t, newWorld(t, [2]string{"a", "one"}))
	w.workers[w.name] = w
	w.assigned.instance.Secrets = []desired.SecretSpec{{Name: "KEY", Generate: &desired.Generate{Kind: "token"}}}
	w.assigned.instance.Graph.Holders = map[string][]string{}
	steps := &stepwise{HostSecrets: HostSecrets{Random: fixed{}, Now: w.Clock.Now}}
	w.Secrets = steps
	require.Equal(t, w.resync(), w.round(t.Context(), "test"), "nothing is waited for")
	require.Equal(t, 2, steps.steps)
	status, err := w.Status(t.Context(), w.name)
	require.NoError(t, err)
	require.Equal(t, report.Ready, status.Phase)
	require.Equal(t, "1111111", w.stored(t).Applied)
	require.NoError(t, w.Store.View(t.Context(), func(r state.Reader) error {
		runs, err := r.Runs(w.name, 0)
		require.NoError(t, err)
		for _, run := range runs {
			require.Equal(t, state.Done, run.Outcome, run.Message)
		}
		return err
	}))
}

// fixed is randomness that repeats.
type fixed struct{}

func (fixed) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(i * 7)
	}
	return len(p), nil
}
