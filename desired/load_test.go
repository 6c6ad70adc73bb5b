package desired_test

import (
	"errors"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
)

// tree is a small valid repository with files put over it; an empty text removes a file.
func tree(over map[string]string) fstest.MapFS {
	files := map[string]string{
		"fleet.yaml":                      fleetYAML,
		"hosts/one.yaml":                  "apiVersion: dive/v1alpha1\nkind: Host\nmetadata: {name: one}\nspec: {}\n",
		"blueprints/hub/blueprint.yaml":   hubBlueprint,
		"blueprints/spoke/blueprint.yaml": spokeBlueprint,
		"instances/usa.yaml":              "apiVersion: dive/v1alpha1\nkind: Instance\nmetadata: {name: usa}\nspec: {blueprint: hub, host: one}\n",
		"instances/deu.yaml":              spoke("deu", "one", "  values: {code: DEU, portOffset: 11}\n"),
	}
	for name, text := range over {
		files[name] = text
	}
	out := fstest.MapFS{}
	for name, text := range files {
		if text != "" {
			out[name] = &fstest.MapFile{Data: []byte(text)}
		}
	}
	return out
}

func loadTree(t *testing.T, over map[string]string) *desired.Fleet {
	t.Helper()
	fleet, err := desired.LoadFS(tree(over), desired.Options{Kinds: kinds})
	require.NoError(t, err)
	return fleet
}

func problemsIn(t *testing.T, over map[string]string) []string {
	t.Helper()
	fleet, err := desired.LoadFS(tree(over), desired.Options{Kinds: kinds})
	if err == nil {
		return nil
	}
	require.Nil(t, fleet)
	var problems desired.Problems
	require.True(t, errors.As(err, &problems))
	var out []string
	for _, p := range problems {
		out = append(out, p.String())
	}
	return out
}

func TestLoad(t *testing.T) {
	fleet := loadTree(t, nil)
	require.Equal(t, "coalition", fleet.Name)
	require.Len(t, fleet.Instances, 2)
	deu := fleet.Instances["deu"]
	require.Equal(t, "spoke", deu.Role)
	require.Equal(t, "one", deu.Host)
	require.Equal(t, "blueprints/spoke", deu.Source)
	require.Equal(t, "dive-spoke-deu", deu.Values["project"].Text())
	require.Equal(t, "mongo:7", deu.Values["image"].Text())

	var order []string
	for _, n := range deu.Graph.Nodes {
		order = append(order, n.ID)
	}
	require.Equal(t, []string{"stack/mongodb", "database", "registration", "stack/backend", "stack/frontend"}, order)
	backend := deu.Graph.Nodes[3]
	require.Equal(t, "database", backend.Needs[0].On)
	require.Equal(t, "uri", backend.Needs[0].Output)
	require.Equal(t, "registration", backend.Needs[1].On)
	require.True(t, deu.Graph.Nodes[1].Needs[0].Started)

	require.Equal(t, "password", deu.Secret("PASSWORD").Generate.Kind)
	require.Equal(t, "0400", deu.Secret("KEYFILE").File.Mode)
	require.Equal(t, 999, deu.Secret("KEYFILE").File.Owner)
}
