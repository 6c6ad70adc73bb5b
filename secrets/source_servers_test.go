package secrets_test

import (
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/secrets"
	"dive-agent/testbed/secretserver"
)

// serve runs a handler over TLS and gives its address and the file with its authority.
func (h *host) serve(handler http.Handler) (server *httptest.Server, ca string) {
	server = httptest.NewTLSServer(handler)
	h.Cleanup(server.Close)
	return server, h.write("ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
}

func vault(name, path, key string) desired.SecretSpec {
	return sourced(name, desired.SecretSource{Kind: desired.VaultSource, Mount: "secret", Path: path, Key: key, Interval: time.Minute})
}

// step is something that happens to a source, and what has to be told of it.
type step struct {
	what string
	do   func()
	say  string // empty: all is well
	way  string
}

// goThrough has each step happen after a good look, and holds that the last value stays in use, and that it heals.
func (h *host) goThrough(spec desired.SecretSpec, value string, heal func(), steps []step) {
	for n, s := range steps {
		s.do()
		h.clock = h.clock.Add(time.Hour)
		found, err := h.look(spec)
		require.NoError(h, err, s.what)
		require.Equal(h, value, found.Values[spec.Name].Text(), s.what)
		require.Len(h, found.Troubles, 1, s.what)
		require.Equal(h, h.clock, found.Troubles[0].Since, s.what)
		require.Contains(h, found.Troubles[0].Why, s.say, s.what)
		require.Contains(h, found.Troubles[0].Do, s.way, s.what)
		h.hidden(fmt.Sprint(found.Troubles), value, "token-of-the-agent", "secret-id-of-the-agent", "session-token", "access-token")
		since := h.clock
		h.clock = h.clock.Add(10 * time.Second) // not due: nothing is asked, and it is told still
		found, err = h.look(spec)
		require.NoError(h, err, s.what)
		require.Equal(h, since, found.Troubles[0].Since, s.what)
		heal()
		h.clock = h.clock.Add(time.Hour)
		found, err = h.look(spec)
		require.NoError(h, err, s.what)
		require.Empty(h, found.Troubles, "%s, %d", s.what, n)
		require.Empty(h, found.Renewed, s.what)
	}
}

func TestSecretsOfVault(t *testing.T) {
	for _, role := range []bool{false, true} {
		t.Run(map[bool]string{false: "token", true: "AppRole"}[role], func(t *testing.T) {
			h := newHost(t)
			v := secretserver.NewVault("token-of-the-agent", "role", "secret-id-of-the-agent")
			v.Namespace("dive/")
			server, ca := h.serve(v)
			h.options.Vault = secrets.VaultOptions{Address: server.URL, CAFile: ca, Namespace: "dive/", TokenFile: h.write("token", "token-of-the-agent\n")}
			credential := "token"
			if role {
				h.options.Vault.TokenFile, h.options.Vault.RoleID, credential = "", "role", "secret-id"
				h.options.Vault.SecretIDFile = h.write("secret-id", "secret-id-of-the-agent\n")
			}
			h.restart()
			good := h.options.Vault
			v.Put("secret", "dive/deu", map[string]any{"opal": "first-opal-value", "n": 1234567890123456789, "deep": map[string]any{"x": "y"}})
			specs := []desired.SecretSpec{vault("OPAL", "dive/deu", "opal"), vault("N", "dive/deu", "n")}
			found, err := h.look(specs...)
			require.NoError(t, err)
			require.Equal(t, "first-opal-value", found.Values["OPAL"].Text())
			require.Equal(t, "1234567890123456789", found.Values["N"].Text())
			_, reads := v.Asked()
			require.Equal(t, 1, reads, "one path is read once for all its values")
			require.Equal(t, "(secret)", h.redact.String(map[bool]string{false: "token-of-the-agent", true: "hvs.session-token-1"}[role]))

			_, err = h.look(vault("DEEP", "dive/deu", "deep"), vault("NO_KEY", "dive/deu", "none"), vault("NO_PATH", "dive/none", "x"))
			for _, say := range []string{`key "deep" is a map`, `no key "none"`, "there is nothing: status 404"} {
				require.ErrorContains(t, err, say, "all at once")
			}

			v.Put("secret", "dive/deu", map[string]any{"opal": "second-opal-value", "n": 1234567890123456789})
			found, err = h.look(specs...)
			require.NoError(t, err)
			require.Empty(t, found.Renewed, "it is not due")
			h.clock = h.clock.Add(time.Minute)
			found, err = h.look(specs...)
			require.NoError(t, err)
			require.Equal(t, []string{"OPAL"}, found.Renewed)
			old := vault("OLD", "dive/deu", "opal")
			old.Source.Version = "1"
			found, err = h.look(old)
			require.NoError(t, err)
			require.Equal(t, "first-opal-value", found.Values["OLD"].Text())

			heal := func() {
				v.Seal(false)
				v.Deny(false)
				h.sources.Vault = good
				h.write("token", "token-of-the-agent")
				h.write("secret-id", "secret-id-of-the-agent")
			}
			steps := []step{
				{"sealed", func() { v.Seal(true) }, "Vault is sealed (status 503)", "vault operator unseal"},
				{"permission denied", func() { v.Deny(true) }, "permission denied", "right to read secret/dive/deu"},
				{"wrong authority", func() { h.sources.Vault.CAFile = "" }, "certificate", ""},
				{"not Vault", func() { h.sources.Vault.Address = h.other("<html>") }, "not JSON", ""},
				{"sent on", func() { h.sources.Vault.Address = h.elsewhere() }, "sends on to http://other.example.org, which is not followed", ""},
				{"nobody there", func() { h.sources.Vault.Address = "https://" + h.closed() }, "cannot be reached: connect: connection refused", ""},
				{"another namespace", func() { h.sources.Vault.Namespace = "" }, map[bool]string{false: "permission denied", true: "permission denied"}[role], ""},
				{"the credential is gone", func() { require.NoError(t, os.Remove(filepath.Join(h.files, credential))); h.forget(role, v) }, "no such file", "into "},
				{"deleted at the source", func() {
					v.Put("secret", "dive/deu", map[string]any{"opal": "x"})
					v.Delete("secret", "dive/deu", false)
				}, "it was deleted at 2", "undelete"},
			}
			put := func() {
				heal()
				v.Put("secret", "dive/deu", map[string]any{"opal": "second-opal-value"})
			}
			h.goThrough(specs[0], "second-opal-value", put, steps)
			if role {
				logins, _ := v.Asked()
				v.Revoke()
				h.clock = h.clock.Add(time.Minute)
				found, err = h.look(specs[0])
				require.NoError(t, err)
				require.Empty(t, found.Troubles, "a session that was revoked is begun anew")
				again, _ := v.Asked()
				require.Equal(t, logins+1, again)
				h.write("secret-id", "another-secret-id-of-nobody")
				v.Revoke()
				h.clock = h.clock.Add(time.Minute)
				found, err = h.look(specs[0])
				require.NoError(t, err)
				require.Contains(t, found.Troubles[0].Why, "invalid role or secret ID (status 400)")
			}
		})
	}
}

// forget has a session that is held end.
func (h *host) forget(role bool, v *secretserver.Vault) {
	if role {
		v.Revoke()
	}
}

// other is a server that is no server of secrets.
func (h *host) other(text string) string {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(text)) }))
	h.Cleanup(server.Close)
	return server.URL
}

func (h *host) elsewhere() string {
	server := httptest.NewServer(http.RedirectHandler("http://other.example.org/v1/x", http.StatusTemporaryRedirect))
	h.Cleanup(server.Close)
	return server.URL
}

// closed is an address where nobody listens.
func (h *host) closed() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(h, err)
	require.NoError(h, l.Close())
	return l.Addr().String()
}

// TestAServerThatHangsIsAskedOnce: many secrets of it cost one time limit, and those of other sources come.
func TestAServerThatHangsIsAskedOnce(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	l, err := net.Listen("tcp", "127.0.0.1:0") // accepts, never answers
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	h.options.Vault = secrets.VaultOptions{Address: "http://" + l.Addr().String(), TokenFile: h.write("token", "token-of-the-agent")}
	h.restart()
	specs := []desired.SecretSpec{hostFile("FILE", h.write("allowed/x", "value-of-a-file"))}
	for n := range 20 {
		specs = append(specs, vault(fmt.Sprintf("V%d", n), fmt.Sprintf("dive/%d", n), "x"))
	}
	begin := time.Now()
	_, err = h.look(specs...)
	require.ErrorContains(t, err, "it does not answer in time")
	require.Equal(t, 20, strings.Count(err.Error(), "secret V"), "each is named")
	require.Less(t, time.Since(begin), 12*time.Second)
}

func TestSecretsOfSecretManager(t *testing.T) {
	for _, machine := range []bool{false, true} {
		t.Run(map[bool]string{false: "key file", true: "account of the machine"}[machine], func(t *testing.T) {
			h := newHost(t)
			g, err := secretserver.NewSecretManager(func() time.Time { return h.clock })
			require.NoError(t, err)
			server, ca := h.serve(g)
			key, err := g.KeyFile(server.URL)
			require.NoError(t, err)
			h.options.GCP = secrets.GCPOptions{Use: true, Endpoint: server.URL, CAFile: ca, CredentialsFile: h.write("key.json", string(key))}
			if machine {
				plain := httptest.NewServer(g)
				t.Cleanup(plain.Close)
				h.options.GCP.CredentialsFile, h.options.GCP.MetadataHost = "", strings.TrimPrefix(plain.URL, "http://")
			}
			h.restart()
			good := h.options.GCP
			spec := sourced("OPAL", desired.SecretSource{Kind: desired.GCPSource, Project: "dive", Key: "opal", Version: "latest", Interval: time.Minute})
			_, err = h.look(spec)
			require.ErrorContains(t, err, "NOT_FOUND: Secret [projects/dive/secrets/opal] not found or has no versions. (status 404)")
			g.Add("dive", "opal", "first-opal-value")
			h.clock = h.clock.Add(time.Minute)
			found, err := h.look(spec)
			require.NoError(t, err)
			require.Equal(t, "first-opal-value", found.Values["OPAL"].Text())
			g.Add("dive", "opal", "second-opal-value")
			h.clock = h.clock.Add(time.Minute)
			found, err = h.look(spec)
			require.NoError(t, err)
			require.Equal(t, []string{"OPAL"}, found.Renewed)
			tokens, _ := g.Asked()
			require.Equal(t, 1, tokens, "an access token is used until its end")
			require.Equal(t, "(secret)", h.redact.String("ya29.access-token-1"))
			first := *spec.Source
			first.Version = "1"
			found, err = h.look(sourced("FIRST", first))
			require.NoError(t, err)
			require.Equal(t, "first-opal-value", found.Values["FIRST"].Text())

			heal := func() {
				g.Deny(false)
				g.Garble(false)
				g.Delete("dive", "opal")
				g.Add("dive", "opal", "second-opal-value")
				h.sources.GCP = good
			}
			h.goThrough(spec, "second-opal-value", heal, []step{
				{"permission denied", func() { g.Deny(true) }, "PERMISSION_DENIED", "roles/secretmanager.secretAccessor"},
				{"disabled", func() { g.Disable("dive", "opal", true) }, "is in DISABLED state", "enable it"},
				{"deleted at the source", func() { g.Delete("dive", "opal") }, "NOT_FOUND", "gcloud secrets versions add"},
				{"changed on the way", func() { g.Garble(true) }, "its checksum does not fit", ""},
				{"nobody there", func() { h.sources.GCP.Endpoint = "https://" + h.closed() }, "cannot be reached", ""},
			})
			g.Revoke()
			h.clock = h.clock.Add(time.Minute)
			_, err = h.look(spec)
			require.NoError(t, err)
			h.clock = h.clock.Add(time.Minute)
			found, err = h.look(spec)
			require.NoError(t, err)
			require.Empty(t, found.Troubles, "another token is had")
			if !machine {
				h.write("key.json", strings.Replace(string(key), "agent@", "nobody@", 1))
				h.restart()
				found, err = h.look(spec)
				require.NoError(t, err)
				require.Contains(t, found.Troubles[0].Why, "invalid_grant")
				h.write("key.json", "{}")
				h.restart()
				found, err = h.look(spec)
				require.NoError(t, err)
				require.Contains(t, found.Troubles[0].Why, "no key of a service account")
			}
		})
	}
}

// TestCheckOfSources is what dive-agent doctor shows: what opens, and what keeps the rest from it; without any secret.
func TestCheckOfSources(t *testing.T) {
	h := newHost(t)
	require.Empty(t, h.sources.Check(t.Context()), "a host without sources has none to look at")
	v := secretserver.NewVault("", "role", "secret-id-of-the-agent")
	g, err := secretserver.NewSecretManager(func() time.Time { return h.clock })
	require.NoError(t, err)
	vaultServer, ca := h.serve(v)
	googleServer, _ := h.serve(g)
	key, err := g.KeyFile(googleServer.URL)
	require.NoError(t, err)
	identity, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	h.options.AgeKeyFiles = []string{h.write("age.key", identity.String())}
	h.options.Vault = secrets.VaultOptions{Address: vaultServer.URL, CAFile: ca, RoleID: "role", SecretIDFile: h.write("secret-id", "secret-id-of-the-agent")}
	h.options.GCP = secrets.GCPOptions{Use: true, Endpoint: googleServer.URL, CAFile: ca, CredentialsFile: h.write("key.json", string(key))}
	h.restart()
	checks := h.sources.Check(t.Context())
	require.Len(t, checks, 3)
	for _, c := range checks {
		require.Empty(t, c.Do, "%+v", c)
	}
	require.Contains(t, checks[0].Saw, identity.Recipient().String())
	h.write("age.key", "nothing")
	v.Seal(true)
	h.write("key.json", "{}")
	h.restart()
	for n, say := range []string{"it holds no age identity", "Vault is sealed", "no key of a service account"} {
		c := h.sources.Check(t.Context())[n]
		require.Contains(t, c.Saw, say)
		require.NotEmpty(t, c.Do, "%+v", c)
		h.hidden(c.Saw+c.Do, identity.String(), "secret-id-of-the-agent")
	}
}
