package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"testing"

	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"

	"dive-agent/report"
	"dive-agent/testbed"
)

// passwordUser is a service that holds the administrator's password.
const passwordUser = `  user:
    image: %s
    environment: {ADMIN_PASSWORD: "${ADMIN_PASSWORD}"}
    stop_grace_period: 1s
volumes:
`

// TestThePasswordOfKeycloaksAdministratorIsRotated by one order: the server takes the new one, then what uses it follows, then the
// former one is forgotten. An older image of the server is refused before its container is touched.
func TestThePasswordOfKeycloaksAdministratorIsRotated(t *testing.T) {
	t.Parallel()
	r := newRealm(t)
	files := edited(t, r.files(""), realmStackFile, "volumes:\n  data: {}", fmt.Sprintf(passwordUser, testbed.Image(t, testbed.Redis7))+"  data: {}")
	r.begin(files)
	h := r.host
	requireSignIn := func(answer int, password string) {
		t.Helper()
		status, _ := r.signIn(password)
		require.Equal(t, answer, status)
	}
	old, before := secretOf(t, h, "ADMIN_PASSWORD"), r.running()
	requireSignIn(http.StatusOK, old)

	h.Do("secrets", "rotate", "one", "ADMIN_PASSWORD")
	h.Await(5*soon, "one", "is over", func(st *report.Status) bool {
		_, err := os.Stat(formerOf(h, "ADMIN_PASSWORD"))
		return st.Phase == report.Ready && errors.Is(err, os.ErrNotExist)
	})
	next := secretOf(t, h, "ADMIN_PASSWORD")
	require.NotEqual(t, old, next)
	requireSignIn(http.StatusOK, next)
	requireSignIn(http.StatusUnauthorized, old)
	after := r.running()
	require.NotEqual(t, before["user"], after["user"], "what uses it follows")
	require.Equal(t, before["postgres"], after["postgres"])
	log := h.Log() + h.Do("events", "one")
	require.NotContains(t, log, old)
	require.NotContains(t, log, next)
	require.Contains(t, log, "administrator admin")

	image, older := testbed.Image(t, testbed.Keycloak), "dive-testbed/"+r.project+":25.0.6"
	_, err := r.engine.ImageTag(t.Context(), client.ImageTagOptions{Source: image, Target: older})
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := cleanupContext()
		defer cancel()
		_, err := r.engine.ImageRemove(ctx, older, client.ImageRemoveOptions{})
		require.NoError(t, err)
	})
	bad := r.Merge("Name an older Keycloak", edited(t, files, realmStackFile, image, older))
	status := h.AwaitPhase(2*soon, "one", report.Blocked, bad)
	require.Contains(t, why(status), "Keycloak 26.4.7 has migrated its database, on which 25.0.6 does not run")
	require.Equal(t, after, r.running())
}
