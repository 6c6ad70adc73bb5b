package desired_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
)

// write puts a repository in a folder.
func write(t *testing.T, over map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, file := range tree(over) {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, file.Data, 0o644))
	}
	return dir
}

func TestNewInstanceFile(t *testing.T) {
	o := desired.Options{Kinds: kinds}
	dir := write(t, nil) // USA with offset 0 and DEU with 11, both on host one
	files, err := desired.NewInstanceFile(dir, o, desired.NewInstance{Role: "spoke", Code: "gbr", Country: "United Kingdom"})
	require.NoError(t, err)
	require.Len(t, files, 2)
	require.Equal(t, "hosts/gbr-01.yaml", files[0].Path)
	require.Equal(t, "instances/gbr.yaml", files[1].Path)
	require.Equal(t, `apiVersion: dive/v1alpha1
kind: Instance
metadata: {name: gbr}
spec:
  blueprint: spoke
  host: gbr-01
  values: {code: GBR, portOffset: 31}
`, string(files[1].Text))

	// Estonia has no offset of its own; on host one 0 and 11 are taken.
	files, err = desired.NewInstanceFile(dir, o, desired.NewInstance{Role: "spoke", Code: "EST", Host: "one"})
	require.NoError(t, err)
	require.Len(t, files, 1)
	require.Contains(t, string(files[0].Text), "portOffset: 1}")

	for name, want := range map[string]desired.NewInstance{
		"is there already":      {Role: "spoke", Code: "DEU"},
		"has the code DEU":      {Role: "spoke", Code: "DEU", Name: "berlin"},
		"three letters":         {Role: "spoke", Code: "Germany"},
		"use spoke or hub":      {Role: "sp", Code: "FRA"},
		"a second hub":          {Role: "hub", Code: "FRA"},
		"use lower-case":        {Role: "spoke", Code: "FRA", Name: "../x"},
		`host "../../etc": use`: {Role: "spoke", Code: "FRA", Host: "../../etc"},
	} {
		_, err := desired.NewInstanceFile(dir, o, want)
		require.ErrorContains(t, err, name)
	}

	// What is written is valid as it stands.
	for _, file := range files {
		require.NoError(t, os.WriteFile(filepath.Join(dir, file.Path), file.Text, 0o644))
	}
	_, err = desired.Load(dir, o)
	require.NoError(t, err)
}

// Country names that YAML would read as something else are quoted.
func TestNewInstanceQuotesTheCountry(t *testing.T) {
	blueprint := spokeBlueprint[:len("apiVersion: dive/v1alpha1\nkind: Blueprint\nmetadata: {name: spoke}\nspec:\n  role: spoke\n  values:\n")] +
		"    country: {required: true}\n" + spokeBlueprint[len("apiVersion: dive/v1alpha1\nkind: Blueprint\nmetadata: {name: spoke}\nspec:\n  role: spoke\n  values:\n"):]
	dir := write(t, map[string]string{"blueprints/spoke/blueprint.yaml": blueprint, "instances/deu.yaml": ""})
	o := desired.Options{Kinds: kinds}
	for country, want := range map[string]string{
		"Germany": "country: Germany", "Côte d'Ivoire": `country: "Côte d'Ivoire"`, "true": `country: "true"`,
		"a: {b}": `country: "a: {b}"`, "${code}": `country: "$${code}"`, "007": `country: "007"`,
	} {
		files, err := desired.NewInstanceFile(dir, o, desired.NewInstance{Role: "spoke", Code: "CIV", Country: country})
		require.NoError(t, err, country)
		require.Contains(t, string(files[1].Text), want)
	}
}

// A symbolic link that leaves the repository is refused, wherever it stands.
func TestSymlinks(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(outside, []byte("kind: Secret"), 0o644))
	for _, place := range []string{"instances/evil.yaml", "hosts/evil.yaml"} {
		dir := write(t, nil)
		require.NoError(t, os.Symlink(outside, filepath.Join(dir, place)))
		_, err := desired.Load(dir, desired.Options{Kinds: kinds})
		require.ErrorContains(t, err, place)
		require.NotContains(t, err.Error(), "Secret")
	}
	dir := write(t, map[string]string{"real.yaml": spoke("ita", "one", "  values: {code: ITA, portOffset: 5}\n")})
	require.NoError(t, os.Symlink("../real.yaml", filepath.Join(dir, "instances", "ita.yaml")))
	fleet, err := desired.Load(dir, desired.Options{Kinds: kinds})
	require.NoError(t, err, "a link inside the repository is fine")
	require.NotNil(t, fleet.Instances["ita"])
}

// A digest changes with what shapes the instance and with nothing else.
func TestDigests(t *testing.T) {
	base := loadTree(t, nil)
	again := loadTree(t, nil)
	require.Equal(t, base.Digest, again.Digest)
	require.Equal(t, base.Instances["deu"].Digest, again.Instances["deu"].Digest)

	other := loadTree(t, map[string]string{"blueprints/spoke/extra.txt": "x"})
	require.NotEqual(t, base.Digest, other.Digest)
	require.NotEqual(t, base.Instances["deu"].Digest, other.Instances["deu"].Digest)
	require.Equal(t, base.Instances["usa"].Digest, other.Instances["usa"].Digest, "another blueprint")

	other = loadTree(t, map[string]string{"fleet.yaml": fleetYAML + "  # a comment\n"})
	require.Equal(t, base.Instances["deu"].Digest, other.Instances["deu"].Digest)
	other = loadTree(t, map[string]string{"fleet.yaml": fleetYAML + "  values: {image: mongo:8}\n"})
	require.NotEqual(t, base.Instances["deu"].Digest, other.Instances["deu"].Digest)
	require.Equal(t, base.Instances["usa"].Digest, other.Instances["usa"].Digest, "the hub's blueprint does not declare it")
	require.Equal(t, "mongo:8", other.Instances["deu"].Values["image"].Text())
}
