package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/report"
	"dive-agent/testbed"
	"dive-agent/testbed/gitserver"
)

// TestKeycloaksFirstAdministratorIsReplaced in an instance that lives: a merge gives agent and module a service account, planned before;
// the administrator stays while a service is given its password, and goes with the merge that takes it away from there. The account's
// secret is rotated by one order, with nobody left who could help.
func TestKeycloaksFirstAdministratorIsReplaced(t *testing.T) {
	t.Parallel()
	r := newRealm(t)
	files := edited(t, r.files(""), realmStackFile, "volumes:\n  data: {}", fmt.Sprintf(passwordUser, testbed.Image(t, testbed.Redis7))+"  data: {}")
	r.begin(files)
	h := r.host
	password := secretOf(t, h, "ADMIN_PASSWORD")
	status, _ := r.signIn(password)
	require.Equal(t, http.StatusOK, status)

	files = edited(t, files, realmFile,
		"    CLIENT_SECRET:", "    AGENT_SECRET: {generate: {length: 32}}\n    CLIENT_SECRET:",
		"        keycloak_admin_password: ${ADMIN_PASSWORD}\n", "      adminPassword: ${ADMIN_PASSWORD}\n      serviceAccount: {secret: \"${AGENT_SECRET}\", removeBootstrapAdmin: true}\n")
	r.Repo.Commit(t, "account", "A service account", gitserver.Files(files))
	out, err := h.Try("plan", "account")
	require.ErrorContains(t, err, "exit status 2")
	require.Contains(t, out, "AGENT_SECRET")

	kept := h.AwaitPhase(3*soon, "one", report.Blocked, r.Merge("A service account", files))
	require.Contains(t, why(kept), "administrator admin is not removed: its password is given to stack/user")
	require.Contains(t, h.Do("events", "one"), "client dive-agent")
	status, _ = r.signIn(password)
	require.Equal(t, http.StatusOK, status)

	files = edited(t, files, realmStackFile, "    environment: {ADMIN_PASSWORD: \"${ADMIN_PASSWORD}\"}\n", "")
	h.AwaitPhase(3*soon, "one", report.Ready, r.Merge("The user signs in otherwise", files))
	status, _ = r.signIn(password)
	require.Equal(t, http.StatusUnauthorized, status)
	require.Contains(t, h.Do("events", "one"), "administrator admin")

	old := secretOf(t, h, "AGENT_SECRET")
	for _, name := range []string{"AGENT_SECRET", "ADMIN_PASSWORD"} {
		h.Do("secrets", "rotate", "one", name)
		h.Await(3*soon, "one", "is over", func(st *report.Status) bool {
			_, err := os.Stat(formerOf(h, name))
			return st.Phase == report.Ready && errors.Is(err, os.ErrNotExist)
		})
	}
	next := secretOf(t, h, "AGENT_SECRET")
	require.NotEqual(t, old, next)
	log := h.Log() + h.Do("events", "one") + h.Do("status", "one", "--output", "json")
	for _, secret := range []string{old, next, password} {
		require.NotContains(t, log, secret)
	}
}
