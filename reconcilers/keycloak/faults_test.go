package keycloak

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/reconcilers"
	"dive-agent/testbed"
)

var errStops = errors.New("the agent stops")

// A slow apply whose agent is told to stop: Terraform ends what is under way and writes its state, nothing is left over, and
// the next agent does the rest.
func interrupted(t *testing.T, b *bed) {
	f := newFront(t, b)
	w := f.through(t, b, "parallelism: 2\n")
	w.spec.Variables["roles"] = tree(t, "[r1, r2, r3, r4, r5, r6, r7, r8, r9, r10, r11, r12]")
	f.on(slow(2 * time.Second))
	w.clock.hurry = true
	_, plan := w.look()
	ctx, stop := context.WithCancelCause(t.Context())
	var once sync.Once
	heard := &steps{on: func(said string) {
		var done int
		if _, err := fmt.Sscanf(said, "%d of 16 ", &done); err == nil && done >= 2 && strings.Contains(said, "create keycloak_role.each") {
			once.Do(func() { stop(errStops) })
		}
	}}
	begun := time.Now()
	_, err := w.reconciler().Apply(ctx, w.target, plan, heard)
	require.ErrorIs(t, err, errStops)
	require.Contains(t, err.Error(), "of 16 changes were made: the agent stops")
	require.Less(t, time.Since(begun), 40*time.Second)
	w.nobodyIsLeft()
	state, err := readState(filepath.Join(w.target.Dir, "terraform.tfstate"))
	require.NoError(t, err)
	require.Greater(t, state.managed(), 1)
	require.Less(t, state.managed(), 16)
	require.Len(t, heard.ended, 19, "each change that was begun has its end")
	require.ErrorIs(t, heard.ended[`output.title`], errStops)

	f.on(nil)
	require.Contains(t, strings.Join(w.drive(), "\n"), "create keycloak_role.each")
	require.Equal(t, 12, strings.Count(w.picture(t), "roles r"), "none is missing, none is twice")
	observed, _ := w.look()
	require.Regexp(t, `^\d+ (created|updated)`, observed.Facts.Values["appliedChanges"], "what was cut off may have to be brought to its end in an apply of its own")
	require.NotEmpty(t, observed.Facts.Values["applied"])
	require.NotEmpty(t, observed.Facts.Values["driftChecked"])
}

// nobodyIsLeft checks that no process works in the module's folder.
func (w *world) nobodyIsLeft() {
	w.t.Helper()
	dir, err := filepath.EvalSymlinks(filepath.Join(w.target.Dir, "module"))
	require.NoError(w.t, err)
	testbed.Eventually(w.t, 10*time.Second, "no process of Terraform is left", func() error {
		if left := processesIn(dir); len(left) > 0 {
			return fmt.Errorf("%v", left)
		}
		return nil
	})
}

// The server goes in the middle of an apply: what was made stays known, and the rest follows when it is back.
func serverGoes(t *testing.T, b *bed) {
	f := newFront(t, b)
	w := f.through(t, b, "parallelism: 1\n")
	_, plan := w.look()
	_, err := w.reconciler().Apply(t.Context(), w.target, plan, &steps{on: func(said string) {
		if strings.Contains(said, "create keycloak_user.someone") {
			f.away.Store(true)
		}
	}})
	require.Error(t, err)
	w.hear(err)
	var blocked *reconcilers.BlockedError
	require.False(t, errors.As(err, &blocked), "it is tried again: %v", err)
	observed, err := w.reconciler().Observe(t.Context(), w.target)
	require.NoError(t, err)
	var wait *reconcilers.WaitError
	require.ErrorAs(t, observed.Err, &wait)
	require.Contains(t, wait.For, "Keycloak at "+f.URL)
	w.nobodyIsLeft()
	f.away.Store(false)
	w.drive()
	require.Equal(t, 1, strings.Count(w.picture(t), "users someone"))
}

// An answer of 500 now and then is a failure that names the resource, and the next try does the rest.
func serverErrs(t *testing.T, b *bed) {
	f := newFront(t, b)
	w := f.through(t, b, "")
	var once sync.Once
	f.on(func(rw http.ResponseWriter, r *http.Request) (answered bool) {
		if r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/clients") {
			once.Do(func() {
				rw.WriteHeader(http.StatusInternalServerError)
				answered = true
			})
		}
		return answered
	})
	err := w.apply()
	require.ErrorContains(t, err, "keycloak_openid_client.app")
	require.ErrorContains(t, err, "500 Internal Server Error")
	require.Regexp(t, `main\.tf:61:\d+: keycloak_openid_client\.app: `, err.Error())
	var blocked *reconcilers.BlockedError
	require.False(t, errors.As(err, &blocked))
	w.drive()
	require.Contains(t, w.picture(t), "clients app")
}

// What changes nothing is asked once more when the server fails: a 500 that passes is no failure, and one that stays is told.
func serverErrsInAPlan(t *testing.T, b *bed) {
	f := newFront(t, b)
	w := f.through(t, b, "")
	var failures atomic.Int64 // to come
	failing := func(part string) func(http.ResponseWriter, *http.Request) bool {
		return func(rw http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, part) || failures.Add(-1) < 0 {
				return false
			}
			rw.WriteHeader(http.StatusInternalServerError)
			_, _ = rw.Write([]byte(`{"error":"unknown_error","error_description":"For more on this error consult the server log."}`))
			return true
		}
	}
	f.on(failing("/admin/serverinfo"))
	failures.Store(1)
	w.drive()
	require.Negative(t, failures.Load(), "the agent asks for the version before the provider does")

	f.on(failing("/roles-by-id/"))
	failures.Store(1)
	w.clock.move(time.Hour)
	before := w.plans()
	observed, plan := w.look()
	require.NoError(t, observed.Err)
	require.Empty(t, plan.Changes)
	require.Equal(t, before+2, w.plans())
	require.Contains(t, w.said.String(), "the server failed during a plan, which is made once more")

	failures.Store(math.MaxInt64)
	w.clock.move(time.Hour)
	_, err := w.lasting().Observe(t.Context(), w.target)
	require.ErrorContains(t, err, "500 Internal Server Error")
	require.Equal(t, before+4, w.plans(), "it is not asked again and again")
}

// A server that does not answer who signs in is waited for, as one that does not answer at all.
func silentSignIn(t *testing.T, b *bed) {
	f := newFront(t, b)
	w := f.through(t, b, "")
	f.on(func(rw http.ResponseWriter, r *http.Request) bool {
		signsIn := strings.HasSuffix(r.URL.Path, "/openid-connect/token")
		if signsIn {
			cut(rw)
		}
		return signsIn
	})
	observed, err := w.reconciler().Observe(t.Context(), w.target)
	require.NoError(t, err)
	var wait *reconcilers.WaitError
	require.ErrorAs(t, observed.Err, &wait)
	require.Equal(t, "Keycloak at "+f.URL, wait.For)
	require.ErrorContains(t, wait, "sign in to Keycloak at "+f.URL+" as admin")
	require.Zero(t, w.plans())
	f.on(nil)
	w.drive()
}

// A wrong password is tried once, then once more after five minutes, and then not for longer than the server counts.
func oneTry(t *testing.T, b *bed) {
	f := newFront(t, b)
	w := f.through(t, b, "")
	w.set("ADMIN_PASSWORD", desired.Secret("wrong-Secret-99cc"))
	look := func() {
		observed, err := w.reconciler().Observe(t.Context(), w.target)
		require.NoError(t, err)
		var blocked *reconcilers.BlockedError
		require.ErrorAs(t, observed.Err, &blocked)
		require.Equal(t, "WrongPassword", blocked.Reason)
		require.Contains(t, blocked.Do, "refused.json")
	}
	look()
	require.EqualValues(t, 1, f.logins.Load(), "one try")
	for range 3 {
		look()
	}
	require.EqualValues(t, 1, f.logins.Load())
	w.clock.move(6 * time.Minute)
	for range 3 {
		look()
	}
	require.EqualValues(t, 2, f.logins.Load())
	for range 12 {
		w.clock.move(time.Hour)
		look()
	}
	require.EqualValues(t, 2, f.logins.Load(), "as often as this the server forgets nothing")
	require.NoError(t, os.Remove(filepath.Join(w.target.Dir, "refused.json")))
	look()
	require.EqualValues(t, 3, f.logins.Load(), "a person has it tried")
	w.set("ADMIN_PASSWORD", desired.Secret(adminPassword))
	f.on(func(rw http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/openid-connect/token") {
			rw.WriteHeader(http.StatusUnauthorized)
			_, _ = rw.Write([]byte(`{"error":"invalid_grant","error_description":"Invalid user credentials"}`))
			return true
		}
		return false
	})
	look()
	f.on(nil)
	w.clock.move(6 * time.Minute) // the lock is open again
	w.drive()
	require.NoFileExists(t, filepath.Join(w.target.Dir, "refused.json"))
}

// Somebody changes the realm between plan and approval: the digest is another one, and the plan that was approved cannot be
// applied any more.
func driftBeforeApproval(t *testing.T, b *bed) {
	w := newWorld(t, b, "")
	w.drive()
	w.spec.Variables["roles"] = tree(t, "[reader]")
	_, first := w.look()
	require.True(t, first.Changes[0].Destroys)
	status, _ := b.admin(t, http.MethodPut, "/"+w.realm, map[string]any{"displayName": "by hand"})
	require.Equal(t, http.StatusNoContent, status)
	w.target.Instance.Approve = map[string]string{"identity": "of the first plan"}
	_, second := w.look()
	require.NotEqual(t, first.Content, second.Content)
	require.Len(t, second.Changes, 2)
	_, err := w.reconciler().Apply(t.Context(), w.target, first, &steps{})
	require.ErrorContains(t, err, "no longer there")
	require.Contains(t, w.picture(t), "roles writer")
}

// A second agent that works on the instance at the same time begins nothing, and one with a folder of its own meets a realm
// that is not in its state.
func twoAgents(t *testing.T, b *bed) {
	f := newFront(t, b)
	w := f.through(t, b, "")
	f.on(slow(time.Second))
	_, plan := w.look()
	var second reconcilers.Observed
	var once sync.Once
	_, err := w.reconciler().Apply(t.Context(), w.target, plan, &steps{on: func(said string) {
		if strings.Contains(said, "create keycloak_role") {
			once.Do(func() {
				before := w.processes()
				var err error
				second, err = w.reconciler().Observe(t.Context(), w.target)
				require.NoError(t, err)
				require.Equal(t, before, w.processes())
			})
		}
	}})
	require.NoError(t, err)
	var wait *reconcilers.WaitError
	require.ErrorAs(t, second.Err, &wait)
	require.Equal(t, "the Terraform run that is under way", wait.For)

	other := newWorld(t, b, "")
	other.set("realm", desired.String(w.realm))
	observed, plan := other.look()
	var blocked *reconcilers.BlockedError
	require.ErrorAs(t, observed.Err, &blocked)
	require.Equal(t, "RealmExists", blocked.Reason)
	require.Empty(t, plan.Changes)
}
