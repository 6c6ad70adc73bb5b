package examples_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"

	"dive-agent/desired"
	"dive-agent/examples"
	"dive-agent/reconcilers/all"
	"dive-agent/testbed"
)

var kinds = all.Registry.Kinds()

// The example fleet is valid with the real kinds, as it is and with the test bed's images.
func TestExamplesLoad(t *testing.T) {
	for name, o := range map[string]examples.Options{"as it is": {}, "test bed": {Values: testbed.ExampleValues()}, "with OPAL": {Values: map[string]string{"policyRepo": "https://git.test/policies"}}} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, examples.Write(dir, o))
			fleet, err := desired.Load(dir, desired.Options{Kinds: kinds})
			require.NoError(t, err)
			require.Len(t, fleet.Instances, 4)
		})
	}
}

// The manifest reference in the docs is the one the types give. `go generate ./examples` writes it anew.
func TestManual(t *testing.T) {
	file := filepath.Join("..", "docs", "manifests.md")
	text := desired.Manual(kinds)
	if os.Getenv("UPDATE") != "" {
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
	}
	have, err := os.ReadFile(file)
	require.NoError(t, err)
	if text != string(have) {
		t.Fatal("docs/manifests.md is not current: run `go generate ./examples`")
	}
}

// Editors that know the JSON Schema find nothing wrong with the example.
func TestExamplesFitTheSchema(t *testing.T) {
	text, err := desired.Schema(kinds)
	require.NoError(t, err)
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	require.NoError(t, err)
	c := jsonschema.NewCompiler()
	require.NoError(t, c.AddResource("schema.json", document))
	schema, err := c.Compile("schema.json")
	require.NoError(t, err)
	checked := 0
	files, err := examples.Files(examples.Options{})
	require.NoError(t, err)
	for name, text := range files {
		if filepath.Ext(name) != ".yaml" || filepath.Base(name) == "compose.yaml" {
			continue
		}
		var manifest any
		require.NoError(t, yaml.Unmarshal(text, &manifest))
		require.NoError(t, schema.Validate(manifest), name)
		checked++
	}
	require.GreaterOrEqual(t, checked, 11)
}
