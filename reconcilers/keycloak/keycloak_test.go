package keycloak

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/reconcilers"
	"dive-agent/reconcilers/conformance"
)

// TestKeycloak starts one Keycloak for all that needs one.
func TestKeycloak(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	t.Run("conformance", func(t *testing.T) {
		conformance.Run(t, conformance.Subject{CrashPoints: 2, World: func(t *testing.T) *conformance.World {
			w := newWorld(t, b, "")
			return &conformance.World{
				Target: w.target, State: w.picture, Secrets: []string{adminPassword, clientSecret},
				New: func(*testing.T) reconcilers.Reconciler { return w.reconciler() },
			}
		}})
	})
	// While a realm is deleted Keycloak answers 500 now and then to whoever administers it (a request adds up the administrator's roles,
	// and some of these just go), so that nothing else runs beside these.
	for name, test := range map[string]func(*testing.T, *bed){
		"drift is only reported":     reportedDrift,
		"a realm that is gone waits": realmGone,
	} {
		t.Run(name, func(t *testing.T) { test(t, b) })
	}
	for name, test := range map[string]func(*testing.T, *bed){
		"nothing changed, no process":                     noProcess,
		"a small change takes few processes":              fewProcesses,
		"drift is seen on schedule":                       drift,
		"a plan beside the agent changes nothing":         beside,
		"drift is put back and told":                      correctedDrift,
		"drift beside what never converges":               driftBesideWhatNeverConverges,
		"what is destroyed waits":                         destroys,
		"a killed apply is finished":                      killed,
		"an apply outlives the agent":                     orphaned,
		"killed at six points":                            killedAtSixPoints,
		"the disk fills up while the state is written":    diskFills,
		"no apply begins without room for its state":      noRoom,
		"the modules of the examples":                     examples,
		"a lost state is put back or blocked":             lostState,
		"a realm that was there is taken over on request": adoption,
		"what could be taken over is told":                adoptionTold,
		"a lost state is begun anew by imports":           begunAnew,
		"a conflict comes with its import":                conflicts,
		"states that are not what was left":               strangeStates,
		"locks of the state":                              locks,
		"a wrong password is blocked":                     wrongPassword,
		"a module that does not converge is told once":    notConverging,
		"a realm stays with its tool":                     ofOneTool,
		"an unknown input needs no process":               unknownInput,
		"types that are protected or allowed":             typesOfTheirOwn,
		"changes wait for their window":                   window,
		"plan-only is never applied":                      planOnly,
		"a plan that waits is made once":                  waitingPlan,
		"an apply is interrupted exactly":                 interrupted,
		"the server goes":                                 serverGoes,
		"the server errs":                                 serverErrs,
		"the server errs in a plan":                       serverErrsInAPlan,
		"the server does not answer a sign-in":            silentSignIn,
		"one try of a wrong password":                     oneTry,
		"drift between plan and approval":                 driftBeforeApproval,
		"two agents":                                      twoAgents,
		"a token that ended is asked for anew":            renewedToken,
		"a rotated password is set with the former one":   rotatedPassword,
		"a rotation that is cut off is finished":          cutRotation,
		"a password that the server refuses":              refusedPassword,
		"the server's version and whether it is ready":    serverItself,
		"another image is judged":                         forewarned,
		"the server does not tell its version":            versionRefused,
		"a realm is exported before something is deleted": exported,
		"who cannot export deletes nothing":               notExported,
		"a service account is made and used":              accountMade,
		"a service account that is cut off is finished":   cutAccount,
		"a rotated secret of a service account":           rotatedSecret,
		"a service account that was changed by hand":      handledAccount,
		"a service account that is lost is blocked":       lostAccount,
		"somebody else's client is left alone":            takenAccount,
		"a service account waits as the realm does":       heldAccount,
		"a bootstrap administrator goes when told so":     removedAdmin,
		"a removal that is cut off is finished":           cutRemoval,
		"an administrator that is needed stays":           keptAdmin,
		"a rotated password under a service account":      passwordUnderAccount,
		"a state in PostgreSQL":                           stateInPostgres,
		"a state moves with its backend":                  movedState,
		"a state in PostgreSQL is lost or another's":      strangeRemoteStates,
		"PostgreSQL goes":                                 stateServerGoes,
		"locks in PostgreSQL end with their holder":       postgresLocks,
		"a plan beside a remote state changes nothing":    besideRemote,
		"a state behind http":                             stateBehindHTTP,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, b)
		})
	}
}

func renewedToken(t *testing.T, b *bed) {
	s, err := newServer(b.url, "")
	require.NoError(t, err)
	require.NoError(t, s.login(t.Context(), "admin", adminPassword))
	s.token = "ended"
	roles, err := s.list(t.Context(), "master", nil, "roles")
	require.NoError(t, err)
	require.NotEmpty(t, roles)

	s.token = "ended"
	s.renew = func(ctx context.Context) error { return s.login(ctx, "admin", "wrong") }
	_, err = s.list(t.Context(), "master", nil, "roles")
	require.ErrorIs(t, err, errRefused, "a password that is refused is not tried again")
}

func noProcess(t *testing.T, b *bed) {
	w := newWorld(t, b, "")
	require.Len(t, w.drive(), 9, "6 resources and 3 outputs")
	observed, _ := w.look()
	require.Equal(t, w.realm, observed.Outputs["realm"].Text())
	require.Equal(t, clientSecret, observed.Outputs["client_secret"].Text())
	require.True(t, observed.Outputs["client_secret"].Secret())
	require.False(t, observed.Outputs["realm"].Secret())
	require.Equal(t, "6 resources", observed.Facts.Summary)

	before := w.processes()
	for range 3 {
		_, plan := w.look()
		require.Empty(t, plan.Changes)
	}
	require.Equal(t, before, w.processes(), "nothing changed, and Terraform ran")

	// A record that cannot be read costs one look, and what a crash left of the variables goes.
	record, left := filepath.Join(w.target.Dir, "record.json"), filepath.Join(w.target.Dir, "module", variablesFile)
	require.NoError(t, os.WriteFile(record, []byte("{"), 0o600))
	require.NoError(t, os.WriteFile(left, []byte(clientSecret), 0o600))
	observed, plan := w.look()
	require.NoError(t, observed.Err)
	require.Empty(t, plan.Changes)
	require.FileExists(t, record+".unreadable")
	w.quiet()

	// A container's new address alone is no reason either, and another title is one.
	w.spec.Variables["title"] = tree(t, "Another title")
	_, plan = w.look()
	require.Equal(t, []string{"update keycloak_realm.this display_name", "update output.title"}, printOf(plan.Changes))
	require.False(t, plan.Changes[0].Destroys)
	require.Len(t, w.drive(), 2)
	require.Contains(t, w.picture(t), "title Another title")
	observed, _ = w.look()
	require.Equal(t, "Another title", observed.Outputs["title"].Text())
}

// What is new in a realm that was proved to be as the module says is planned by the state; what somebody is to approve, by the
// live realm. Only what `init` acts on is a reason for it.
// The tool's version is asked for once.
func fewProcesses(t *testing.T, b *bed) {
	w := newWorld(t, b, "")
	w.drive()
	file := filepath.Join(w.target.SourceDir, "realm", "more.tf")
	ran := func(text string) (commands []string) {
		t.Helper()
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		before := w.processes()
		_, plan := w.look()
		commands = w.commands()[before:]
		require.NotEmpty(t, plan.Changes)
		w.drive()
		return commands
	}
	role := "resource \"keycloak_role\" \"more\" {\n  realm_id = keycloak_realm.this.id\n  name = \"more\"\n  description = %q\n}\n"
	w.byHand("by hand")
	require.Equal(t, []string{"plan", "show"}, ran(fmt.Sprintf(role, "one")))
	require.Contains(t, w.picture(t), "title A realm", "the proof afterwards compares with the live realm")
	require.Equal(t, []string{"init", "plan", "show"}, ran(fmt.Sprintf(role, "two")+"terraform {\n  required_version = \">= 1.5\"\n}\n"))

	require.NoError(t, os.Remove(file))
	before := w.processes()
	_, plan := w.look()
	require.Len(t, plan.Changes, 1)
	require.True(t, plan.Changes[0].Destroys)
	require.Equal(t, 2, strings.Count(strings.Join(w.commands()[before:], " "), "plan"), "whoever approves it is shown the live realm")
}

func tree(t *testing.T, text string) desired.Tree {
	t.Helper()
	parsed, err := desired.ParseTree("test.yaml", []byte(text))
	require.NoError(t, err)
	return parsed
}

func drift(t *testing.T, b *bed) {
	w := newWorld(t, b, "driftSchedule: '*/30 * * * *'\n")
	w.drive()
	status, _ := b.admin(t, http.MethodPut, "/"+w.realm, map[string]any{"displayName": "by hand"})
	require.Equal(t, http.StatusNoContent, status)
	_, plan := w.look()
	require.Empty(t, plan.Changes, "before its turn nobody looks")
	w.clock.move(30 * time.Minute)
	_, plan = w.look()
	require.Equal(t, []string{"update keycloak_realm.this display_name"}, printOf(plan.Changes))
	require.Contains(t, plan.Changes[0].Reason, "changed outside of Terraform")
	w.drive()
	require.Contains(t, w.picture(t), "title A realm")

	users := b.list(t, "/"+w.realm+"/users")
	status, _ = b.admin(t, http.MethodDelete, "/"+w.realm+"/users/"+users[0]["id"].(string), nil)
	require.Equal(t, http.StatusNoContent, status)
	w.clock.move(30 * time.Minute)
	_, plan = w.look()
	require.Len(t, plan.Changes, 1)
	require.Equal(t, reconcilers.Create, plan.Changes[0].Action)
	require.True(t, plan.Changes[0].Destroys, "what was deleted by hand waits for approval")
}

func destroys(t *testing.T, b *bed) {
	w := newWorld(t, b, "")
	w.drive()
	w.spec.Variables["roles"] = tree(t, "[reader]")
	_, first := w.look()
	require.Equal(t, []string{`delete keycloak_role.each["writer"]`}, printOf(first.Changes))
	require.True(t, first.Changes[0].Destroys)
	w.clock.move(time.Hour) // else it is not planned again
	_, second := w.look()
	require.NotEmpty(t, first.Content)
	require.Equal(t, first.Content, second.Content, "the same plan has the same digest")
	w.spec.Variables["roles"] = tree(t, "[writer]")
	_, other := w.look()
	require.NotEqual(t, first.Content, other.Content, "another plan has another digest")

	_, err := w.reconciler().Apply(t.Context(), w.target, first, &steps{})
	require.ErrorContains(t, err, "no longer there", "a plan that was made again is not applied")
	require.Contains(t, w.picture(t), "roles reader")

	w.set("realm", desired.String(w.realm+"x"))
	_, plan := w.look()
	require.Equal(t, reconcilers.Replace, find(t, plan, "keycloak_realm.this").Action)
	require.True(t, find(t, plan, "keycloak_realm.this").Destroys)
	require.Contains(t, find(t, plan, "keycloak_realm.this").Reason, "realm")
}

func find(t *testing.T, plan reconcilers.Plan, address string) reconcilers.Change {
	t.Helper()
	for _, c := range plan.Changes {
		if c.Address == address {
			return c
		}
	}
	t.Fatalf("no change of %s in %v", address, printOf(plan.Changes))
	return reconcilers.Change{}
}

func lostState(t *testing.T, b *bed) {
	w := newWorld(t, b, "")
	w.drive()
	state := filepath.Join(w.target.Dir, "terraform.tfstate")
	whole, err := os.ReadFile(state)
	require.NoError(t, err)
	for name, lose := range map[string]func() error{
		"0 bytes":    func() error { return os.WriteFile(state, nil, 0o600) },
		"cut off":    func() error { return os.WriteFile(state, whole[:len(whole)/2], 0o600) },
		"gone":       func() error { return os.Remove(state) },
		"older":      func() error { return os.WriteFile(state, older(whole), 0o600) },
		"of another": func() error { return os.WriteFile(state, other(whole), 0o600) },
	} {
		require.NoError(t, lose(), name)
		observed, plan := w.look()
		require.NoError(t, observed.Err, name)
		require.Empty(t, plan.Changes, name)
		require.Contains(t, strings.Join(observed.Facts.Notes, "\n"), "put back from copy", name)
		back, err := os.ReadFile(state)
		require.NoError(t, err)
		require.Equal(t, string(whole), string(back), name)
	}

	require.NoError(t, os.WriteFile(state, nil, 0o600))
	require.NoError(t, os.RemoveAll(filepath.Join(w.target.Dir, "copies")))
	require.NoError(t, os.RemoveAll(state+".backup"))
	before := w.processes()
	observed, plan := w.look()
	var blocked *reconcilers.BlockedError
	require.ErrorAs(t, observed.Err, &blocked)
	require.Equal(t, "StateLost", blocked.Reason)
	require.Contains(t, blocked.Do, "`dive-agent adopt deu` shows what of it can be imported")
	require.Contains(t, blocked.Do, "merge into instances/deu.yaml: spec: {components: {identity: {adopt: true}}}")
	require.Empty(t, plan.Changes)
	require.Equal(t, before, w.processes(), "Terraform ran with a lost state")
	require.Equal(t, w.realm, observed.Outputs["realm"].Text(), "what is known stays published")
}

func older(state []byte) []byte {
	return []byte(strings.Replace(string(state), `"serial": `, `"serial": 0`, 1))
}

func other(state []byte) []byte {
	return []byte(strings.Replace(string(state), `"lineage": "`, `"lineage": "f`, 1))
}

func adoption(t *testing.T, b *bed) {
	first := newWorld(t, b, "")
	first.drive()
	picture := first.picture(t)

	w := newWorld(t, b, "")
	w.realm = first.realm
	w.set("realm", desired.String(first.realm))
	observed, plan := w.look()
	var blocked *reconcilers.BlockedError
	require.ErrorAs(t, observed.Err, &blocked)
	require.Equal(t, "RealmExists", blocked.Reason)
	require.Contains(t, blocked.Do, "`dive-agent adopt deu`")
	require.Empty(t, plan.Changes)

	w.spec.Adopt = true
	observed, plan = w.look()
	require.NoError(t, observed.Err)
	for _, c := range plan.Changes {
		require.False(t, c.Destroys, c.Address)
		if !strings.HasPrefix(c.Address, "output.") {
			require.Equal(t, reconcilers.Update, c.Action, "%s is taken over", c.Address)
		}
	}
	w.drive()
	require.Equal(t, picture, w.picture(t))
	_, plan = w.look()
	require.Empty(t, plan.Changes)
}

func realmGone(t *testing.T, b *bed) {
	w := newWorld(t, b, "")
	w.drive()
	status, _ := b.admin(t, http.MethodDelete, "/"+w.realm, nil)
	require.Equal(t, http.StatusNoContent, status)
	observed, plan := w.look()
	require.Contains(t, strings.Join(observed.Facts.Notes, "\n"), "not on the server")
	require.Len(t, plan.Changes, 6)
	for _, c := range plan.Changes {
		require.True(t, c.Destroys, "%s must wait for approval", c.Address)
	}
}

func wrongPassword(t *testing.T, b *bed) {
	w := newWorld(t, b, "")
	w.set("ADMIN_PASSWORD", desired.Secret("wrong-Secret-99cc"))
	observed, err := w.reconciler().Observe(t.Context(), w.target)
	require.NoError(t, err)
	var blocked *reconcilers.BlockedError
	require.ErrorAs(t, observed.Err, &blocked)
	require.Equal(t, "WrongPassword", blocked.Reason)
	require.NotContains(t, blocked.Error(), "wrong-Secret-99cc")
	before := w.processes()
	observed, err = w.reconciler().Observe(t.Context(), w.target)
	require.NoError(t, err)
	require.ErrorAs(t, observed.Err, &blocked)
	require.Equal(t, before, w.processes(), "the wrong password was tried again at once")
	require.Equal(t, "no realm", w.picture(t))
}

func notConverging(t *testing.T, b *bed) {
	w := newWorld(t, b, "")
	w.spec.Variables["undeclared"] = tree(t, "true")
	made := w.drive()
	require.Equal(t, 1, strings.Count(strings.Join(made, "\n"), "update keycloak_user.someone attributes"), "%v", made)
	observed, plan := w.look()
	require.NoError(t, observed.Err)
	require.Empty(t, plan.Changes)
	require.Contains(t, observed.Facts.Summary, "does not converge")
	require.Contains(t, strings.Join(observed.Facts.Notes, "\n"), "keycloak_user.someone attributes")
	before := w.processes()
	w.look()
	require.Equal(t, before, w.processes())
	w.clock.move(time.Hour)
	_, plan = w.look()
	require.Empty(t, plan.Changes, "told again and applied in a loop")
}

func unknownInput(t *testing.T, b *bed) {
	w := newWorld(t, b, "")
	w.spec.Variables["title"] = tree(t, "${registration.name}")
	w.target.Scope = w.target.Scope.WithObject("registration", map[string]desired.Value{"name": desired.Unknown()})
	observed, plan := w.look()
	require.NoError(t, observed.Err)
	require.Equal(t, []string{"registration.name"}, plan.Unknown)
	require.Len(t, plan.Changes, 1)
	require.Zero(t, w.processes())
	_, err := w.reconciler().Apply(t.Context(), w.target, plan, &steps{})
	var wait *reconcilers.WaitError
	require.True(t, errors.As(err, &wait))
}
