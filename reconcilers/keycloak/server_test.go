package keycloak

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/reconcilers"
)

// A server that takes connections and does not answer in time is waited for by whoever asks it, and not by whoever changes something:
// that may have happened.
func TestAServerThatIsSlow(t *testing.T) {
	t.Parallel()
	slow := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // only then it is seen that the other side went
		<-r.Context().Done()
	}))
	t.Cleanup(slow.Close)
	s, err := newServer(slow.URL, "")
	require.NoError(t, err)
	require.Equal(t, probeLimit, s.http.Timeout)
	s.http.Timeout = 50 * time.Millisecond

	asks := map[string]func(context.Context) error{
		"a sign-in":                   func(ctx context.Context) error { return s.login(ctx, "admin", adminPassword) },
		"a sign-in as a client":       func(ctx context.Context) error { return s.loginClient(ctx, "agent", clientSecret) },
		"a question to the admin API": func(ctx context.Context) error { _, err := s.version(ctx); return err },
		"whether a realm is there":    func(ctx context.Context) error { _, err := s.realm(ctx, master); return err },
	}
	for what, ask := range asks {
		var wait *reconcilers.WaitError
		err := ask(t.Context())
		require.ErrorAs(t, err, &wait, what)
		require.Equal(t, "Keycloak at "+slow.URL, wait.For)
		require.ErrorContains(t, wait, "Client.Timeout exceeded", what)
		require.NotContains(t, err.Error(), adminPassword)

		ended, cancel := context.WithCancel(t.Context())
		cancel()
		err = ask(ended)
		require.ErrorIs(t, err, context.Canceled, what)
		require.NotErrorAs(t, err, &wait, "the agent stops: "+what)
	}
	var wait *reconcilers.WaitError
	require.NotErrorAs(t, s.logOut(t.Context(), "1"), &wait)
}

// The errors of Keycloak's log are told to a test that failed, bounded.
func TestErrorsOfALog(t *testing.T) {
	t.Parallel()
	const log = `2026-11-23 01:00:14,001 INFO  [io.quarkus] (main) Profile prod activated.
2026-11-23 01:00:15,603 ERROR [org.keycloak.services] (executor-thread-1) first
	at a(A.java:1)
2026-11-23 01:00:15,604 ERROR [org.keycloak.services] (executor-thread-2) second
	at a(A.java:1)
	at b(B.java:2)
Caused by: third
	at c(C.java:3)
2026-11-23 01:00:16,000 WARN  [org.keycloak.events] (executor-thread-3) LOGIN_ERROR
	at d(D.java:4)
2026-11-23 01:00:17,000 ERROR [org.keycloak.services] (executor-thread-2) fourth
`
	require.Equal(t, []string{
		"2026-11-23 01:00:15,604 ERROR [org.keycloak.services] (executor-thread-2) second\n\tat a(A.java:1)\nCaused by: third",
		"2026-11-23 01:00:17,000 ERROR [org.keycloak.services] (executor-thread-2) fourth",
	}, errorsIn(strings.NewReader(log), 2, 2))
}
