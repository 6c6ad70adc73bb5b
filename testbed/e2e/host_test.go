package e2e

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"dive-agent/report"
	"dive-agent/testbed"
	"dive-agent/testbed/agenttest"
	"dive-agent/testbed/disk"
)

var errNotYet = errors.New("not yet")

// TestADamagedStateIsKeptAside: nothing is made twice, nothing is lost, and it goes on.
func TestADamagedStateIsKeptAside(t *testing.T) {
	t.Parallel()
	s := newSmall(t)
	h, commit := s.ready(agenttest.HostOptions{})
	before := s.running()
	h.Stop()
	state := filepath.Join(h.Dir, "state")
	for _, name := range []string{"agent.db-wal", "agent.db-shm"} {
		err := os.Remove(filepath.Join(state, name))
		require.True(t, err == nil || os.IsNotExist(err), "%v", err)
	}
	require.NoError(t, os.WriteFile(filepath.Join(state, "agent.db"), []byte(strings.Repeat("not a database ", 1000)), 0o600))
	require.NoError(t, os.Chmod(state, 0o777))
	h.Start()
	info, err := os.Stat(state)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm(), "what a hand opened is closed")
	h.Await(soon, "one", "is known again", func(st *report.Status) bool { return st.Phase == report.Ready && st.Applied == commit })
	require.Equal(t, before, s.running())
	aside, err := filepath.Glob(filepath.Join(state, "agent.db.corrupt-*"))
	require.NoError(t, err)
	require.NotEmpty(t, aside)
	require.Contains(t, h.Log(), "kept aside")
}

// TestAFullDiskStopsNothing: a clear condition, and it goes on by itself once there is room.
func TestAFullDiskStopsNothing(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	require.NoError(t, unix.Mount("tmpfs", folder, "tmpfs", 0, "size=8m,mode=0700"))
	t.Cleanup(func() { require.NoError(t, unix.Unmount(folder, unix.MNT_DETACH)) })
	s := newSmall(t)
	h, good := s.ready(agenttest.HostOptions{StateDir: filepath.Join(folder, "state")})
	before := s.running()
	testbed.Eventually(t, soon, "what was applied is recorded, and told therefore", func() error {
		if !strings.Contains(h.Log(), "the instance is Ready") {
			return errNotYet
		}
		return nil
	})
	disk.Fill(t, filepath.Join(folder, "filler"))
	s.Merge("A change that finds no room", s.files("label: second"))
	testbed.Eventually(t, soon, "the log says that the disk is full", func() error {
		if !strings.Contains(h.Log(), "no space left") {
			return errNotYet
		}
		return nil
	})
	testbed.Eventually(t, soon, "the status says so", func() error {
		if !strings.Contains(h.Do("status"), "no space left") {
			return errNotYet
		}
		return nil
	})
	require.Equal(t, before, s.running(), "something was changed that could not be recorded")
	status, err := h.Status("one")
	require.NoError(t, err)
	require.Equal(t, good, status.Applied)
	require.NoError(t, os.Remove(filepath.Join(folder, "filler")))
	next := s.Merge("Another one", s.files("label: third"))
	h.AwaitPhase(2*soon, "one", report.Ready, next)
}

// TestTheEngineGoesAndComesBack: a clear condition, and it goes on by itself.
func TestTheEngineGoesAndComesBack(t *testing.T) {
	t.Parallel()
	s := newSmall(t)
	private := s.ownEngine(testbed.Redis7)
	h, _ := s.ready(agenttest.HostOptions{Engine: private.Host()})
	private.Kill()
	status := h.Await(soon, "one", "misses the engine", func(st *report.Status) bool { return st.Phase == report.Degraded })
	require.Contains(t, why(status), "engine")
	private.StartKeeping()
	h.AwaitPhase(2*soon, "one", report.Ready, "")
	require.Len(t, s.running(), 2)
}

// TestALostSecretIsNeverMadeAgain, neither while its record remembers it nor beside a volume without any record.
func TestALostSecretIsNeverMadeAgain(t *testing.T) {
	t.Parallel()
	s := newSmall(t)
	h, _ := s.ready(agenttest.HostOptions{})
	before := s.running()
	value := valueOf(h, "PASSWORD")
	content, err := os.ReadFile(value)
	require.NoError(t, err)
	require.NoError(t, os.Remove(value))
	status := h.AwaitPhase(soon, "one", report.Blocked, "")
	require.Contains(t, why(status), "PASSWORD")
	h.Stop()
	require.NoError(t, os.RemoveAll(secretsOf(h)))
	h.Start()
	status = h.AwaitPhase(soon, "one", report.Blocked, "")
	require.Contains(t, why(status), s.project+"_data", "the volume that remembers it is named")
	require.Equal(t, before, s.running())
	require.NoFileExists(t, value)

	require.NoError(t, os.MkdirAll(filepath.Dir(value), 0o700))
	require.NoError(t, os.WriteFile(value, content, 0o600))
	h.AwaitPhase(soon, "one", report.Ready, "")
	require.Equal(t, before, s.running(), "the secret that was put back fits what runs")
}

// TestSuspendSurvivesARestart and resume goes on.
func TestSuspendSurvivesARestart(t *testing.T) {
	t.Parallel()
	s := newSmall(t)
	h, _ := s.ready(agenttest.HostOptions{})
	before := s.running()
	h.Do("suspend", "one", "--reason", "maintenance of the rack")
	status := h.AwaitPhase(soon, "one", report.Suspended, "")
	require.Contains(t, why(status), "maintenance of the rack")
	commit := s.Merge("A change meanwhile", s.files("label: second"))
	h.Stop()
	h.Start()
	h.Do("sync", "one")
	h.AwaitPhase(soon, "one", report.Suspended, "")
	require.Equal(t, before, s.running())
	h.Do("resume", "one")
	h.AwaitPhase(soon, "one", report.Ready, commit)
	require.NotEqual(t, before["front"], s.running()["front"])
}

// TestTwoAgentsOnOneStateFolder: the second one is refused and says who holds it.
func TestTwoAgentsOnOneStateFolder(t *testing.T) {
	t.Parallel()
	s := newSmall(t)
	h, _ := s.ready(agenttest.HostOptions{})
	_, err := h.Try("once")
	require.ErrorContains(t, err, "state folder")
	h.AwaitPhase(soon, "one", report.Ready, "")
}

// TestTwoAgentsAtOneSocket: the second one does not take it from the first.
func TestTwoAgentsAtOneSocket(t *testing.T) {
	t.Parallel()
	s := newSmall(t)
	s.Merge("Begin", s.files(""))
	first, second := agenttest.NewHost(t, s.Fleet, agenttest.HostOptions{}), agenttest.NewHost(t, s.Fleet, agenttest.HostOptions{})
	first.Start()
	config, err := os.ReadFile(second.Config())
	require.NoError(t, err)
	config = bytes.Replace(config, []byte("agent.sock"), []byte(filepath.Join(first.Dir, "agent.sock")), 1)
	require.NoError(t, os.WriteFile(second.Config(), config, 0o600))
	second.Launch()
	select {
	case <-second.Ended():
	case <-time.After(soon):
		t.Fatal("the second agent runs")
	}
	require.Contains(t, second.Log(), "another agent answers at")
	first.Do("status")
}

// TestOnceDrains: a signal lets it finish what has begun, as the service does.
func TestOnceDrains(t *testing.T) {
	t.Parallel()
	s := newSmall(t)
	s.Merge("Begin", s.files(""))
	h := agenttest.NewHost(t, s.Fleet, agenttest.HostOptions{})
	once := exec.CommandContext(t.Context(), h.Binary, "once", "--config", h.Config())
	var said bytes.Buffer
	once.Stderr = &said
	require.NoError(t, once.Start())
	testbed.Eventually(t, soon, "the first service is being made", func() error {
		if s.running()["store"] == "" {
			return errNotYet
		}
		return nil
	})
	require.NoError(t, once.Process.Signal(syscall.SIGTERM))
	var exit *exec.ExitError
	require.ErrorAs(t, once.Wait(), &exit)
	require.Equal(t, 1, exit.ExitCode(), said.String())
	require.Contains(t, said.String(), "what has begun is finished")
	h.Start()
	for _, run := range h.AwaitPhase(soon, "one", report.Ready, "").Runs {
		require.NotEqual(t, "crashed", run.Outcome)
	}
}

// TestASignalDrains: what has begun is finished, and the process ends with 0.
func TestASignalDrains(t *testing.T) {
	t.Parallel()
	s := newSmall(t)
	s.Merge("Begin", s.files(""))
	h := agenttest.NewHost(t, s.Fleet, agenttest.HostOptions{})
	h.Start()
	testbed.Eventually(t, soon, "the first service is being made", func() error {
		if s.running()["store"] == "" {
			return errNotYet
		}
		return nil
	})
	begun := time.Now()
	h.Stop()
	require.Less(t, time.Since(begun), 30*time.Second)
	require.Contains(t, h.Log(), `"msg":"stopped"`)
	h.Start()
	status := h.AwaitPhase(soon, "one", report.Ready, "")
	for _, run := range status.Runs {
		require.NotEqual(t, "crashed", run.Outcome)
	}
}

// TestOnceIsTheSamePass and ends with 0; a second one changes nothing.
func TestOnceIsTheSamePass(t *testing.T) {
	t.Parallel()
	s := newSmall(t)
	s.Merge("Begin", s.files(""))
	h := agenttest.NewHost(t, s.Fleet, agenttest.HostOptions{})
	out := h.Do("once")
	require.Contains(t, out, "Ready")
	before := s.running()
	require.Len(t, before, 2)
	h.Do("once")
	require.Equal(t, before, s.running())
	subject, err := s.Repo.Git("log", "-1", "--format=%s", "status/one")
	require.NoError(t, err)
	require.Contains(t, subject, "one: Ready")
}
