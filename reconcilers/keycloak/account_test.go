package keycloak

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

const (
	firstAgentSecret = "agent-Secret-11aa"
	adminOfOwn       = "own-Secret-22bb"
)

// accounted is a world with a service account, an administrator of its own that may be removed, and a front.
type accounted struct {
	*world
	front  *front
	client string
	admin  string
}

// withAccount makes one. The administrator is temporary, as the one that a server is first started with.
func withAccount(t *testing.T, b *bed, more string) *accounted {
	t.Helper()
	f := newFront(t, b)
	w := f.through(t, b, "adminPassword: ${ADMIN_PASSWORD}\nserviceAccount: {secret: \"${AGENT_SECRET}\""+more+"}\n")
	a := &accounted{world: w, front: f, client: "agent-" + strings.ToLower(w.realm), admin: "adm-" + strings.ToLower(w.realm)}
	b.temporary(t, a.admin, adminOfOwn)
	delete(w.spec.Variables, passwordVariable)
	w.spec.AdminUser, w.spec.ServiceAccount.ClientID = a.admin, a.client
	w.set("ADMIN_PASSWORD", desired.Secret(adminOfOwn))
	w.set("AGENT_SECRET", desired.Secret(firstAgentSecret))
	t.Cleanup(func() { b.forgetClient(a.client) })
	return a
}

// allowMarks has the realm's user profile let the mark pass. Two at once would end in an error of the server.
func (b *bed) allowMarks(t *testing.T) {
	t.Helper()
	b.profile.Lock()
	defer b.profile.Unlock()
	var profile map[string]any
	b.read(t, "/master/users/profile", &profile)
	if profile["unmanagedAttributePolicy"] == nil {
		profile["unmanagedAttributePolicy"] = "ADMIN_EDIT"
		status, _ := b.admin(t, http.MethodPut, "/master/users/profile", profile)
		require.Equal(t, http.StatusOK, status)
	}
}

// temporary makes an administrator and marks it as Keycloak marks its first one.
func (b *bed) temporary(t *testing.T, name, password string) {
	t.Helper()
	b.allowMarks(t)
	b.administrator(t, name, password)
	user := b.list(t, "/master/users?exact=true&username="+name)[0]
	user["attributes"] = map[string]any{"is_temporary_admin": []string{"true"}}
	status, _ := b.admin(t, http.MethodPut, "/master/users/"+user["id"].(string), user)
	require.Equal(t, http.StatusNoContent, status)
}

func (b *bed) forgetClient(id string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, err := newServer(b.url, "")
	if err != nil || s.login(ctx, "admin", adminPassword) != nil {
		return
	}
	if client, err := s.client(ctx, id); err == nil {
		_ = s.call(ctx, http.MethodDelete, nil, nil, nil, "realms", master, "clients", client["id"].(string))
	}
}

// onServer is the client as an administrator sees it; nil when it is not there. Its scopes, which the server gives in any order, are
// sorted.
func (a *accounted) onServer(t *testing.T) map[string]any {
	t.Helper()
	list := a.bed.list(t, "/master/clients?clientId="+a.client)
	if len(list) == 0 {
		return nil
	}
	require.Len(t, list, 1)
	for _, scopes := range []string{"defaultClientScopes", "optionalClientScopes"} {
		slices.SortFunc(list[0][scopes].([]any), func(a, b any) int { return strings.Compare(a.(string), b.(string)) })
	}
	return list[0]
}

// signsIn says whether the account gets a token that may see users of realm master.
func (a *accounted) signsIn(t *testing.T, secret string) bool {
	t.Helper()
	s, err := newServer(a.bed.url, "")
	require.NoError(t, err)
	if err := s.loginClient(t.Context(), a.client, secret); err != nil {
		require.ErrorIs(t, err, errRefused)
		return false
	}
	_, err = s.list(t.Context(), master, url.Values{"max": {"1"}}, "users")
	return err == nil
}

// there says whether the administrator is on the server.
func (a *accounted) there(t *testing.T) bool {
	t.Helper()
	return len(a.bed.list(t, "/master/users?exact=true&username="+a.admin)) == 1
}

// newSecret gives the account another secret; former ones are known, newest first.
func (a *accounted) newSecret(secret string, former ...string) {
	a.replace("AGENT_SECRET", secret, former)
}

// prove asks the server who signs in, without a plan of the realm, and gives what is to be done about that.
func (a *accounted) prove(t *testing.T) (reconcilers.Plan, []string, error) {
	t.Helper()
	l, err := a.reconciler().open(a.target)
	require.NoError(t, err)
	require.NoError(t, l.connect(t.Context()))
	seen := &observation{}
	err = l.prove(t.Context(), seen)
	plan, planned := l.Plan(a.target, l.observed(seen, err))
	require.NoError(t, planned)
	a.hear(plan.Changes, plan.Held, err)
	return plan, l.holds(), err
}

// bring brings who signs in to what it has to be, and gives the changes that were made.
func (a *accounted) bring(t *testing.T) (made []string) {
	t.Helper()
	for range 4 {
		plan, _, err := a.prove(t)
		require.NoError(t, err)
		if len(plan.Changes) == 0 {
			return made
		}
		made = append(made, printOf(plan.Changes)...)
		_, err = a.reconciler().Apply(t.Context(), a.target, plan, &steps{})
		a.hear(err)
		var wait *reconcilers.WaitError
		require.ErrorAs(t, err, &wait)
	}
	t.Fatalf("not as it has to be after 4 rounds: %v", made)
	return nil
}

// due makes the next look ask the server, without a plan of the realm: as after a day without one.
func (a *accounted) due(t *testing.T) {
	t.Helper()
	about := a.recordOf(t)
	about.Asked = time.Time{}
	require.NoError(t, store(filepath.Join(a.target.Dir, serverName), about))
}

// mute checks that no secret was said, nor written to a file other than Terraform's own.
func (a *accounted) mute(t *testing.T, secrets ...string) {
	t.Helper()
	for _, secret := range append(secrets, firstAgentSecret, adminOfOwn) {
		require.NotContains(t, a.said.String(), secret)
		requireNoFileHolds(t, a.target.Dir, secret, "terraform.tfstate")
	}
}

// grants counts the sign-ins that the server gets from now on, by grant and who.
func (f *front) grants() func(what string) int {
	var mu sync.Mutex
	counts := map[string]int{}
	f.on(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/openid-connect/token") {
			body, err := io.ReadAll(r.Body)
			if err == nil {
				form, _ := url.ParseQuery(string(body))
				mu.Lock()
				counts[form.Get("grant_type")+" "+form.Get("client_id")+form.Get("username")]++
				mu.Unlock()
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
		}
		return false
	})
	return func(what string) int {
		mu.Lock()
		defer mu.Unlock()
		return counts[what]
	}
}

// The account is made by the administrator, given its role and proved; from then on nobody else signs in, Terraform's provider
// neither.
func accountMade(t *testing.T, b *bed) {
	a := withAccount(t, b, "")
	_, plan := a.look()
	require.Equal(t, []string{"create client " + a.client, "create role admin of client " + a.client}, printOf(plan.Changes))
	require.Contains(t, plan.Changes[0].Reason, "made by administrator "+a.admin)
	require.Zero(t, a.plans(), "nothing is planned as an account that is not there")
	require.Nil(t, a.onServer(t), "a plan makes nothing")
	made := a.drive()
	require.Equal(t, printOf(plan.Changes), made[:2])
	require.Len(t, made, 2+9)

	client := a.onServer(t)
	for name, want := range accountSettings {
		require.Equal(t, want, client[name], name)
	}
	require.Equal(t, "deu", client["attributes"].(map[string]any)[accountMark])
	require.True(t, a.signsIn(t, firstAgentSecret))
	require.True(t, a.there(t), "never removed by default")
	observed, _ := a.look()
	require.Equal(t, []string{"ADMIN_PASSWORD", "AGENT_SECRET"}, observed.Holds)
	require.Equal(t, a.client, observed.Facts.Values["serviceAccount"])
	require.Equal(t, "26.4.7", observed.Facts.Values["version"], "which only an administrator of the whole server is told")

	// Nothing is asked while nothing changes, and then only as the account.
	count, before := a.front.grants(), a.processes()
	_, plan = a.look()
	require.Empty(t, plan.Changes)
	require.Equal(t, before, a.processes())
	require.Zero(t, count("client_credentials "+a.client))
	a.spec.Variables["roles"] = tree(t, "[reader]")
	a.drive()
	require.GreaterOrEqual(t, count("client_credentials "+a.client), 2, "the agent and the provider")
	require.Zero(t, count("password admin-cli"+a.admin))
	require.Len(t, a.exports(), 1, "it exports too")
	a.front.on(nil)

	// One that is gone is found when the drift schedule has a turn; the realm is none the worse.
	b.forgetClient(a.client)
	_, plan = a.look()
	require.Empty(t, plan.Changes, "before its turn nobody looks")
	a.clock.move(time.Hour)
	require.Equal(t, made[:2], a.drive())
	require.True(t, a.signsIn(t, firstAgentSecret))
	a.mute(t)
}

// An account whose making is cut off before or after any of its requests is made to its end, once.
func cutAccount(t *testing.T, b *bed) {
	a := withAccount(t, b, "")
	for i, point := range []cutPoint{{method: "POST", path: "/clients"}, {method: "POST", path: "/role-mappings/realm"}, {method: "POST", path: "/token", after: "/role-mappings/realm"}} {
		for j, done := range []bool{false, true} {
			a.client = strings.ToLower("agent-"+a.realm) + string("abcdef"[2*i+j])
			id := a.client
			t.Cleanup(func() { b.forgetClient(id) })
			a.spec.ServiceAccount.ClientID = a.client
			plan, _, err := a.prove(t)
			require.NoError(t, err)
			require.Len(t, plan.Changes, 2, point)
			a.front.cutAt(point, done)
			_, err = a.reconciler().Apply(t.Context(), a.target, plan, &steps{})
			require.Error(t, err, point)
			a.hear(err)
			a.front.on(nil)
			if plan, holds, err := a.prove(t); len(plan.Changes) > 0 {
				require.NoError(t, err)
				require.NotContains(t, holds, "AGENT_SECRET", "it is not proved")
			}
			a.bring(t)
			require.True(t, a.signsIn(t, firstAgentSecret), point)
			require.Equal(t, true, a.onServer(t)["enabled"])
		}
	}
	a.mute(t)
}

// cutPoint is a request at which a connection breaks: the first one by method and end of its path, after one to another path was seen.
type cutPoint struct{ method, path, after string }

// cutAt breaks it before the server gets it, or after it did what it asks.
func (f *front) cutAt(p cutPoint, done bool) {
	var mu sync.Mutex
	armed, cutOff := p.after == "", false
	f.on(func(w http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		hit := armed && !cutOff && r.Method == p.method && strings.HasSuffix(r.URL.Path, p.path)
		cutOff = cutOff || hit
		armed = armed || r.Method != http.MethodGet && strings.HasSuffix(r.URL.Path, p.after)
		mu.Unlock()
		if !hit {
			return false
		}
		if done {
			f.proxy.ServeHTTP(discard{http.Header{}}, r)
		}
		cut(w)
		return true
	})
}

// A changed secret is set by the account itself, without a wrong try; wherever that is cut off, it goes on.
func rotatedSecret(t *testing.T, b *bed) {
	a := withAccount(t, b, "")
	a.drive()
	const next = "agent-Secret-33cc"
	refused, before := a.front.refusals(), a.plans()
	count := a.front.grants()
	a.newSecret(next, firstAgentSecret)
	observed, plan := a.look()
	require.Equal(t, []string{"ADMIN_PASSWORD"}, observed.Holds, "what uses it waits")
	require.Equal(t, []string{"update client " + a.client + " secret"}, printOf(plan.Changes))
	require.Contains(t, plan.Changes[0].Reason, "set by the account itself")
	require.Equal(t, before, a.plans(), "nothing is planned with a secret that the server does not have")
	applied, err := a.reconciler().Apply(t.Context(), a.target, plan, &steps{})
	var wait *reconcilers.WaitError
	require.ErrorAs(t, err, &wait)
	require.Equal(t, []string{"ADMIN_PASSWORD", "AGENT_SECRET"}, applied.Holds)
	require.Empty(t, a.drive(), "the realm stays as it was")
	require.Zero(t, refused.Load())
	require.Zero(t, count("password admin-cli"+a.admin))
	require.True(t, a.signsIn(t, next))
	require.False(t, a.signsIn(t, firstAgentSecret))

	secrets := []string{next, firstAgentSecret}
	uuid := a.onServer(t)["id"].(string)
	for _, point := range []cutPoint{{method: "PUT", path: uuid}, {method: "POST", path: "/token", after: uuid}} {
		for _, done := range []bool{false, true} {
			secrets = append([]string{"agent-Secret-" + string("defghi"[len(secrets)-2]) + "1xy"}, secrets...)
			a.newSecret(secrets[0], secrets[1:]...)
			plan, _, err := a.prove(t)
			require.NoError(t, err)
			require.Len(t, plan.Changes, 1, point)
			a.front.cutAt(point, done)
			_, err = a.reconciler().Apply(t.Context(), a.target, plan, &steps{})
			require.Error(t, err, point)
			a.front.on(nil)
			refused := a.front.refusals()
			a.bring(t)
			require.LessOrEqual(t, refused.Load(), int64(1), point)
			_, holds, err := a.prove(t)
			require.NoError(t, err)
			require.Equal(t, []string{"ADMIN_PASSWORD", "AGENT_SECRET"}, holds, point)
			require.True(t, a.signsIn(t, secrets[0]), point)
		}
	}
	require.Empty(t, a.drive(), "the realm stays as it was")
	a.mute(t, secrets...)
}

// What somebody changed or took away by hand is told and made good while the administrator is there.
func handledAccount(t *testing.T, b *bed) {
	a := withAccount(t, b, "")
	require.Len(t, a.bring(t), 2)
	change := func(body map[string]any) {
		status, _ := b.admin(t, http.MethodPut, "/master/clients/"+a.onServer(t)["id"].(string), body)
		require.Equal(t, http.StatusNoContent, status)
	}
	role := func() {
		var account, role map[string]any
		b.read(t, "/master/clients/"+a.onServer(t)["id"].(string)+"/service-account-user", &account)
		b.read(t, "/master/roles/admin", &role)
		status, _ := b.admin(t, http.MethodDelete, "/master/users/"+account["id"].(string)+"/role-mappings/realm", []any{role})
		require.Equal(t, http.StatusNoContent, status)
	}
	update, give := "update client "+a.client+" ", "create role admin of client "+a.client
	for name, c := range map[string]struct {
		do   func()
		want []string
	}{
		"flows":             {func() { change(map[string]any{"clientId": a.client, "directAccessGrantsEnabled": true}) }, []string{update + "directAccessGrantsEnabled"}},
		"disabled":          {func() { change(map[string]any{"clientId": a.client, "enabled": false}) }, []string{update + "enabled"}},
		"secret":            {func() { change(map[string]any{"clientId": a.client, "secret": "another-Secret-99zz"}) }, []string{update + "secret"}},
		"no account":        {func() { change(map[string]any{"clientId": a.client, "serviceAccountsEnabled": false}) }, []string{update + "serviceAccountsEnabled", give}},
		"public":            {func() { change(map[string]any{"clientId": a.client, "publicClient": true}) }, []string{update + "secret,publicClient"}},
		"role taken away":   {role, []string{give}},
		"client taken away": {func() { b.forgetClient(a.client) }, []string{"create client " + a.client, give}},
	} {
		c.do()
		plan, holds, err := a.prove(t)
		require.NoError(t, err, name)
		require.Equal(t, c.want, printOf(plan.Changes), name)
		require.NotContains(t, holds, "AGENT_SECRET", name)
		require.Equal(t, c.want, a.bring(t), name)
		require.True(t, a.signsIn(t, firstAgentSecret), name)
	}
	a.mute(t, "another-Secret-99zz")
}

// Where nobody is left as whom the agent could sign in that is Blocked with the way out, and no password is tried in a loop.
func lostAccount(t *testing.T, b *bed) {
	a := withAccount(t, b, "")
	require.Len(t, a.bring(t), 2)
	b.forgetClient(a.client)
	a.set("ADMIN_PASSWORD", desired.Secret("wrong-Secret-55dd"))
	count := a.front.grants()
	lost := func() *reconcilers.BlockedError {
		observed, err := a.reconciler().Observe(t.Context(), a.target)
		require.NoError(t, err)
		a.hear(observed.Err)
		var blocked *reconcilers.BlockedError
		require.ErrorAs(t, observed.Err, &blocked)
		require.Equal(t, "ServiceAccountLost", blocked.Reason)
		require.Empty(t, observed.Holds)
		return blocked
	}
	for range 4 {
		blocked := lost()
		require.Contains(t, blocked.Message, "as client "+a.client)
		require.Contains(t, blocked.Message, "administrator "+a.admin+" is not accepted either")
		require.Contains(t, blocked.Do, "kc.sh bootstrap-admin user --username "+a.admin+" --password:env KC_BOOTSTRAP_ADMIN_PASSWORD --db postgres --no-prompt")
	}
	require.Equal(t, 1, count("password admin-cli"+a.admin))

	// A server before 26 has no such command.
	l, err := a.reconciler().open(a.target)
	require.NoError(t, err)
	l.about.Version = "25.0.6"
	var blocked *reconcilers.BlockedError
	require.ErrorAs(t, l.accountLost("why"), &blocked)
	require.NotContains(t, blocked.Do, "kc.sh")
	require.Contains(t, blocked.Do, "Keycloak 25.0.6 has no command")

	// Without a password there is nothing to try; with the right one it goes on at once.
	password := a.spec.AdminPassword
	a.spec.AdminPassword = desired.Expr{}
	require.Contains(t, lost().Message, "the manifest has no adminPassword")
	a.spec.AdminPassword = password
	a.set("ADMIN_PASSWORD", desired.Secret(adminOfOwn))
	require.Len(t, a.bring(t), 2)
	a.mute(t, "wrong-Secret-55dd")
}

// A client that somebody else made is left alone; one that has the secret is the account, whoever made it.
func takenAccount(t *testing.T, b *bed) {
	a := withAccount(t, b, "")
	status, _ := b.admin(t, http.MethodPost, "/master/clients", map[string]any{"clientId": a.client, "secret": "somebodys-Secret-66", "standardFlowEnabled": true})
	require.Equal(t, http.StatusCreated, status)
	before := a.onServer(t)
	observed, err := a.reconciler().Observe(t.Context(), a.target)
	require.NoError(t, err)
	var blocked *reconcilers.BlockedError
	require.ErrorAs(t, observed.Err, &blocked)
	require.Equal(t, "ServiceAccountTaken", blocked.Reason)
	require.Equal(t, before, a.onServer(t))

	a.set("AGENT_SECRET", desired.Secret("somebodys-Secret-66"))
	made := a.bring(t)
	require.Equal(t, "update client "+a.client+" serviceAccountsEnabled,standardFlowEnabled", made[0])
	require.Equal(t, "create role admin of client "+a.client, made[1])
	require.True(t, a.signsIn(t, "somebodys-Secret-66"))
}

// A mode or a window that holds changes of the realm holds those of who signs in too, but for a rotation.
func heldAccount(t *testing.T, b *bed) {
	a := withAccount(t, b, "")
	a.spec.Mode = modePlanOnly
	plan, _, err := a.prove(t)
	require.NoError(t, err)
	require.Len(t, plan.Changes, 2)
	var blocked *reconcilers.BlockedError
	require.ErrorAs(t, plan.Held, &blocked)
	require.Equal(t, "PlanOnly", blocked.Reason)
	a.spec.Mode = modeApply
	a.bring(t)
	a.spec.Mode = modePlanOnly
	a.newSecret("agent-Secret-44dd", firstAgentSecret)
	plan, _, err = a.prove(t)
	require.NoError(t, err)
	require.Equal(t, []string{"update client " + a.client + " secret"}, printOf(plan.Changes))
	require.NoError(t, plan.Held)
}

// recordOf reads what is known of the server.
func (a *accounted) recordOf(t *testing.T) (r serverRecord) {
	t.Helper()
	require.NoError(t, load(filepath.Join(a.target.Dir, serverName), &r))
	return r
}
