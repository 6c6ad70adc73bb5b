package e2e

import (
	"encoding/pem"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/stretchr/testify/require"

	"dive-agent/report"
	"dive-agent/secrets"
	"dive-agent/testbed"
	"dive-agent/testbed/agenttest"
	"dive-agent/testbed/secretserver"
)

// sourcesBlueprint has one service for each source, and one that uses no secret.
const sourcesBlueprint = `apiVersion: dive/v1alpha1
kind: Blueprint
metadata: {name: small}
spec:
  role: spoke
  values: {project: {required: true}}
  secrets:
    FROM_SOPS: {sops: {file: secrets.enc.yaml, key: app.password}}
    FROM_VAULT: {vault: {path: dive/one}, interval: 10s}
    FROM_GCP: {gcp: {project: dive, secret: app}, interval: 10s}
    FROM_FILE: {hostFile: {path: %s}, file: {path: from-file}}
    FROM_ENV: {hostEnv: {name: E2E_TOKEN}}
  components:
    stack:
      kind: ComposeStack
      project: ${project}
      environment: {FROM_SOPS: "${FROM_SOPS}", FROM_VAULT: "${FROM_VAULT}", FROM_GCP: "${FROM_GCP}", FROM_FILE: "${FROM_FILE}", FROM_ENV: "${FROM_ENV}"}
`

// TestSecretsFromElsewhere goes through all sources with the real engine: each consumer and only it follows a new value, the last one stays
// in use while a source fails, over a restart too, and no value is told anywhere.
func TestSecretsFromElsewhere(t *testing.T) {
	t.Parallel()
	s := newSmall(t)
	dir := t.TempDir()
	vault := secretserver.NewVault("token-of-the-agent", "", "")
	vault.Put("secret", "dive/one", map[string]any{"FROM_VAULT": "first-vault-value"})
	google, err := secretserver.NewSecretManager(time.Now)
	require.NoError(t, err)
	google.Add("dive", "app", "first-google-value")
	servers := [2]*httptest.Server{httptest.NewTLSServer(vault), httptest.NewTLSServer(google)}
	for _, server := range servers {
		t.Cleanup(server.Close)
	}
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	key, err := google.KeyFile(servers[1].URL)
	require.NoError(t, err)
	identity, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	ca := write("ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: servers[0].Certificate().Raw})))
	license := write("license", "first-file-value\n")
	config := fmt.Sprintf("secrets:\n  sops: {ageKeyFiles: [%s]}\n  files: [%s]\n  env: [E2E_TOKEN]\n  vault: {address: %q, caFile: %s, tokenFile: %s}\n  gcp: {endpoint: %q, caFile: %[4]s, credentialsFile: %[7]s}\n",
		write("age.key", identity.String()+"\n"), license, servers[0].URL, ca, write("token", "token-of-the-agent"), servers[1].URL, write("key.json", string(key)))

	files := s.files("")
	files["blueprints/small/blueprint.yaml"] = fmt.Sprintf(sourcesBlueprint, license)
	image := testbed.Image(t, testbed.Redis7)
	compose := "services:\n"
	for _, name := range []string{"sops", "vault", "gcp", "file", "env", "none"} {
		compose += "  " + name + ":\n    image: " + image + "\n    stop_grace_period: 1s\n"
		if name != "none" {
			compose += "    environment: {SECRET: \"${FROM_" + strings.ToUpper(name) + "}\"}\n"
		}
	}
	files["blueprints/small/compose.yaml"] = compose
	encrypted := func(value, recipient string) string {
		path := write("secrets.enc.yaml", "# of the app\napp: {password: "+value+"}\n")
		out, err := exec.Command(testbed.SOPS(t), "encrypt", "--in-place", "--age", recipient, path).CombinedOutput()
		require.NoError(t, err, string(out))
		return read(t, path)
	}
	files["blueprints/small/secrets.enc.yaml"] = encrypted("first-sops-value", identity.Recipient().String())
	commit := s.Merge("Begin", files)
	h := agenttest.NewHost(t, s.Fleet, agenttest.HostOptions{More: config})
	h.Env = append(h.Env, "E2E_TOKEN=first-env-value")
	h.Start()
	h.AwaitPhase(soon, "one", report.Ready, commit)
	told := []string{"token-of-the-agent"}
	holds := func(service, value string) {
		t.Helper()
		_, have := s.environment(t.Context(), service, "SECRET")
		require.Equal(t, value, have, service)
		told = append(told, value)
	}
	for service, value := range map[string]string{"sops": "first-sops-value", "vault": "first-vault-value", "gcp": "first-google-value", "file": "first-file-value", "env": "first-env-value"} {
		holds(service, value)
	}
	require.Equal(t, "first-file-value", read(t, filepath.Join(secretsOf(h), "from-file")))

	// follows has a source get another value, and only its consumer follow.
	follows := func(service, value string, change func()) {
		t.Helper()
		before := s.running()
		change()
		h.Await(soon, "one", service+" follows", func(st *report.Status) bool {
			_, have := s.environment(t.Context(), service, "SECRET")
			return have == value && st.Phase == report.Ready
		})
		after := s.running()
		require.NotEqual(t, before[service], after[service])
		delete(before, service)
		delete(after, service)
		require.Equal(t, before, after, "what does not use it is not touched")
		told = append(told, value)
	}
	follows("vault", "second-vault-value", func() { vault.Put("secret", "dive/one", map[string]any{"FROM_VAULT": "second-vault-value"}) })
	follows("gcp", "second-google-value", func() { google.Add("dive", "app", "second-google-value") })
	follows("file", "second-file-value", func() { write("license", "second-file-value\n"); h.Do("sync", "one") })
	follows("sops", "second-sops-value", func() {
		commit = s.Merge("Another password", map[string]string{"blueprints/small/secrets.enc.yaml": encrypted("second-sops-value", identity.Recipient().String())})
	})
	require.Contains(t, h.Do("secrets", "list", "one"), "generation 2")

	// Each source fails in its way; all keeps running with the last values, over a restart of the agent too.
	before := s.running()
	other, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	vault.Seal(true)
	google.Deny(true)
	require.NoError(t, os.Remove(license))
	commit = s.Merge("A password for another host", map[string]string{"blueprints/small/secrets.enc.yaml": encrypted("third-sops-value", other.Recipient().String())})
	failing := func(st *report.Status) bool {
		text := why(st)
		for _, say := range []string{"Vault is sealed", "PERMISSION_DENIED", "no such file", other.Recipient().String()} {
			if !strings.Contains(text, say) {
				return false
			}
		}
		return st.Phase == report.Ready && st.Applied == commit
	}
	since := func(st *report.Status) time.Time {
		for _, c := range st.Conditions {
			if c.Type == "SecretsFollowed" {
				return c.Since
			}
		}
		return time.Time{}
	}
	first := since(h.Await(soon, "one", "all sources fail", failing))
	require.False(t, first.IsZero())
	h.Kill()
	h.Start()
	require.Equal(t, first, since(h.Await(soon, "one", "all sources fail still", failing)))
	require.Equal(t, before, s.running())
	vault.Seal(false)
	google.Deny(false)
	write("license", "second-file-value\n")
	s.Merge("Back", map[string]string{"blueprints/small/secrets.enc.yaml": encrypted("second-sops-value", identity.Recipient().String())})
	h.Do("sync", "one")
	h.Await(soon, "one", "all sources are well", func(st *report.Status) bool { return st.Phase == report.Ready && since(st).IsZero() })
	require.Equal(t, before, s.running(), "the same values touch nothing")

	status, err := h.Try("status", "one", "-o", "json")
	require.NoError(t, err)
	for _, value := range append(told, "third-sops-value", identity.String()) {
		for place, text := range map[string]string{"log": h.Log(), "status": status, "list": h.Do("secrets", "list", "one"), "plan": h.Do("plan"), "history": h.Do("history", "one")} {
			require.NotContains(t, text, value, place)
		}
	}
}

// TestASecretIsRotatedInItsTime: with its schedule over, the service that uses it is made anew with another value, and no other one;
// a store that an agent before kept plain is encrypted meanwhile, and loses nothing.
func TestASecretIsRotatedInItsTime(t *testing.T) {
	t.Parallel()
	s := newSmall(t)
	files := edited(t, s.files(""), "blueprints/small/blueprint.yaml",
		"    PASSWORD: {generate: {length: 24}}\n", "    PASSWORD: {generate: {length: 24}}\n    TOKEN: {generate: {kind: token}, rotate: {schedule: \"* * * * *\"}}\n",
		"        PASSWORD: ${PASSWORD}\n", "        PASSWORD: ${PASSWORD}\n        TOKEN: ${TOKEN}\n")
	files = edited(t, files, "blueprints/small/compose.yaml", "{LABEL: \"${LABEL}\"}", "{LABEL: \"${LABEL}\", TOKEN: \"${TOKEN}\"}")
	commit := s.Merge("Begin", files)
	h := agenttest.NewHost(t, s.Fleet, agenttest.HostOptions{})
	plain := storeOf(h, time.Now)
	plain.Keys = nil
	require.NoError(t, os.MkdirAll(plain.Dir, 0o700))
	store, err := secrets.Open(plain)
	require.NoError(t, err)
	require.NoError(t, store.Set(t.Context(), "PASSWORD", []byte("kept-by-an-agent-before")))
	h.Start()
	h.AwaitPhase(soon, "one", report.Ready, commit)
	require.NotContains(t, read(t, valueOf(h, "PASSWORD")), "kept-by-an-agent-before")
	_, password := s.environment(t.Context(), "store", "REDISCLI_AUTH")
	require.Equal(t, "kept-by-an-agent-before", password)

	before := s.running()
	_, token := s.environment(t.Context(), "front", "TOKEN")
	h.Await(2*soon, "one", "has another token", func(st *report.Status) bool {
		_, now := s.environment(t.Context(), "front", "TOKEN")
		return now != "" && now != token && st.Phase == report.Ready
	})
	require.Equal(t, before["store"], s.running()["store"], "what does not use it is not touched")
	require.NotContains(t, h.Log(), token)
	require.Contains(t, h.Do("secrets", "list", "one"), "TOKEN")
}
