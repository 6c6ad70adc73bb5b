package keycloak

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A person's plan, and the question what can be taken over, read the state at its place and change nothing there: neither a
// schema nor a lock is made.
func besideRemote(t *testing.T, b *bed) {
	w, schema := newPostgresWorld(t, b, "")
	live := w.target
	there := func() string { return b.sql(t, "SELECT nspname FROM pg_namespace WHERE nspname = '"+schema+"'") }
	w.target = w.beside()
	_, plan := w.look()
	require.Len(t, plan.Changes, 9)
	require.Empty(t, there(), "a plan made a schema")

	w.target = live
	w.drive()
	before := b.sql(t, "SELECT md5(data) FROM "+schema+".states")
	picture := treeOf(t, w.target.Dir)
	w.target = w.beside()
	w.spec.Variables["title"] = tree(t, "Another")
	observed, plan := w.look()
	require.NoError(t, observed.Err)
	require.Len(t, plan.Changes, 2)
	w.target = live
	require.Equal(t, "6 resources", w.adoption().State)

	// Of a move the plan tells, and does not begin it.
	moved := w.spec.Backend
	w.spec.Backend, w.spec.FormerBackend = b.postgres(t, schema+"_new"), moved
	w.target = w.beside()
	observed, plan = w.look()
	require.NoError(t, observed.Err)
	require.Len(t, plan.Changes, 2)
	require.Contains(t, strings.Join(observed.Facts.Notes, "\n"), "is going to be moved from pg ")
	w.target = live
	require.Empty(t, b.sql(t, "SELECT nspname FROM pg_namespace WHERE nspname = '"+schema+"_new'"))
	require.Equal(t, before, b.sql(t, "SELECT md5(data) FROM "+schema+".states"))
	require.Equal(t, picture, treeOf(t, w.target.Dir))
	require.Regexp(t, regexp.MustCompile(`^[0-9a-f]{32}$`), before)
}
