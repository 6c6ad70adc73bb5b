package testbed

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestFirewallUndo(t *testing.T) {
	listing := `-P INPUT ACCEPT
-P FORWARD DROP
-N DOCKER
-N DOCKER-ISOLATION-STAGE-1
-N MINE
-A INPUT -s 192.0.2.1/32 -j MINE
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -i br-0123456789ab -o br-0123456789ab -j ACCEPT
-A FORWARD -i br-lan -j ACCEPT
-A DOCKER -d 10.213.0.2/32 -p tcp -j ACCEPT
-A POSTROUTING -s 10.213.4.0/24 ! -o br-aaaaaaaaaaaa -j MASQUERADE
`
	var got []string
	for _, args := range firewallUndo(listing) {
		got = append(got, strings.Join(args, " "))
	}
	assert.Equal(t, []string{
		"-D FORWARD -j DOCKER-ISOLATION-STAGE-1",
		"-D FORWARD -i br-0123456789ab -o br-0123456789ab -j ACCEPT",
		"-D POSTROUTING -s 10.213.4.0/24 ! -o br-aaaaaaaaaaaa -j MASQUERADE",
		"-F DOCKER", "-F DOCKER-ISOLATION-STAGE-1",
		"-X DOCKER", "-X DOCKER-ISOLATION-STAGE-1",
	}, got)
}

func TestCachedAppearsWholeOrNotAtAll(t *testing.T) {
	t.Setenv("TESTBED_CACHE", t.TempDir())
	half := errors.New("the network went away")
	_, err := cached(t.Context(), "thing", func(_ context.Context, path string) error {
		require.NoError(t, os.WriteFile(path, []byte("ha"), 0o600))
		return half
	})
	require.ErrorIs(t, err, half)
	assert.NoFileExists(t, filepath.Join(CacheDir(), "thing"))
	assert.NoFileExists(t, filepath.Join(CacheDir(), "thing.part"))

	// A run that was killed leaves its part behind.
	require.NoError(t, os.WriteFile(filepath.Join(CacheDir(), "thing.part"), []byte("old"), 0o600))
	made := 0
	for range 2 {
		path, err := cached(t.Context(), "thing", func(_ context.Context, path string) error {
			made++
			return os.WriteFile(path, []byte("whole"), 0o600)
		})
		require.NoError(t, err)
		raw, err := os.ReadFile(path)
		require.NoError(t, err)
		assert.Equal(t, "whole", string(raw))
	}
	assert.Equal(t, 1, made)
}

func TestLockFileHasOneHolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := lockFile(t.Context(), path)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
	defer cancel()
	_, err = lockFile(ctx, path)
	require.ErrorContains(t, err, "another process holds")
	unlock()
	unlock, err = lockFile(t.Context(), path)
	require.NoError(t, err)
	unlock()
}

func TestCommandTellsWhatItSaidAndEndsItsGroup(t *testing.T) {
	_, err := command{name: "sh", args: []string{"-c", "echo first; echo last words; exit 3"}}.run(t.Context())
	require.ErrorContains(t, err, "last words")
	require.ErrorContains(t, err, "exit status 3")

	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	mark := filepath.Join(t.TempDir(), "pid")
	_, err = command{name: "sh", args: []string{"-c", "sleep 60 & echo $! > " + mark + "; wait"}}.run(ctx)
	require.Error(t, err)
	raw, err := os.ReadFile(mark)
	require.NoError(t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	require.NoError(t, err)
	Eventually(t, 5*time.Second, "the child of an ended command", func() error {
		if alive(pid) {
			return errors.New("runs")
		}
		return nil
	})
}

func TestStopProcessEndsWhatIgnoresTheSignal(t *testing.T) {
	ready := filepath.Join(t.TempDir(), "ready")
	cmd := exec.CommandContext(t.Context(), "sh", "-c", "trap '' TERM; touch "+ready+"; while :; do sleep 1; done")
	endGroup(cmd)
	require.NoError(t, cmd.Start())
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() { _ = cmd.Cancel(); <-ended })
	Eventually(t, 5*time.Second, "the deaf process", func() error { _, err := os.Stat(ready); return err })
	pid := cmd.Process.Pid
	assert.True(t, alive(pid))
	assert.True(t, stopProcess(pid, 300*time.Millisecond))
	assert.False(t, alive(pid))
	assert.True(t, stopProcess(pid, time.Millisecond), "gone is gone")
}

func TestEngineAnswers(t *testing.T) {
	cli := Engine(t)
	v, err := cli.ServerVersion(t.Context(), client.ServerVersionOptions{})
	require.NoError(t, err)
	assert.NotEmpty(t, v.Version)
	assert.Equal(t, Host(t), RunningEngine(t.Context()))
}

func TestEngineStartsAfterItWasKilled(t *testing.T) {
	p := NewPrivateEngine(t)
	p.Load(Services) // the smallest
	cli := p.Client()
	network, err := cli.NetworkCreate(t.Context(), "left", client.NetworkCreateOptions{})
	require.NoError(t, err)
	made, err := cli.ContainerCreate(t.Context(), client.ContainerCreateOptions{
		Name:       "left",
		Image:      string(Services),
		Config:     &container.Config{Cmd: []string{"frontend"}, Env: []string{"BACKEND_URL=http://127.0.0.1:1"}},
		HostConfig: &container.HostConfig{NetworkMode: "left", RestartPolicy: container.RestartPolicy{Name: "always"}},
	})
	require.NoError(t, err)
	_, err = cli.ContainerStart(t.Context(), made.ID, client.ContainerStartOptions{})
	require.NoError(t, err)
	bridge := "br-" + network.ID[:12]
	require.FileExists(t, "/sys/class/net/"+bridge)

	p.Kill()
	require.FileExists(t, p.engine.pidFile(), "the daemon had no time to clear it")
	require.NotEmpty(t, processes(func(q process) bool { return q.mentions(p.engine.exec()) }), "its shim stays behind")
	p.Start()

	list, err := cli.ContainerList(t.Context(), client.ContainerListOptions{All: true})
	require.NoError(t, err)
	assert.Empty(t, list.Items)
	assert.NoFileExists(t, "/sys/class/net/"+bridge)
	_, err = cli.ImageInspect(t.Context(), string(Services))
	assert.NoError(t, err, "images stay")
}

func TestEngineThrowsAwayDataItCannotStartWith(t *testing.T) {
	p := NewPrivateEngine(t)
	p.Stop()
	broken := filepath.Join(p.engine.data, "volumes", "metadata.db")
	require.NoError(t, os.WriteFile(broken, []byte(strings.Repeat("no database ", 4096)), 0o600))
	p.Start()
	assert.NoError(t, answers(t.Context(), p.Host()))
}
