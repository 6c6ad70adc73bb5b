package keycloak

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

func (w *world) byHand(displayName string) {
	w.t.Helper()
	status, _ := w.bed.admin(w.t, http.MethodPut, "/"+w.realm, map[string]any{"displayName": displayName})
	require.Equal(w.t, http.StatusNoContent, status)
}

func (w *world) notes() (notes, summary string) {
	w.t.Helper()
	observed, _ := w.look()
	require.NoError(w.t, observed.Err)
	return strings.Join(observed.Facts.Notes, "\n"), observed.Facts.Summary
}

func correctedDrift(t *testing.T, b *bed) {
	w := newWorld(t, b, "")
	w.drive()
	w.byHand("by hand")
	w.clock.move(30 * time.Minute)
	notes, summary := w.notes()
	require.Contains(t, notes, "keycloak_realm.this was changed outside of Terraform (display_name), first seen 2026-03-01 12:31 UTC")
	require.Contains(t, summary, "1 changed outside")
	require.Equal(t, []string{"update keycloak_realm.this display_name"}, w.drive())
	require.Contains(t, w.picture(t), "title A realm")
	notes, summary = w.notes()
	require.Contains(t, notes, "as the module says again since 2026-03-01 12:31 UTC")
	require.Equal(t, "6 resources", summary)
	w.clock.move(25 * time.Hour)
	w.look()
	notes, _ = w.notes()
	require.Empty(t, notes)
}

func reportedDrift(t *testing.T, b *bed) {
	w := newWorld(t, b, "drift: report\n")
	w.drive()
	w.byHand("by hand")
	users := b.list(t, "/"+w.realm+"/users")
	status, _ := b.admin(t, http.MethodDelete, "/"+w.realm+"/users/"+users[0]["id"].(string), nil)
	require.Equal(t, http.StatusNoContent, status)
	w.clock.move(30 * time.Minute)
	for range 2 {
		observed, plan := w.look()
		require.NoError(t, observed.Err)
		require.Empty(t, plan.Changes, "it is only told")
		notes := strings.Join(observed.Facts.Notes, "\n")
		require.Contains(t, notes, "keycloak_realm.this was changed outside of Terraform (display_name), first seen 2026-03-01 12:31 UTC; left as it is")
		require.Contains(t, notes, "keycloak_user.someone was deleted outside of Terraform, first seen 2026-03-01 12:31 UTC; left as it is")
		require.Equal(t, "6 resources, 2 changed outside", observed.Facts.Summary)
		w.clock.move(time.Hour)
	}
	require.Contains(t, w.picture(t), "title by hand")

	// A realm that is gone is another matter, and so is a change of the manifest.
	w.spec.Variables["roles"] = tree(t, "[reader, writer, editor]")
	_, plan := w.look()
	require.ElementsMatch(t, []string{"update keycloak_realm.this display_name", "create keycloak_user.someone", "create keycloak_role.each[\"editor\"]"}, printOf(plan.Changes))
	w.drive()
	require.Contains(t, w.picture(t), "title A realm")
	_, summary := w.notes()
	require.Equal(t, "7 resources", summary)
	status, _ = b.admin(t, http.MethodDelete, "/"+w.realm, nil)
	require.Equal(t, http.StatusNoContent, status)
	_, plan = w.look()
	require.Len(t, plan.Changes, 7, "a realm that is gone waits for approval")
	require.True(t, plan.Changes[0].Destroys)
}

func driftBesideWhatNeverConverges(t *testing.T, b *bed) {
	w := newWorld(t, b, "")
	w.spec.Variables["undeclared"] = tree(t, "true")
	w.drive()
	notes, _ := w.notes()
	require.NotContains(t, notes, "outside", "what does not converge is no drift")
	w.byHand("by hand")
	w.clock.move(time.Hour)
	notes, summary := w.notes()
	require.Contains(t, notes, "keycloak_realm.this was changed outside")
	require.NotContains(t, notes, "keycloak_user.someone was")
	require.Contains(t, summary, "1 changed outside")
	made := w.drive()
	require.ElementsMatch(t, []string{"update keycloak_realm.this display_name", "update keycloak_user.someone attributes"}, made, "applied once, not in a loop")
	require.Contains(t, w.picture(t), "title A realm")
}

// A turn of the schedule wakes the agent, and one more when the last comparison was later than the turn.
func TestTheDriftScheduleWakesTheAgent(t *testing.T) {
	t.Parallel()
	ticking := &hand{clock: clock{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}, asked: make(chan time.Duration), fire: make(chan time.Time)}
	r := New(reconcilers.Deps{Clock: ticking})
	w := &world{t: t}
	w.target.Dir = t.TempDir()
	w.target.Component = &desired.Component{Name: "identity", Kind: Kind.Name, Spec: decode(t, "service: keycloak\nmodule: realm\ndriftSchedule: '@every 30m'\n")}
	ctx, cancel := context.WithCancel(t.Context())
	woken, ended := make(chan string, 1), make(chan error, 1)
	go func() { ended <- r.Watch(ctx, w.target, func(part string) { woken <- part }) }()
	require.Equal(t, 30*time.Minute, <-ticking.asked)
	ticking.move(30 * time.Minute)
	require.NoError(t, store(w.target.Dir+"/"+recordName, record{Compared: ticking.Now().Add(-29 * time.Minute)}))
	ticking.fire <- ticking.Now()
	require.Empty(t, <-woken)
	require.Equal(t, time.Minute, <-ticking.asked)
	cancel()
	require.NoError(t, <-ended)
}

// hand is a clock whose alarms a test lets off.
type hand struct {
	clock
	asked chan time.Duration
	fire  chan time.Time
}

func (h *hand) After(d time.Duration) <-chan time.Time { h.asked <- d; return h.fire }
