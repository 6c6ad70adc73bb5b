package keycloak

import (
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

const removes = ", removeBootstrapAdmin: true"

// The administrator goes last of all, when the manifest says so: the account was proved, the realm is in sync by it.
func removedAdmin(t *testing.T, b *bed) {
	a := withAccount(t, b, removes)
	observed, plan := a.look()
	require.NotContains(t, strings.Join(printOf(plan.Changes), "\n"), "administrator")
	require.Contains(t, strings.Join(observed.Facts.Notes, "\n"), "administrator "+a.admin+" is removed (removeBootstrapAdmin) once")
	made := a.drive()
	require.Equal(t, "delete administrator "+a.admin, made[len(made)-1])
	require.Len(t, made, 2+9+1)
	require.False(t, a.there(t))
	require.True(t, a.signsIn(t, firstAgentSecret))
	observed, plan = a.look()
	require.NoError(t, observed.Err)
	require.Empty(t, plan.Changes)
	require.Equal(t, []string{"ADMIN_PASSWORD", "AGENT_SECRET"}, observed.Holds, "the server has nobody with the former password")
	require.Empty(t, observed.Facts.Notes)

	// Nobody is needed any more: realm and secret go on, with and without a password in the manifest.
	count := a.front.grants()
	a.spec.Variables["title"] = tree(t, "Another title")
	a.newSecret("agent-Secret-77ee", firstAgentSecret)
	require.Equal(t, []string{"update client " + a.client + " secret", "update keycloak_realm.this display_name", "update output.title"}, a.drive())
	a.replaced("own-Secret-88ff", adminOfOwn)
	a.values["AGENT_SECRET"] = desired.Secret("agent-Secret-77ee")
	a.replaced("own-Secret-88ff", adminOfOwn)
	require.Empty(t, a.drive())
	observed, _ = a.look()
	require.Equal(t, []string{"ADMIN_PASSWORD", "AGENT_SECRET"}, observed.Holds)
	require.Zero(t, count("password admin-cli"+a.admin))
	a.spec.AdminPassword = desired.Expr{}
	a.clock.move(time.Hour)
	require.Empty(t, a.drive())
	a.mute(t, "agent-Secret-77ee", "own-Secret-88ff")
}

// A removal that is cut off before or after any of its requests comes to its end.
func cutRemoval(t *testing.T, b *bed) {
	a := withAccount(t, b, "")
	a.drive()
	for _, point := range []cutPoint{{method: "POST", path: "/token"}, {method: "DELETE", path: ""}, {method: "GET", path: "/users"}} {
		for _, done := range []bool{false, true} {
			if !a.there(t) {
				b.temporary(t, a.admin, adminOfOwn)
			}
			a.spec.ServiceAccount.RemoveBootstrapAdmin = true
			a.due(t)
			_, plan := a.look()
			require.Equal(t, []string{"delete administrator " + a.admin}, printOf(plan.Changes))
			a.front.cutAt(point, done)
			_, err := a.reconciler().Apply(t.Context(), a.target, plan, &steps{})
			require.Error(t, err, point)
			a.hear(err)
			require.Equal(t, point.method != "DELETE" || !done, a.there(t))
			a.front.on(nil)
			a.drive()
			require.False(t, a.there(t), point)
			require.True(t, a.signsIn(t, firstAgentSecret), point)
		}
	}
	a.mute(t)
}

// Nobody is removed without an order, while somebody else needs the password, who is no temporary administrator, while the realm is
// not in sync, or when the account can no longer administer at that very moment.
func keptAdmin(t *testing.T, b *bed) {
	a := withAccount(t, b, "")
	a.drive()
	for range 2 {
		_, plan := a.look()
		require.Empty(t, plan.Changes)
		a.due(t)
	}
	require.True(t, a.there(t), "without an order")

	a.spec.ServiceAccount.RemoveBootstrapAdmin = true
	kept := func(why string) {
		observed, plan := a.look()
		var blocked *reconcilers.BlockedError
		require.ErrorAs(t, observed.Err, &blocked)
		require.Equal(t, "AdministratorKept", blocked.Reason)
		require.Contains(t, blocked.Message, why)
		require.Empty(t, plan.Changes)
		require.True(t, a.there(t))
	}
	other := decode(t, "service: keycloak\nmodule: realm\nadminPassword: ${ADMIN_PASSWORD}\nserviceAccount: {clientId: other, secret: \"${AGENT_SECRET}\"}\n")
	same := decode(t, "service: keycloak\nmodule: realm\nadminPassword: ${ADMIN_PASSWORD}\nserviceAccount: {clientId: "+a.client+", secret: \"${AGENT_SECRET}\"}\n")
	node := func(id string, spec any, needs ...desired.Edge) *desired.Node {
		return &desired.Node{ID: id, Component: &desired.Component{Spec: spec}, Needs: needs}
	}
	a.target.Instance.Graph = &desired.Graph{Nodes: []*desired.Node{
		node("identity", a.spec), node("stack/keycloak", nil, desired.Edge{On: "stack/postgres"}),
		node("stack/portal", nil, desired.Edge{On: "identity", Secret: "ADMIN_PASSWORD"}), node("stack/frontend", nil, desired.Edge{On: "identity", Secret: "AGENT_SECRET"}),
		node("partners", other), node("guests", same),
	}, Holders: map[string][]string{"ADMIN_PASSWORD": {"identity", "partners", "guests"}}}
	kept("its password is given to stack/portal, partners")
	a.target.Instance.Graph = nil

	user := b.list(t, "/master/users?exact=true&username="+a.admin)[0]
	user["attributes"] = map[string]any{"is_temporary_admin": []string{}}
	status, _ := b.admin(t, http.MethodPut, "/master/users/"+user["id"].(string), user)
	require.Equal(t, http.StatusNoContent, status)
	kept("it is no temporary one")
	user["attributes"] = map[string]any{"is_temporary_admin": []string{"true"}}
	status, _ = b.admin(t, http.MethodPut, "/master/users/"+user["id"].(string), user)
	require.Equal(t, http.StatusNoContent, status)

	// A change of the realm comes first, and waits.
	a.spec.Variables["roles"] = tree(t, "[reader]")
	_, plan := a.look()
	require.Equal(t, []string{`delete keycloak_role.each["writer"]`}, printOf(plan.Changes))
	a.spec.Variables["roles"] = tree(t, "[reader, writer]")

	// Between plan and apply the account loses its role.
	_, plan = a.look()
	require.Equal(t, []string{"delete administrator " + a.admin}, printOf(plan.Changes))
	var account, role map[string]any
	b.read(t, "/master/clients/"+a.onServer(t)["id"].(string)+"/service-account-user", &account)
	b.read(t, "/master/roles/admin", &role)
	status, _ = b.admin(t, http.MethodDelete, "/master/users/"+account["id"].(string)+"/role-mappings/realm", []any{role})
	require.Equal(t, http.StatusNoContent, status)
	_, err := a.reconciler().Apply(t.Context(), a.target, plan, &steps{})
	require.ErrorContains(t, err, "administrator "+a.admin+" stays: prove the service account")
	a.hear(err)
	require.True(t, a.there(t))
	require.Equal(t, []string{"create role admin of client " + a.client, "delete administrator " + a.admin}, a.drive(), "mended by the one who stayed")
	require.False(t, a.there(t))
	a.mute(t)
}

// The administrator's password is set by the account, without a wrong try, and wherever that is cut off it goes on.
func passwordUnderAccount(t *testing.T, b *bed) {
	a := withAccount(t, b, "")
	a.bring(t)
	passwords := []string{adminOfOwn}
	for _, point := range []cutPoint{{}, {method: "PUT", path: "/reset-password"}, {method: "POST", path: "/token", after: "/reset-password"}, {method: "POST", path: "/logout"}} {
		for _, done := range []bool{false, true} {
			old, next := passwords[0], "own-Secret-"+string("abcdefghi"[len(passwords)])+"2zz"
			passwords = append([]string{next}, passwords...)
			_, session := b.tokens(t, passwordForm(a.admin, old))
			require.NotEmpty(t, session)
			a.replaced(next, passwords[1:]...)
			refused := a.front.refusals()
			plan, holds, err := a.prove(t)
			require.NoError(t, err)
			require.Equal(t, []string{"AGENT_SECRET"}, holds)
			require.Equal(t, []string{"update administrator " + a.admin}, printOf(plan.Changes))
			require.Contains(t, plan.Changes[0].Reason, "set by client "+a.client)
			require.Zero(t, refused.Load(), "a password that cannot be right is not tried")
			if point.method != "" {
				a.front.cutAt(point, done)
				_, err := a.reconciler().Apply(t.Context(), a.target, plan, &steps{})
				require.Error(t, err, point)
				a.front.on(nil)
			}
			a.bring(t)
			require.LessOrEqual(t, refused.Load(), int64(1), point)
			_, holds, err = a.prove(t)
			require.NoError(t, err)
			require.Equal(t, []string{"ADMIN_PASSWORD", "AGENT_SECRET"}, holds)
			status, _ := b.tokens(t, passwordForm(a.admin, next))
			require.Equal(t, http.StatusOK, status)
			status, _ = b.tokens(t, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {session}})
			require.Equal(t, http.StatusBadRequest, status, "%s: sessions of the former password are over", point)
		}
	}

	// Somebody set another one: it is found by one try, and set.
	user := b.list(t, "/master/users?exact=true&username="+a.admin)[0]["id"].(string)
	status, _ := b.admin(t, http.MethodPut, "/master/users/"+user+"/reset-password", map[string]any{"type": "password", "value": "by-hand-Secret-00", "temporary": false})
	require.Equal(t, http.StatusNoContent, status)
	about := a.recordOf(t)
	about.Admin = ""
	require.NoError(t, store(a.target.Dir+"/"+serverName, about))
	refused := a.front.refusals()
	require.Equal(t, []string{"update administrator " + a.admin}, a.bring(t))
	require.EqualValues(t, 1, refused.Load())
	a.mute(t, passwords...)
}

// TestTheFirstAdministratorGoesForGood on a server of its own: it does not come back when the server is started again with the same
// environment, and where nobody is left the command that is told lets people in again.
func TestTheFirstAdministratorGoesForGood(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	w := newWorld(t, b, "adminPassword: ${ADMIN_PASSWORD}\nserviceAccount: {secret: \"${AGENT_SECRET}\", removeBootstrapAdmin: true}\n")
	delete(w.spec.Variables, passwordVariable)
	w.set("AGENT_SECRET", desired.Secret(firstAgentSecret))
	made := w.drive()
	require.Equal(t, "delete administrator admin", made[len(made)-1])
	status, _ := b.tokens(t, passwordForm("admin", adminPassword))
	require.Equal(t, http.StatusUnauthorized, status)
	asAgent := func() *server {
		s, err := newServer(b.url, "")
		require.NoError(t, err)
		require.NoError(t, s.loginClient(t.Context(), "dive-agent", firstAgentSecret))
		return s
	}

	b.lab.Stop("keycloak")
	b.lab.Start("keycloak")
	b.await(t)
	require.Empty(t, w.drive(), "the realm is as it was")
	_, err := asAgent().user(t.Context(), "admin")
	require.ErrorIs(t, err, errAbsent)

	s := asAgent()
	client, err := s.client(t.Context(), "dive-agent")
	require.NoError(t, err)
	require.NoError(t, s.call(t.Context(), http.MethodDelete, nil, nil, nil, "realms", master, "clients", client["id"].(string)))
	w.clock.move(time.Hour)
	observed, err := w.reconciler().Observe(t.Context(), w.target)
	require.NoError(t, err)
	var blocked *reconcilers.BlockedError
	require.ErrorAs(t, observed.Err, &blocked)
	require.Equal(t, "ServiceAccountLost", blocked.Reason)
	command := regexp.MustCompile("`docker exec \\S+ ([^`]+)`").FindStringSubmatch(blocked.Do)
	require.NotNil(t, command, blocked.Do)
	out, code, err := b.lab.Exec(t.Context(), "keycloak", strings.Fields(command[1]), nil, nil)
	require.NoError(t, err)
	require.Contains(t, string(out), "Created temporary admin user with username admin", "code %d", code)

	observed, err = w.reconciler().Observe(t.Context(), w.target)
	require.NoError(t, err)
	require.True(t, errors.As(observed.Err, &blocked), "its password was refused a moment ago, and is left alone")
	require.Contains(t, blocked.Do, "Then remove "+w.target.Dir+"/refused.json")
	require.NoError(t, removeIfThere(w.target.Dir+"/refused.json"))
	require.Equal(t, []string{"create client dive-agent", "create role admin of client dive-agent", "delete administrator admin"}, w.drive())
	require.NotContains(t, w.said.String(), firstAgentSecret)
}
