package keycloak

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

func typesOfTheirOwn(t *testing.T, b *bed) {
	w := newWorld(t, b, "maxChanges: 2\n")
	_, plan := w.look()
	require.Len(t, plan.Changes, 9)
	require.Empty(t, plan.Asks, "a first apply changes nothing that is there")
	w.drive()
	w.spec.Protect, w.spec.Allow = []string{"keycloak_realm", "keycloak_user"}, []string{"keycloak_role"}

	w.spec.Variables["title"], w.spec.Variables["roles"] = tree(t, "Another"), tree(t, "[writer, author]")
	_, plan = w.look()
	require.Equal(t, "keycloak_realm is protected", find(t, plan, "keycloak_realm.this").Asks, "an update in place")
	require.False(t, find(t, plan, "keycloak_realm.this").Destroys)
	gone := find(t, plan, `keycloak_role.each["reader"]`)
	require.Equal(t, reconcilers.Delete, gone.Action)
	require.False(t, gone.Destroys)
	require.Contains(t, gone.Reason, "allowed for keycloak_role")
	require.Empty(t, find(t, plan, "output.title").Asks)
	require.Equal(t, []string{"3 changes, and maxChanges is 2"}, plan.Asks, "outputs do not count")
	w.spec.MaxChanges = 3
	_, plan = w.look()
	require.Empty(t, plan.Asks)
	w.drive()
	require.NotContains(t, w.picture(t), "roles reader")

	// By hand: what is protected waits to be corrected too, what is allowed is made anew by itself.
	status, _ := b.admin(t, http.MethodDelete, "/"+w.realm+"/roles/author", nil)
	require.Equal(t, http.StatusNoContent, status)
	status, _ = b.admin(t, http.MethodPut, "/"+w.realm, map[string]any{"displayName": "by hand"})
	require.Equal(t, http.StatusNoContent, status)
	w.clock.move(time.Hour)
	_, plan = w.look()
	require.Equal(t, "keycloak_realm is protected", find(t, plan, "keycloak_realm.this").Asks)
	require.False(t, find(t, plan, `keycloak_role.each["author"]`).Destroys)

	// A replacement of what is protected is a destroy, and of what is allowed it is none.
	w.set("realm", desired.String(w.realm+"x"))
	_, plan = w.look()
	require.True(t, find(t, plan, "keycloak_realm.this").Destroys)
	require.True(t, find(t, plan, "keycloak_openid_client.app").Destroys, "neither protected nor allowed")
	require.False(t, find(t, plan, `keycloak_role.each["author"]`).Destroys)
}

func window(t *testing.T, b *bed) {
	w := newWorld(t, b, "applyWindow: {schedule: 0 2 * * 0, duration: 30m}\n")
	w.target.Instance.Position.File = "instances/deu.yaml"
	w.clock.move(time.Date(2026, 3, 3, 12, 0, 0, 0, time.UTC).Sub(w.clock.Now()))
	_, plan := w.look()
	var wait *reconcilers.WaitError
	require.ErrorAs(t, plan.Held, &wait)
	require.Equal(t, "its window, which opens Sun 2026-03-08 02:00 UTC", wait.For)
	require.Equal(t, time.Date(2026, 3, 8, 2, 0, 0, 0, time.UTC), wait.Until)
	require.Equal(t, "To have it applied before, merge into instances/deu.yaml: spec: {components: {identity: {applyWindow: {schedule: always}}}}", wait.Do)
	require.Len(t, plan.Changes, 9, "it is planned all the same")
	w.clock.move(wait.Until.Sub(w.clock.Now()))
	_, plan = w.look()
	require.NoError(t, plan.Held)

	// What was begun in the window is brought to its end after it, with the inputs that it was begun with.
	_, err := w.reconciler().Apply(t.Context(), w.target, plan, &steps{on: func(string) { w.kill(false) }})
	require.Error(t, err)
	w.clock.move(time.Hour)
	_, plan = w.look()
	require.NotEmpty(t, plan.Changes)
	require.NoError(t, plan.Held)
	w.spec.Variables["title"] = tree(t, "Another")
	_, plan = w.look()
	require.Error(t, plan.Held, "another change was not begun")
	delete(w.spec.Variables, "title")
	w.drive()
	w.spec.Variables["title"] = tree(t, "Another")
	_, plan = w.look()
	require.Error(t, plan.Held)
	w.spec.ApplyWindow.Schedule = always
	w.drive()
}

func planOnly(t *testing.T, b *bed) {
	w := newWorld(t, b, "mode: plan-only\n")
	w.target.Instance.Position.File = "instances/deu.yaml"
	_, plan := w.look()
	var blocked *reconcilers.BlockedError
	require.ErrorAs(t, plan.Held, &blocked)
	require.Equal(t, "PlanOnly", blocked.Reason)
	require.Equal(t, "6 to create planned and not applied: the mode is plan-only", blocked.Message)
	require.Equal(t, "To have it applied, merge into instances/deu.yaml: spec: {components: {identity: {mode: apply}}}", blocked.Do)
	require.Equal(t, "no realm", w.picture(t))
	w.spec.Mode = modeApply
	w.drive()
}

// waitingPlan is planned once, for as long as nothing of what it was made of changes; what is let through is planned anew.
func waitingPlan(t *testing.T, b *bed) {
	w := newWorld(t, b, "")
	w.drive()
	w.spec.Variables["roles"] = tree(t, "[writer]")
	begun := time.Now()
	held, first := w.look()
	planned := time.Since(begun)
	require.NoError(t, held.Err)
	require.True(t, find(t, first, `keycloak_role.each["reader"]`).Destroys)
	same := func(why string) reconcilers.Plan {
		t.Helper()
		before := w.processes()
		observed, plan := w.look()
		require.NoError(t, observed.Err)
		require.Equal(t, before, w.processes(), why)
		return plan
	}
	anew := func(why string) reconcilers.Plan {
		t.Helper()
		before := w.processes()
		_, plan := w.look()
		require.Greater(t, w.processes(), before, why)
		return plan
	}
	begun = time.Now()
	again := same("nothing changed")
	t.Logf("planned in %.2f s, shown again in %.3f s", planned.Seconds(), time.Since(begun).Seconds())
	require.Equal(t, []any{first.Changes, first.Content, first.Differences}, []any{again.Changes, again.Content, again.Differences})
	w.byHand("by hand")
	w.clock.move(20 * time.Minute)
	require.Equal(t, first.Content, same("the schedule had no turn").Content)

	// Somebody approves what he was shown: the realm is looked at again, and that plan is another one.
	w.target.Instance.Approve = map[string]string{"identity": "0123456789abcdef"}
	drifted := anew("approved")
	require.NotEqual(t, first.Content, drifted.Content)
	require.Contains(t, printOf(drifted.Changes), "update keycloak_realm.this display_name")
	require.Equal(t, drifted.Content, same("it waits for another approval").Content)

	// However a plan of before comes to be let through, nothing is done by it.
	_, err := w.reconciler().Apply(t.Context(), w.target, same("still"), &steps{begin: func() error { t.Error("a change was begun"); return nil }})
	var wait *reconcilers.WaitError
	require.ErrorAs(t, err, &wait)
	require.Contains(t, w.picture(t), "title by hand")
	anew("it was let through")

	w.clock.move(31 * time.Minute)
	anew("the schedule had a turn")
	w.spec.Protect = []string{"keycloak_realm"}
	require.NotEmpty(t, find(t, anew("another rule"), "keycloak_realm.this").Asks)
	w.target.CopyOf = t.TempDir()
	anew("a person asks")
	w.target.CopyOf = ""
	w.spec.Variables["title"] = tree(t, "Another")
	anew("other inputs")
	w.drive()
	require.NotContains(t, w.picture(t), "roles reader")
	require.NoFileExists(t, w.target.Dir+"/run/waiting.json")

	// One that waits for its time is planned anew when that has come.
	w.spec.Protect, w.spec.ApplyWindow = nil, &Window{Schedule: "0 2 * * 0", Duration: desired.Duration(time.Hour)}
	w.spec.DriftSchedule = "@every 1000h"
	w.spec.Variables["title"] = tree(t, "At night")
	_, plan := w.look()
	require.Error(t, plan.Held)
	plan = same("the window is closed")
	require.ErrorAs(t, plan.Held, &wait)
	w.byHand("by hand again")
	w.clock.move(wait.Until.Sub(w.clock.Now()))
	plan = anew("it opens")
	require.NoError(t, plan.Held)
	require.Equal(t, "by hand again", plan.Differences["keycloak_realm.this"][0].Before, "with the live realm")
	w.drive()
	require.Contains(t, w.picture(t), "title At night")
}
