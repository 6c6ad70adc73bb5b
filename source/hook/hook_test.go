package hook_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/source/hook"
)

var (
	secret = []byte("a secret of some length")
	older  = []byte("the secret that was before")
)

func sum(key []byte, body string) string {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(body))
	return hex.EncodeToString(mac.Sum(nil))
}

func receiver(t testing.TB, kind hook.Kind) (http.Handler, *int) {
	t.Helper()
	woken := new(int)
	h, err := hook.New(hook.Options{Kind: kind, Secrets: [][]byte{secret, older}, Wake: func() { *woken++ }})
	require.NoError(t, err)
	return h, woken
}

func post(h http.Handler, header map[string]string, body io.Reader) int {
	r := httptest.NewRequest(http.MethodPost, "/hooks/git", body)
	for k, v := range header {
		r.Header.Set(k, v)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code
}

// TestForges sends what each forge sends.
func TestForges(t *testing.T) {
	const body = `{"ref":"refs/heads/main"}`
	for name, test := range map[string]struct {
		kind   hook.Kind
		header map[string]string
		want   int
	}{
		"generic":                 {hook.Generic, map[string]string{"X-Signature-256": "sha256=" + sum(secret, body)}, 202},
		"generic, upper case":     {hook.Generic, map[string]string{"X-Signature-256": "sha256=" + strings.ToUpper(sum(secret, body))}, 202},
		"generic, older secret":   {hook.Generic, map[string]string{"X-Signature-256": "sha256=" + sum(older, body)}, 202},
		"generic, other body":     {hook.Generic, map[string]string{"X-Signature-256": "sha256=" + sum(secret, body+" ")}, 401},
		"generic, other secret":   {hook.Generic, map[string]string{"X-Signature-256": "sha256=" + sum([]byte("x"), body)}, 401},
		"generic, no prefix":      {hook.Generic, map[string]string{"X-Signature-256": sum(secret, body)}, 401},
		"generic, cut":            {hook.Generic, map[string]string{"X-Signature-256": "sha256=" + sum(secret, body)[:62]}, 401},
		"generic, empty":          {hook.Generic, map[string]string{"X-Signature-256": "sha256="}, 401},
		"generic, none":           {hook.Generic, nil, 401},
		"github":                  {hook.GitHub, map[string]string{"X-Hub-Signature-256": "sha256=" + sum(secret, body), "X-GitHub-Event": "push"}, 202},
		"github, only SHA-1":      {hook.GitHub, map[string]string{"X-Hub-Signature": "sha1=" + sum(secret, body)[:40]}, 401},
		"github, generic header":  {hook.GitHub, map[string]string{"X-Signature-256": "sha256=" + sum(secret, body)}, 401},
		"gitlab":                  {hook.GitLab, map[string]string{"X-Gitlab-Token": string(secret), "X-Gitlab-Event": "Push Hook"}, 202},
		"gitlab, wrong":           {hook.GitLab, map[string]string{"X-Gitlab-Token": string(secret) + "x"}, 401},
		"gitlab, none":            {hook.GitLab, nil, 401},
		"gitea":                   {hook.Gitea, map[string]string{"X-Gitea-Signature": sum(secret, body), "X-Gitea-Event": "push"}, 202},
		"forgejo":                 {hook.Gitea, map[string]string{"X-Forgejo-Signature": sum(secret, body)}, 202},
		"gitea, wrong":            {hook.Gitea, map[string]string{"X-Gitea-Signature": sum([]byte("x"), body)}, 401},
		"gitea, not hexadecimal":  {hook.Gitea, map[string]string{"X-Gitea-Signature": strings.Repeat("z", 64)}, 401},
		"gitea, secret as header": {hook.Gitea, map[string]string{"X-Gitea-Signature": string(secret)}, 401},
	} {
		t.Run(name, func(t *testing.T) {
			h, woken := receiver(t, test.kind)
			require.Equal(t, test.want, post(h, test.header, strings.NewReader(body)))
			if test.want == 202 {
				require.Equal(t, 1, *woken)
			} else {
				require.Zero(t, *woken)
			}
		})
	}
}

func TestOnlyPOST(t *testing.T) {
	h, woken := receiver(t, hook.GitLab)
	for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodDelete, http.MethodHead} {
		r := httptest.NewRequest(method, "/", nil)
		r.Header.Set("X-Gitlab-Token", string(secret))
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		require.Equal(t, http.StatusMethodNotAllowed, w.Code)
	}
	require.Zero(t, *woken)
}

// endless is a body that counts how much of it was read.
type endless struct{ read int }

func (e *endless) Read(p []byte) (int, error) { e.read += len(p); return len(p), nil }

func TestBodyIsBounded(t *testing.T) {
	h, woken := receiver(t, hook.Generic)
	body := &endless{}
	require.Equal(t, http.StatusRequestEntityTooLarge, post(h, map[string]string{"X-Signature-256": "sha256=" + sum(secret, "")}, body))
	require.Less(t, body.read, 2*hook.MaxBody+1<<20)
	require.Zero(t, *woken)

	body = &endless{}
	require.Equal(t, http.StatusUnauthorized, post(h, nil, body))
	require.Zero(t, body.read, "a request without a signature is not read at all")

	whole := strings.Repeat("x", hook.MaxBody)
	require.Equal(t, http.StatusAccepted, post(h, map[string]string{"X-Signature-256": "sha256=" + sum(secret, whole)}, strings.NewReader(whole)))
	require.Equal(t, 1, *woken)
}

func TestOptionsAreChecked(t *testing.T) {
	wake := func() {}
	for name, opts := range map[string]hook.Options{
		"kind":         {Kind: "svn", Secrets: [][]byte{secret}, Wake: wake},
		"no secret":    {Kind: hook.GitHub, Wake: wake},
		"short secret": {Kind: hook.GitHub, Secrets: [][]byte{secret, []byte("short")}, Wake: wake},
		"nobody":       {Kind: hook.GitHub, Secrets: [][]byte{secret}},
	} {
		_, err := hook.New(opts)
		require.Error(t, err, name)
	}
}

// FuzzReceiver: nothing but the right signature wakes.
func FuzzReceiver(f *testing.F) {
	f.Add("sha256="+sum(secret, "body"), []byte("body"))
	f.Add("sha256="+strings.Repeat("0", 64), []byte("body"))
	f.Add("sha256=", []byte{})
	f.Fuzz(func(t *testing.T, signature string, body []byte) {
		right := sum(secret, string(body))
		also := sum(older, string(body))
		for kind, name := range map[hook.Kind]string{hook.Generic: "X-Signature-256", hook.GitHub: "X-Hub-Signature-256", hook.Gitea: "X-Gitea-Signature", hook.GitLab: "X-Gitlab-Token"} {
			h, woken := receiver(t, kind)
			code := post(h, map[string]string{name: signature}, bytes.NewReader(body))
			given := signature
			if prefix, digits, ok := strings.Cut(signature, "="); ok {
				given = prefix + "=" + strings.ToLower(digits)
			} else if kind == hook.Gitea {
				given = strings.ToLower(signature)
			}
			genuine := given == "sha256="+right || given == "sha256="+also
			switch kind {
			case hook.Gitea:
				genuine = given == right || given == also
			case hook.GitLab:
				genuine = signature == string(secret) || signature == string(older)
			}
			if genuine != (*woken == 1) || genuine != (code == http.StatusAccepted) {
				t.Fatalf("%s: genuine %v, woken %d, code %d", kind, genuine, *woken, code)
			}
		}
	})
}
