package agent

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/report"
	"dive-agent/secrets"
)

// TestASourceThatFailsIsTold: the instance stays Ready with the last value, and a condition tells since when and why; one that
// never had the value is Blocked, and asks again soon.
func TestASourceThatFailsIsTold(t *testing.T) {
	world := newWorld(t, [2]string{"a", "one"})
	w, _ := newHost(t, world)
	w.workers[w.name] = w
	path := filepath.Join(t.TempDir(), "license")
	w.Secrets = HostSecrets{Random: zeros{}, Now: w.Clock.Now, Sources: secrets.NewSources(secrets.SourceOptions{
		Files: []string{path}, Now: w.Clock.Now, Getenv: os.LookupEnv, Redactor: w.Redactor,
	})}
	w.assigned.instance.Secrets = []desired.SecretSpec{{
		Name: "LICENSE", Source: &desired.SecretSource{Kind: desired.HostFileSource, File: path, Interval: time.Minute},
	}}
	status := func(trigger string) (*report.Status, time.Duration) {
		again := w.round(t.Context(), trigger)
		st, err := w.Status(t.Context(), w.name)
		require.NoError(t, err)
		return st, again
	}
	st, again := status("test")
	require.Equal(t, report.Blocked, st.Phase)
	require.Contains(t, st.Why[0], "secret LICENSE of "+w.name+" cannot be had from file "+path)
	require.Contains(t, st.Next[0], "See that file "+path)
	require.LessOrEqual(t, again, time.Minute)

	require.NoError(t, os.WriteFile(path, []byte("value-of-the-license"), 0o600))
	st, again = status("sync")
	require.Equal(t, report.Ready, st.Phase)
	require.Equal(t, time.Minute, again, "it is looked at again in time")
	require.Equal(t, "(secret)", w.Redactor.String("value-of-the-license"))

	require.NoError(t, os.Remove(path))
	st, _ = status("sync")
	require.Equal(t, report.Ready, st.Phase, "what runs is well")
	found := false
	for _, c := range st.Visible() {
		if c.Type == "SecretsFollowed" {
			found = true
			require.False(t, c.Status)
			require.Contains(t, c.Message, "its last value (generation 1) stays in use")
			require.Contains(t, st.Why, c.Message)
		}
	}
	require.True(t, found)
	require.NoError(t, os.WriteFile(path, []byte("another-license-value"), 0o600))
	st, _ = status("sync")
	for _, c := range st.Conditions {
		require.NotEqual(t, "SecretsFollowed", c.Type)
	}
	events, _ := w.bus.after(0)
	told := false
	for _, e := range events {
		told = told || e.Kind == "secrets" && e.Message == "new value where it comes from: LICENSE"
		require.NotContains(t, e.Message, "license-value")
	}
	require.True(t, told)
}
