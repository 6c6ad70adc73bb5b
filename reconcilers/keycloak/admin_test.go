package keycloak

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

// administrator makes a person with role admin in realm master, so that a test can change that one's password.
func (b *bed) administrator(t *testing.T, name, password string) {
	t.Helper()
	status, _ := b.admin(t, http.MethodPost, "/master/users", map[string]any{
		"username": name, "enabled": true, "email": name + "@example.org", "firstName": "Some", "lastName": "One",
		"credentials": []any{map[string]any{"type": "password", "value": password, "temporary": false}},
	})
	require.Equal(t, http.StatusCreated, status)
	id := b.list(t, "/master/users?exact=true&username="+name)[0]["id"].(string)
	_, answer := b.admin(t, http.MethodGet, "/master/roles/admin", nil)
	var role map[string]any
	require.NoError(t, json.Unmarshal(answer, &role))
	status, _ = b.admin(t, http.MethodPost, "/master/users/"+id+"/role-mappings/realm", []any{role})
	require.Equal(t, http.StatusNoContent, status)
	t.Cleanup(func() {
		if s, err := newServer(b.url, ""); err == nil && s.login(context.Background(), "admin", adminPassword) == nil {
			_ = s.call(context.Background(), http.MethodDelete, nil, nil, nil, "realms", master, "users", id)
		}
	})
}

// tokens asks for tokens by a form, and gives the refresh token.
func (b *bed) tokens(t *testing.T, form url.Values) (status int, refresh string) {
	t.Helper()
	form.Set("client_id", "admin-cli")
	resp, err := http.PostForm(b.url+"/realms/master/protocol/openid-connect/token", form)
	require.NoError(t, err)
	defer resp.Body.Close()
	var answer struct {
		Refresh string `json:"refresh_token"`
	}
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&answer))
	return resp.StatusCode, answer.Refresh
}

func passwordForm(name, password string) url.Values {
	return url.Values{"grant_type": {"password"}, "username": {name}, "password": {password}}
}

// rotating is a world with an administrator of its own behind a front.
func rotating(t *testing.T, b *bed, password string) (*world, *front, string) {
	t.Helper()
	f := newFront(t, b)
	w := f.through(t, b, "")
	name := "adm-" + strings.ToLower(w.realm)
	b.administrator(t, name, password)
	w.spec.Variables[userVariable] = tree(t, name)
	w.set("ADMIN_PASSWORD", desired.Secret(password))
	return w, f, name
}

// replaced gives the world another password; former ones are known, newest first.
func (w *world) replaced(password string, former ...string) {
	w.replace("ADMIN_PASSWORD", password, former)
}

// replace gives a secret another value.
func (w *world) replace(name, value string, former []string) {
	var values []desired.Value
	for _, one := range former {
		values = append(values, desired.Secret(one))
	}
	w.set(name, desired.Secret(value))
	w.target.Scope = w.target.Scope.WithFormer(map[string][]desired.Value{name: values})
}

// refusals counts the sign-ins that the server refuses from now on.
func (f *front) refusals() *atomic.Int64 {
	var n atomic.Int64
	f.modify(func(resp *http.Response) {
		if strings.HasSuffix(resp.Request.URL.Path, "/openid-connect/token") && resp.StatusCode == http.StatusUnauthorized {
			n.Add(1)
		}
	})
	return &n
}

// A rotated password is set with the former one, without a wrong try; whoever was signed in is signed out; then Terraform plans
// with the new one.
func rotatedPassword(t *testing.T, b *bed) {
	const first, second = "first-Secret-11aa", "second-Secret-22bb"
	w, f, name := rotating(t, b, first)
	w.drive()
	observed, _ := w.look()
	require.Equal(t, []string{"ADMIN_PASSWORD"}, observed.Holds)
	status, session := b.tokens(t, passwordForm(name, first))
	require.Equal(t, http.StatusOK, status)

	refused, before := f.refusals(), w.plans()
	w.replaced(second, first)
	observed, plan := w.look()
	require.NoError(t, observed.Err)
	require.Empty(t, observed.Holds, "what uses it waits")
	require.Equal(t, []string{"update administrator " + name}, printOf(plan.Changes))
	require.Equal(t, before, w.plans(), "nothing is planned with a password that the server does not have")
	applied, err := w.reconciler().Apply(t.Context(), w.target, plan, &steps{})
	var wait *reconcilers.WaitError
	require.ErrorAs(t, err, &wait)
	require.Equal(t, []string{"ADMIN_PASSWORD"}, applied.Holds)
	require.Zero(t, refused.Load(), "the password that worked last is tried first")

	status, _ = b.tokens(t, passwordForm(name, second))
	require.Equal(t, http.StatusOK, status)
	status, _ = b.tokens(t, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {session}})
	require.Equal(t, http.StatusBadRequest, status, "the session of the former password is over")
	require.Empty(t, w.drive(), "the realm stays as it was")
	observed, _ = w.look()
	require.Equal(t, []string{"ADMIN_PASSWORD"}, observed.Holds)
	for _, secret := range []string{first, second} {
		require.NotContains(t, w.said.String(), secret)
		requireNoFileHolds(t, w.target.Dir, secret, "terraform.tfstate")
	}
}

func requireNoFileHolds(t *testing.T, folder, secret string, but ...string) {
	t.Helper()
	entries, err := os.ReadDir(folder)
	require.NoError(t, err)
	for _, entry := range entries {
		if entry.IsDir() || slices.Contains(but, entry.Name()) {
			continue
		}
		content, err := os.ReadFile(filepath.Join(folder, entry.Name()))
		require.NoError(t, err)
		require.False(t, bytes.Contains(content, []byte(secret)), entry.Name())
	}
}

// A rotation that is cut off before or after any of its requests is brought to its end, with no more than one wrong try.
func cutRotation(t *testing.T, b *bed) {
	passwords := []string{"zeroth-Secret-00zz"}
	w, f, name := rotating(t, b, passwords[0])
	w.drive()
	for _, point := range []string{"/reset-password", "/token", "/logout"} {
		for _, done := range []bool{false, true} {
			old := passwords[0]
			next := old[:len(old)-4] + string("abcdef"[len(passwords)-1]) + "1xy"
			passwords = append([]string{next}, passwords...)
			_, session := b.tokens(t, passwordForm(name, old))
			require.NotEmpty(t, session)
			w.replaced(next, passwords[1:]...)
			_, plan := w.look()
			require.Len(t, plan.Changes, 1, point)
			f.cutOnce(point, done)
			_, err := w.reconciler().Apply(t.Context(), w.target, plan, &steps{})
			require.Error(t, err, point)
			f.on(nil)
			refused := f.refusals()
			w.drive()
			require.LessOrEqual(t, refused.Load(), int64(1), point)
			observed, _ := w.look()
			require.Equal(t, []string{"ADMIN_PASSWORD"}, observed.Holds, point)
			status, _ := b.tokens(t, passwordForm(name, next))
			require.Equal(t, http.StatusOK, status, point)
			status, _ = b.tokens(t, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {session}})
			require.Equal(t, http.StatusBadRequest, status, "%s: sessions of the former password are over", point)
		}
	}
}

// cutOnce breaks the connection of one request: before the server gets it, or after it did what it asks.
func (f *front) cutOnce(suffix string, done bool) {
	var once atomic.Bool
	f.on(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, suffix) || !once.CompareAndSwap(false, true) {
			return false
		}
		if done {
			f.proxy.ServeHTTP(discard{http.Header{}}, r)
		}
		cut(w)
		return true
	})
}

// discard is an answer that nobody gets.
type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) Write(p []byte) (int, error) { return io.Discard.Write(p) }
func (d discard) WriteHeader(int)             {}

// A password that the server's policy refuses leaves the former one in use; one that nobody knows is tried once for each that it may be.
func refusedPassword(t *testing.T, b *bed) {
	const first = "first-Secret-11aa-long"
	w, f, name := rotating(t, b, first)
	w.drive()
	status, _ := b.admin(t, http.MethodPut, "/master", map[string]any{"passwordPolicy": "length(12)"})
	require.Equal(t, http.StatusNoContent, status)
	defer b.admin(t, http.MethodPut, "/master", map[string]any{"passwordPolicy": ""})
	w.replaced("tooshort", first)
	_, plan := w.look()
	_, err := w.reconciler().Apply(t.Context(), w.target, plan, &steps{})
	var blocked *reconcilers.BlockedError
	require.ErrorAs(t, err, &blocked)
	require.Equal(t, "PasswordRefused", blocked.Reason)
	require.Contains(t, blocked.Message, "minimum length 12")
	require.NotContains(t, err.Error(), "tooshort")
	status, _ = b.tokens(t, passwordForm(name, first))
	require.Equal(t, http.StatusOK, status)

	before := f.logins.Load()
	w.clock.hurry = true
	w.replaced("nobody-Secret-99zz", "other-Secret-88yy", "third-Secret-77xx", "fourth-Secret-66ww")
	for range 3 {
		observed, err := w.reconciler().Observe(t.Context(), w.target)
		require.NoError(t, err)
		require.ErrorAs(t, observed.Err, &blocked)
		require.Equal(t, "WrongPassword", blocked.Reason)
		require.Empty(t, observed.Holds)
	}
	require.EqualValues(t, maxTries, f.logins.Load()-before, "each once, the newest ones")
}

// The server's version is asked for once per start, whether it is ready on the management port.
func serverItself(t *testing.T, b *bed) {
	w := newWorld(t, b, "")
	w.drive()
	observed, _ := w.look()
	require.Equal(t, "26.4.7", observed.Facts.Values["version"])
	l, err := w.reconciler().open(w.target)
	require.NoError(t, err)
	require.NoError(t, l.connect(t.Context()))
	told, err := l.server.healthy(t.Context())
	require.NoError(t, err)
	require.True(t, told)
	require.False(t, l.versionDue())

	// Another start of its container: asked anew, and Terraform does not run.
	before := w.processes()
	l.about.Started, l.about.Version = l.about.Started.Add(-1), "26.4.6"
	require.NoError(t, store(l.work.serverFile(), l.about))
	observed, plan := w.look()
	require.Empty(t, plan.Changes)
	require.Equal(t, "26.4.7", observed.Facts.Values["version"])
	require.Equal(t, before, w.processes())

	// Where nothing answers, or something else, realm master tells; a server that says no is not ready.
	f := newFront(t, b)
	for _, health := range []string{"http://127.0.0.1:1/health/ready", f.URL + "/health/ready"} {
		l.server.health = health
		told, err = l.server.healthy(t.Context())
		require.NoError(t, err)
		require.False(t, told, health)
		require.NoError(t, l.server.ready(t.Context()))
	}
	f.on(func(rw http.ResponseWriter, _ *http.Request) bool {
		rw.WriteHeader(http.StatusServiceUnavailable)
		_, _ = rw.Write([]byte(`{"status":"DOWN","checks":[{"name":"Keycloak database connections async health check","status":"DOWN"}]}`))
		return true
	})
	var wait *reconcilers.WaitError
	require.ErrorAs(t, l.server.ready(t.Context()), &wait)
	require.ErrorContains(t, wait, "database connections")
}

// Another image is judged by the version that runs on the database.
func forewarned(t *testing.T, b *bed) {
	w := newWorld(t, b, "")
	image := func(name string) ([]string, error) {
		return w.reconciler().Forewarn(w.target, reconcilers.Turn{Part: "keycloak", Changes: []reconcilers.Change{{Action: reconcilers.Replace, Image: name}}})
	}
	words, err := image("quay.io/keycloak/keycloak:25.0.6")
	require.NoError(t, err)
	require.Empty(t, words, "before the server was ever seen nothing is known")
	w.drive()
	for name, want := range map[string]string{
		"quay.io/keycloak/keycloak:26.4.7":      "",
		"quay.io/keycloak/keycloak:26.4.7-0":    "",
		"quay.io/keycloak/keycloak:26.4.5":      "",
		"keycloak@sha256:0123":                  "",
		"registry:5000/keycloak":                "",
		"quay.io/keycloak/keycloak:26.4.9":      "Keycloak 26.4.7 -> 26.4.9: its first start migrates the schema",
		"registry:5000/keycloak:26.5@sha256:01": "Keycloak 26.4.7 -> 26.5: its first start migrates the schema",
		"quay.io/keycloak/keycloak:27.0.0-rc":   "Keycloak 26.4.7 -> 27.0.0: its first start migrates the schema",
	} {
		words, err := image(name)
		require.NoError(t, err, name)
		if want == "" {
			require.Empty(t, words, name)
		} else {
			require.Len(t, words, 1, name)
			require.Contains(t, words[0], want)
		}
	}
	for _, name := range []string{"quay.io/keycloak/keycloak:26.3.5", "quay.io/keycloak/keycloak:25.0.6", "quay.io/keycloak/keycloak:26.0"} {
		_, err := image(name)
		var blocked *reconcilers.BlockedError
		require.True(t, errors.As(err, &blocked), name)
		require.Equal(t, "DowngradeRefused", blocked.Reason)
		require.Contains(t, blocked.Do, "server.json")
	}
}

// Who may not ask for the version gets none, and is not asked again; the realm is none the worse.
func versionRefused(t *testing.T, b *bed) {
	f := newFront(t, b)
	w := f.through(t, b, "")
	f.on(func(rw http.ResponseWriter, r *http.Request) bool {
		// The provider asks too, to find out what the server can do, and makes no realm where it gets no answer.
		if r.URL.Path != "/admin/serverinfo" || strings.Contains(r.UserAgent(), "Terraform") {
			return false
		}
		rw.WriteHeader(http.StatusForbidden)
		return true
	})
	w.drive()
	before := f.logins.Load()
	observed, plan := w.look()
	require.NoError(t, observed.Err)
	require.Empty(t, plan.Changes)
	require.NotContains(t, observed.Facts.Values, "version")
	require.Equal(t, []string{"ADMIN_PASSWORD"}, observed.Holds)
	require.Equal(t, before, f.logins.Load())
}
