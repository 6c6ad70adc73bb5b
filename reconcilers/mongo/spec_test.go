package mongo

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

func TestReadSeed(t *testing.T) {
	documents, err := readSeed(strings.NewReader(`[{"coiId": "A", "n": 1}, {"coiId": "B", "at": {"$date": "2026-01-02T03:04:05Z"}}]`), "coi.json", "coiId")
	require.NoError(t, err)
	require.Len(t, documents, 2)
	require.Equal(t, "A", documents[0].key.StringValue())
	for text, want := range map[string]string{
		`{"coiId": "A"}`: "not a JSON array",
		"[{\"coiId\": \"A\"},\n {\"id\": \"B\"}]":        `coi.json:2: the document has no field "coiId"`,
		"[{\"coiId\": 1},\n\n{\"coiId\": 1.0}]":          "coi.json:3: the document has the same coiId as the one of line 1",
		`[{"coiId": null}]`:                              "a value of type null",
		`[{"coiId": 1, "a": {"b": 1, "b": 2}}]`:          `field "b" stands twice`,
		`[{"coiId": "A"`:                                 "not a JSON array",
		`[]}, {"documents": [`:                           "not a JSON array",
		`[{"coiId": "A"}], "documents": [{"coiId": "B"}`: "not a JSON array",
	} {
		_, err := readSeed(strings.NewReader(text), "coi.json", "coiId")
		require.ErrorContains(t, err, want, text)
	}
}

func TestSeedStaysInItsFolder(t *testing.T) {
	outside, folder := t.TempDir(), t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(outside, "secret.json"), []byte(`[]`), 0o600))
	require.NoError(t, os.Symlink(filepath.Join(outside, "secret.json"), filepath.Join(folder, "link.json")))
	for _, name := range []string{"link.json", "../secret.json", filepath.Join(outside, "secret.json")} {
		_, err := openSeed(folder, name, "_id")
		require.Error(t, err, name)
	}
}

func TestMemoryIsKeptAsideWhenCorrupt(t *testing.T) {
	folder := t.TempDir()
	m, err := recall(folder)
	require.NoError(t, err)
	m.ReplicaSetID, m.LastMemberID = "6b02383b7acb77902d414bf2", 4
	require.NoError(t, m.setPassword("admin.app", "app-Secret-7261", strings.NewReader(strings.Repeat("k", 32))))
	raw, err := os.ReadFile(m.path())
	require.NoError(t, err)
	require.NotContains(t, string(raw), "app-Secret-7261")
	info, err := os.Stat(m.path())
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	again, err := recall(folder)
	require.NoError(t, err)
	require.Equal(t, 4, again.LastMemberID)
	require.True(t, again.passwordIs("admin.app", "app-Secret-7261"))
	require.False(t, again.passwordIs("admin.app", "another"))

	require.NoError(t, os.WriteFile(m.path(), []byte("{half"), 0o600))
	again, err = recall(folder)
	require.NoError(t, err)
	require.Empty(t, again.ReplicaSetID)
	require.FileExists(t, m.path()+".corrupt")
}

func TestURIEscapes(t *testing.T) {
	spec := &Spec{
		Members:  []Member{{Service: "mongodb"}},
		Root:     Root{Username: desired.Literal("admin"), Password: desired.Literal("p w/@:+%")},
		Database: "dive",
	}
	w, err := resolve(reconcilers.Target{Component: &desired.Component{Name: "database", Spec: spec}, Scope: desired.NewScope(nil)})
	require.NoError(t, err)
	require.Equal(t, "mongodb://admin:p%20w%2F%40%3A%2B%25@mongodb:27017/dive?replicaSet=rs0&authSource=admin", w.uriOf(w.uriUser, false))
}

func TestSpecFromManifest(t *testing.T) {
	text := `
members:
  - {service: mongodb-1}
  - {service: mongodb-2, priority: 0, hidden: true}
  - {service: mongodb-3, votes: 0}
root: {username: admin, password: "${MONGO_PASSWORD}"}
users: [{name: app, password: "${APP}", roles: [readWrite@dive]}]
database: dive
seed: [{collection: coi_definitions, file: coi.json}]
`
	spec, err := desired.DecodeSpec(Kind, "blueprint.yaml", []byte(text))
	require.NoError(t, err)
	scope := desired.NewScope(map[string]desired.Value{"MONGO_PASSWORD": desired.Secret("r00t"), "APP": desired.UnknownSecret()})
	folder := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(folder, "coi.json"), []byte(`[{"_id": 1}]`), 0o600))
	w, err := resolve(reconcilers.Target{
		Component: &desired.Component{Name: "database", Spec: spec}, Scope: scope, SourceDir: folder,
	})
	require.NoError(t, err)
	require.Equal(t, "APP", w.unknown)
	require.Equal(t, []wantMember{
		{service: "mongodb-1", host: "mongodb-1:27017", port: 27017, shape: shape{votes: 1, priority: 1}},
		{service: "mongodb-2", host: "mongodb-2:27017", port: 27017, shape: shape{votes: 1, hidden: true}},
		{service: "mongodb-3", host: "mongodb-3:27017", port: 27017},
	}, w.members)
	require.Equal(t, "admin.app", w.uriUser.id())
	require.Equal(t, "dive.coi_definitions", w.seeds[0].name())
}
