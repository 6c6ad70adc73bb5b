package desired_test

import (
	"bytes"
	"io/fs"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"

	"dive-agent/desired"
)

func compile(t *testing.T, kinds []desired.Kind) *jsonschema.Schema {
	t.Helper()
	text, err := desired.Schema(kinds)
	require.NoError(t, err)
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	require.NoError(t, err)
	c := jsonschema.NewCompiler()
	require.NoError(t, c.AddResource("schema.json", document))
	schema, err := c.Compile("schema.json")
	require.NoError(t, err)
	return schema
}

func validate(t *testing.T, schema *jsonschema.Schema, text []byte) error {
	t.Helper()
	var document any
	require.NoError(t, yaml.Unmarshal(text, &document))
	return schema.Validate(document)
}

// What Load accepts, the schema accepts.
func TestSchemaAcceptsValidManifests(t *testing.T) {
	schema := compile(t, kinds)
	require.NoError(t, fs.WalkDir(tree(nil), ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := fs.ReadFile(tree(nil), path)
		require.NoError(t, err)
		require.NoError(t, validate(t, schema, text), path)
		return nil
	}))
	overlay := spoke("deu", "one", "  values: {code: DEU}\n  components: {stack: {services: {backend: {policy: never}}}}\n")
	require.NoError(t, validate(t, schema, []byte(overlay)))
}

func TestSchemaRefusesMistakes(t *testing.T) {
	schema := compile(t, kinds)
	for name, text := range map[string]string{
		"unknown field":     strings.Replace(spokeBlueprint, "role: spoke", "role: spoke\n  rolle: x", 1),
		"unknown kind":      strings.Replace(spokeBlueprint, "kind: Database", "kind: Databse", 1),
		"enum":              strings.Replace(spokeBlueprint, "role: spoke", "role: hubb", 1),
		"missing":           strings.Replace(spokeBlueprint, "service: mongodb", "members: 1", 1),
		"wrong type":        strings.Replace(spokeBlueprint, "steps: [", "steps: 1 #[", 1),
		"wrong apiVersion":  strings.Replace(spokeBlueprint, "v1alpha1", "v2", 1),
		"unknown component": spoke("deu", "one", "  components: {stack: {servces: {}}}\n"),
	} {
		t.Run(name, func(t *testing.T) { require.Error(t, validate(t, schema, []byte(text))) })
	}
}

func TestSchemaAndManualAreStable(t *testing.T) {
	first, err := desired.Schema(kinds)
	require.NoError(t, err)
	second, err := desired.Schema(kinds)
	require.NoError(t, err)
	require.Equal(t, string(first), string(second))
	golden(t, "manual.golden", desired.Manual(kinds))
}

// publish is a field of the kinds that have outputs, in a schema as in Load.
func TestSchemaOfPublish(t *testing.T) {
	schema := compile(t, crossing)
	for name, text := range crossingFiles(nil) {
		if text != "" {
			require.NoError(t, validate(t, schema, []byte(text)), name)
		}
	}
	for _, wrong := range []string{"publish: url", "publish: [url, url]", "publish: [1]", "publish: [{a: b}]"} {
		text := strings.Replace(spokeWithRealm("deu", "url"), "publish: [url]", wrong, 1)
		require.Error(t, validate(t, schema, []byte(text)), wrong)
	}
	text := strings.Replace(hubBlueprint, "kind: Stack", "kind: Stack\n      publish: [url]", 1)
	require.Error(t, validate(t, schema, []byte(text)), "a Stack has no outputs")
}
