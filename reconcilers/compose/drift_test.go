package compose

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"

	"dive-agent/reconcilers"
)

const driftingStack = `
services:
  web:
    image: ${IMAGE}
    init: true
    command: [bash, -c, "${RUN}"]
    environment: {A: "1"}
    restart: unless-stopped
    networks: {default: {aliases: [www]}}
    healthcheck: {test: [CMD, "true"], interval: 300ms}
`

// Whatever is done to a container by hand is seen, said and undone.
func TestDrift(t *testing.T) {
	t.Parallel()
	w := newWorld(t, driftingStack)
	w.up("web")
	want := w.picture(t)
	name := w.project + "-web-1"
	cases := []struct {
		name   string
		do     func(t *testing.T, id string) error
		action reconcilers.Action
		reason string
	}{
		{"removed", func(t *testing.T, id string) error {
			_, err := w.engine.ContainerRemove(t.Context(), id, client.ContainerRemoveOptions{Force: true})
			return err
		}, reconcilers.Create, "image"},
		{"stopped", func(t *testing.T, id string) error {
			_, err := w.engine.ContainerStop(t.Context(), id, client.ContainerStopOptions{})
			return err
		}, reconcilers.Run, "start: stopped with exit code"},
		{"killed", func(t *testing.T, id string) error {
			_, err := w.engine.ContainerKill(t.Context(), id, client.ContainerKillOptions{Signal: "KILL"})
			return err
		}, reconcilers.Run, "start: stopped with exit code 137"},
		{"paused", func(t *testing.T, id string) error {
			_, err := w.engine.ContainerPause(t.Context(), id, client.ContainerPauseOptions{})
			return err
		}, reconcilers.Update, "unpause"},
		{"renamed", func(t *testing.T, id string) error {
			_, err := w.engine.ContainerRename(t.Context(), id, client.ContainerRenameOptions{NewName: w.project + "-other"})
			return err
		}, reconcilers.Update, "rename"},
		{"memory updated", func(t *testing.T, id string) error {
			_, err := w.engine.ContainerUpdate(t.Context(), id, client.ContainerUpdateOptions{
				Resources: &container.Resources{Memory: 64 << 20, MemorySwap: 128 << 20},
			})
			return err
		}, reconcilers.Replace, "changed by hand: Memory, MemorySwap"},
		{"restart policy updated", func(t *testing.T, id string) error {
			_, err := w.engine.ContainerUpdate(t.Context(), id, client.ContainerUpdateOptions{
				RestartPolicy: &container.RestartPolicy{Name: container.RestartPolicyAlways},
			})
			return err
		}, reconcilers.Replace, "changed by hand: RestartPolicy"},
		{"disconnected", func(t *testing.T, id string) error {
			_, err := w.engine.NetworkDisconnect(t.Context(), w.project+"_default", client.NetworkDisconnectOptions{Container: id})
			return err
		}, reconcilers.Replace, "not connected to network"},
		{"connected without aliases", func(t *testing.T, id string) error {
			if _, err := w.engine.NetworkDisconnect(t.Context(), w.project+"_default", client.NetworkDisconnectOptions{Container: id}); err != nil {
				return err
			}
			_, err := w.engine.NetworkConnect(t.Context(), w.project+"_default", client.NetworkConnectOptions{Container: id})
			return err
		}, reconcilers.Replace, "changed by hand: network"},
		{"replaced, same labels", func(t *testing.T, id string) error { return w.replaceByHand(t, id, "A=2") }, reconcilers.Replace, "replaced by hand with another Env"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			require.NoError(t, c.do(t, w.inspect("web").ID))
			change := w.change("web")
			require.Equal(t, c.action, change.Action)
			require.Contains(t, change.Reason, c.reason)
			require.False(t, change.Destroys)
			require.NoError(t, w.try("web"))
			w.inSync("web")
			require.Equal(t, want, w.picture(t))
		})
	}
	t.Run("replaced by an equal one", func(t *testing.T) {
		require.NoError(t, w.replaceByHand(t, w.inspect("web").ID, "A=1"))
		w.inSync("web")
	})
	t.Run("replaced, no labels", func(t *testing.T) {
		_, err := w.engine.ContainerRemove(t.Context(), w.inspect("web").ID, client.ContainerRemoveOptions{Force: true})
		require.NoError(t, err)
		made, err := w.engine.ContainerCreate(t.Context(), client.ContainerCreateOptions{Name: name, Config: &container.Config{Image: w.image}})
		require.NoError(t, err)
		defer func() {
			_, err := w.engine.ContainerRemove(t.Context(), made.ID, client.ContainerRemoveOptions{Force: true})
			require.NoError(t, err)
		}()
		o := w.observe("web")
		var blocked *reconcilers.BlockedError
		require.ErrorAs(t, o.Err, &blocked)
		require.Equal(t, "ContainerNameTaken", blocked.Reason)
		require.Empty(t, w.plan("web").Changes)
	})
}

// replaceByHand removes the container and runs one with the same labels and another environment.
func (w *world) replaceByHand(t *testing.T, id, env string) error {
	c, err := w.engine.ContainerInspect(t.Context(), id, client.ContainerInspectOptions{})
	require.NoError(t, err)
	_, err = w.engine.ContainerRemove(t.Context(), id, client.ContainerRemoveOptions{Force: true})
	require.NoError(t, err)
	config := *c.Container.Config
	config.Hostname = ""
	for i, pair := range config.Env {
		if pair == "A=1" {
			config.Env[i] = env
		}
	}
	name := w.project + "-web-1"
	made, err := w.engine.ContainerCreate(t.Context(), client.ContainerCreateOptions{
		Name: name, Config: &config, HostConfig: c.Container.HostConfig,
		NetworkingConfig: &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{
			w.project + "_default": {Aliases: []string{name, "web", "www"}},
		}},
	})
	require.NoError(t, err)
	_, err = w.engine.ContainerStart(t.Context(), made.ID, client.ContainerStartOptions{})
	require.NoError(t, err)
	// The health check of the new one must have spoken, so that it is in sync if it is equal.
	w.eventually("healthy", func() bool { return w.inspect("web").State.Health.Status == container.Healthy })
	return nil
}

// Contents of configs, secrets and bound files count, although Compose does not look at them.
func TestChangedContents(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `
services:
  web:
    image: ${IMAGE}
    init: true
    command: [bash, -c, "${RUN}"]
    env_file: [web.env]
    configs: [file, inline]
    secrets: [token]
    volumes: ["./conf:/conf:ro", "${SECRETS_DIR:-./secrets}/key:/key:ro", "./made:/made"]
    healthcheck: {test: [CMD, "true"], interval: 300ms}
configs:
  file: {file: ./app.conf}
  inline: {content: "text ${TEXT}"}
secrets:
  token: {environment: TOKEN}
`)
	key := filepath.Join(w.dirs, "secrets", "key")
	require.NoError(t, os.WriteFile(key, []byte("key 1"), 0o600))
	w.set("TEXT", "one")
	w.secrets["TOKEN"] = "token-one"
	w.spec.Environment["TOKEN"] = w.expr("${TOKEN}")
	w.write(map[string]string{"web.env": "FROM_FILE=1\nUSES=${TEXT}\n", "app.conf": "conf 1", "conf/nested/a": "a 1"})
	w.up("web")
	require.Contains(t, w.inspect("web").Config.Env, "USES=one")
	w.write(nil) // another snapshot with the same content changes nothing
	w.inSync("web")
	sees := func(want string, argv ...string) {
		t.Helper()
		out, code, err := w.r.Services(w.target("")).Exec(t.Context(), "web", argv, nil, nil)
		require.NoError(t, err)
		require.Zero(t, code, string(out))
		require.Equal(t, want, string(out))
	}
	sees("conf 1", "cat", "/file")
	sees("text one", "cat", "/inline")
	sees("token-one", "cat", "/run/secrets/token")
	cases := []struct {
		name, reason string
		do           func()
		want, path   string
	}{
		{"env file", "environment FROM_FILE changed", func() { w.write(map[string]string{"web.env": "FROM_FILE=2\nUSES=${TEXT}\n"}) }, "", ""},
		{"config file", "content of config file changed", func() { w.write(map[string]string{"app.conf": "conf 2"}) }, "conf 2", "/file"},
		{"inline config", "content of config inline changed; environment USES changed", func() { w.set("TEXT", "two") }, "text two", "/inline"},
		{"secret", "content of secret token changed", func() { w.secrets["TOKEN"] = "token-two" }, "token-two", "/run/secrets/token"},
		{"bound folder", "content of bind /conf changed", func() { w.write(map[string]string{"conf/nested/a": "a 2"}) }, "a 2", "/conf/nested/a"},
		{"secret file", "content of secret file key changed", func() { require.NoError(t, os.WriteFile(key, []byte("key 2"), 0o600)) }, "key 2", "/key"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			c.do()
			change := w.change("web")
			require.Equal(t, reconcilers.Replace, change.Action)
			for _, word := range []string{"token-one", "token-two", "key 2"} {
				require.NotContains(t, change.Reason, word)
			}
			require.Subset(t, append(change.Details, change.Reason), strings.Split(c.reason, "; "))
			require.NoError(t, w.try("web"))
			w.inSync("web")
			if c.path != "" {
				sees(c.want, "cat", c.path)
			}
		})
	}
	require.NoError(t, os.Remove(key))
	id := w.inspect("web").ID
	o := w.observe("web")
	var blocked *reconcilers.BlockedError
	require.ErrorAs(t, o.Err, &blocked)
	require.Equal(t, "SecretFileMissing", blocked.Reason)
	require.Empty(t, w.plan("web").Changes)
	w.set("TEXT", "three")
	require.ErrorAs(t, w.try("web"), &blocked)
	require.Equal(t, id, w.inspect("web").ID, "nothing is touched while a secret is missing")
}
