package keycloak

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/reconcilers"
	"dive-agent/testbed"
)

// killed ends Terraform hard while it creates, at several places, and expects the same realm as ever.
func killed(t *testing.T, b *bed) {
	whole := newWorld(t, b, "")
	whole.drive()
	want := whole.picture(t)
	for place, provider := range map[string]bool{
		"create keycloak_realm.this":                                   false,
		"create keycloak_openid_client.app":                            true,
		"create keycloak_openid_user_realm_role_protocol_mapper.roles": false,
	} {
		w := newWorld(t, b, "")
		_, plan := w.look()
		var once sync.Once
		_, err := w.reconciler().Apply(t.Context(), w.target, plan, &steps{on: func(said string) {
			if strings.Contains(said+";", ": "+place+";") {
				once.Do(func() { w.kill(provider) })
			}
		}})
		if err != nil && !provider {
			require.ErrorContains(t, err, "it was ended from outside: signal: killed", place)
		}
		// The last ones may be made before the signal comes; a realm takes too long for that.
		require.True(t, err != nil || place != "create keycloak_realm.this", place)
		w.drive()
		require.Equal(t, want, w.picture(t), place)
	}
}

// kill ends the Terraform of this world, or its provider, with SIGKILL.
func (w *world) kill(provider bool) {
	dir, err := filepath.EvalSymlinks(filepath.Join(w.target.Dir, "module"))
	require.NoError(w.t, err)
	for _, p := range processesIn(dir) {
		if isProvider(p) == provider && !strings.HasSuffix(p.executable, ".test") {
			_ = syscall.Kill(p.pid, syscall.SIGKILL)
		}
	}
}

// orphaned kills the agent itself in the middle of an apply. Terraform goes on, and the next agent waits for it.
func orphaned(t *testing.T, b *bed) {
	w := newWorld(t, b, "")
	_, plan := w.look()
	saved := plan.State.(*saved)
	output := filepath.Join(w.target.Dir, "run", "apply.jsonl")
	agent := exec.Command(os.Args[0], "apply", "-json", "-no-color", "-input=false", "-auto-approve", saved.file)
	agent.Dir = filepath.Join(w.target.Dir, "module")
	agent.Env = append(os.Environ(), shimTool+"="+w.tool, shimOutput+"="+output, "TF_CLI_CONFIG_FILE="+b.mirror.ConfigFile, "CHECKPOINT_DISABLE=1")
	require.NoError(t, agent.Start())
	testbed.Eventually(t, time.Minute, "the apply has begun", func() error {
		data, err := os.ReadFile(output)
		if err == nil && !strings.Contains(string(data), `"apply_start"`) {
			err = errors.New("not yet")
		}
		return err
	})
	require.NoError(t, agent.Process.Kill())
	_ = agent.Wait()

	observed, err := w.reconciler().Observe(t.Context(), w.target)
	require.NoError(t, err)
	var wait *reconcilers.WaitError
	if errors.As(observed.Err, &wait) {
		require.Contains(t, wait.For, "under way")
	}
	require.Empty(t, w.drive(), "the run came to its end without the agent")
	require.Contains(t, w.picture(t), "users someone")
}
