package secrets_test

import (
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/secrets"
)

// inAFleet reads a secret as its manifest has it.
func inAFleet(t *testing.T, name, fields string) desired.SecretSpec {
	t.Helper()
	text := func(t string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(t)} }
	fleet, err := desired.LoadFS(fstest.MapFS{
		"fleet.yaml":         text("apiVersion: dive/v1alpha1\nkind: Fleet\nmetadata: {name: f}\nspec: {}\n"),
		"hosts/one.yaml":     text("apiVersion: dive/v1alpha1\nkind: Host\nmetadata: {name: one}\nspec: {}\n"),
		"instances/deu.yaml": text("apiVersion: dive/v1alpha1\nkind: Instance\nmetadata: {name: deu}\nspec: {role: spoke, host: one, components: {}, secrets: {" + name + ": " + fields + "}}\n"),
	}, desired.Options{})
	require.NoError(t, err)
	return *fleet.Instances["deu"].Secret(name)
}

// TestRotationByTime: in its time, not while a former value may be in use, once after a long sleep, and resumed after a crash.
func TestRotationByTime(t *testing.T) {
	h := newHost(t)
	specs := []desired.SecretSpec{inAFleet(t, "TOKEN", "{generate: {kind: token}, rotate: {every: 720h}}"), inAFleet(t, "OTHER", "{generate: {}}")}
	first, err := h.look(specs...)
	require.NoError(t, err)
	h.clock = h.clock.Add(720*time.Hour - time.Second)
	found, err := h.look(specs...)
	require.NoError(t, err)
	require.Empty(t, found.Rotated)
	h.clock = h.clock.Add(time.Second)
	found, err = h.look(specs...)
	require.NoError(t, err)
	require.Equal(t, []string{"TOKEN"}, found.Rotated)
	require.NotEqual(t, first.Values["TOKEN"].Text(), found.Values["TOKEN"].Text())
	require.Equal(t, first.Values["OTHER"].Text(), found.Values["OTHER"].Text())
	require.Equal(t, 2, h.info("TOKEN").Generation)
	require.Equal(t, 1, h.info("OTHER").Generation)
	second := found.Values["TOKEN"]

	h.clock = h.clock.Add(10_000 * time.Hour) // nothing followed yet: the former value may be in use
	found, err = h.look(specs...)
	require.NoError(t, err)
	require.Empty(t, found.Rotated)
	_, err = h.store().Forget(t.Context(), map[string]desired.Value{"TOKEN": second})
	require.NoError(t, err)
	for range 3 {
		_, err = h.look(specs...)
		require.NoError(t, err)
	}
	require.Equal(t, 3, h.info("TOKEN").Generation, "once, however long nobody looked")
	former, err := secrets.Former(secrets.Options{Instance: "deu", Dir: h.dir}, specs)
	require.NoError(t, err)
	require.Equal(t, second.Text(), former["TOKEN"][0].Text())
}

// TestRotationOfAKeyfileByTime goes in the two steps of a key that servers share, and begins no other before they are over.
func TestRotationOfAKeyfileByTime(t *testing.T) {
	h := newHost(t)
	spec := inAFleet(t, "KEY", `{generate: {kind: mongodb-keyfile}, rotate: {schedule: "0 3 1 * *"}}`)
	_, err := h.look(spec)
	require.NoError(t, err)
	h.clock = time.Date(2026, 4, 1, 3, 0, 0, 0, time.UTC)
	found, err := h.look(spec)
	require.NoError(t, err)
	require.Equal(t, []string{"KEY"}, found.Rotated)
	require.Len(t, desired.KeysOf(found.Values["KEY"].Text()), 2)
	h.clock = h.clock.AddDate(0, 1, 0)
	found, err = h.look(spec)
	require.NoError(t, err)
	require.Empty(t, found.Rotated)
	goOn, err := h.store().Forget(t.Context(), map[string]desired.Value{"KEY": found.Values["KEY"]})
	require.NoError(t, err)
	require.Equal(t, []string{"KEY"}, goOn)
	found, err = h.look(spec)
	require.NoError(t, err)
	require.Empty(t, found.Rotated, "the second step is not over")
	require.Len(t, desired.KeysOf(found.Values["KEY"].Text()), 1)
}
