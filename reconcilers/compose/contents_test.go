package compose

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/reconcilers"
)

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
