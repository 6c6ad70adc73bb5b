package published_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/published"
)

func pointer(s string) *string { return &s }

func document(t testing.TB) *published.Document {
	t.Helper()
	since := time.Date(2026, 11, 22, 17, 0, 0, 0, time.UTC)
	sealed, err := published.Seal(place, token, "", []string{identity(t).Recipient().String()})
	require.NoError(t, err)
	return &published.Document{
		APIVersion: published.APIVersion, Kind: published.Kind, Instance: "usa", Host: "usa-01", Generation: 9,
		Outputs: []published.Output{
			{Component: "federation", Name: "token", For: "deu", Sealed: sealed, Readers: []string{"deu-01"}, Generation: 7, Since: since},
			{Component: "identity", Name: "ports", Type: published.JSON, Value: pointer("[1,2]"), Generation: 9, Since: since},
			{Component: "identity", Name: "realm_url", Value: pointer("https://usa.example/realms/dive: #1\nsecond line\n"), Generation: 8, Since: since},
		},
	}
}

func TestADocumentIsReadAsItWasWritten(t *testing.T) {
	t.Parallel()
	d := document(t)
	content, err := d.Encode()
	require.NoError(t, err)
	back, err := published.Decode(content)
	require.NoError(t, err)
	require.Equal(t, d, back)
	again, err := back.Encode()
	require.NoError(t, err)
	require.Equal(t, string(content), string(again))
	require.Equal(t, &back.Outputs[2], back.Find(published.Key{Component: "identity", Name: "realm_url"}))
	require.Nil(t, back.Find(published.Key{Component: "identity", Name: "realm"}))
	require.Equal(t, place, back.Place(&back.Outputs[0]))

	empty := &published.Document{APIVersion: published.APIVersion, Kind: published.Kind, Instance: "usa", Host: "usa-01", Generation: 1}
	content, err = empty.Encode()
	require.NoError(t, err)
	_, err = published.Decode(content)
	require.NoError(t, err)
}

func TestWhatIsNoDocumentIsRefused(t *testing.T) {
	t.Parallel()
	good, err := document(t).Encode()
	require.NoError(t, err)
	replaced := func(old, with string) string {
		require.Contains(t, string(good), old)
		return strings.Replace(string(good), old, with, 1)
	}
	cases := map[string]struct{ text, says string }{
		"empty":                  {"", "no valid YAML"},
		"no YAML":                {"a: [" + token, "no valid YAML"},
		"two documents":          {string(good) + "---\na: 1\n", "more than one"},
		"no text":                {"\xff\xfe", "UTF-8"},
		"a list":                 {"- 1\n", "not of its type"},
		"another kind":           {replaced("kind: Outputs", "kind: InstanceStatus"), "it is no Outputs"},
		"another version":        {replaced("dive/v1alpha1", "dive/v2"), "it is no Outputs"},
		"unknown field":          {replaced("generation: 9\n", "generation: 9\nspoke: 1\n"), `unknown field "spoke"`},
		"unknown field, deeper":  {replaced("    for: deu\n", "    for: deu\n    to: fra\n"), `unknown field "to"`},
		"repeated field":         {replaced("    for: deu\n", "    for: deu\n    for: fra\n"), "line "},
		"no instance":            {replaced("instance: usa\n", ""), "names no instance"},
		"an impossible instance": {replaced("instance: usa\n", "instance: ../usa\n"), "names no instance"},
		"no host":                {replaced("host: usa-01\n", "host: ''\n"), "names no host"},
		"no generation":          {replaced("generation: 9\n", ""), "not above 0"},
		"a large generation":     {replaced("generation: 9\n", "generation: 99999999999999999999\n"), "not of its type"},
		"value of the future":    {replaced("generation: 9\n", "generation: 8\n"), "which the document, of 8, cannot have"},
		"neither value":          {replaced("    type: json\n    value: '[1,2]'\n", ""), "either a value or something sealed"},
		"both":                   {replaced("    readers:\n", "    value: x\n    readers:\n"), "either a value or something sealed"},
		"no JSON":                {replaced("'[1,2]'", "'[1,2'"), "is not"},
		"a number":               {replaced("'[1,2]'", "{a: "+token+"}"), "not of its type"},
		"another type":           {replaced("type: json", "type: gob"), "unknown type"},
		"sealed to nobody":       {replaced("    readers:\n      - deu-01\n", ""), "readers"},
		"plain, with readers":    {replaced("'[1,2]'\n", "'[1,2]'\n    readers: [deu-01]\n"), "readers"},
		"an impossible reader":   {replaced("- deu-01", "- de u"), "reader"},
		"a reader twice":         {replaced("- deu-01", "- deu-01\n      - deu-01"), "reader"},
		"another zone":           {replaced("2026-11-22T17:00:00Z", "2026-11-22T17:00:00+01:00"), "in UTC"},
		"not in order":           {replaced("component: federation", "component: zone"), "not in order"},
		"twice":                  {replaced("name: ports", "name: realm_url"), "there twice"},
		"an anchor":              {replaced("name: ports", "name: &a ports"), "aliases"},
		"an alias of many":       {"a: &a [1]\nb: [*a, *a]\n", "aliases"},
		"a mapping as a name":    {"{a: 1}: 2\n", "no text"},
		"many fields":            {strings.Repeat("{", 1) + strings.Repeat("a: 1, ", 20) + "}", "too many fields"},
		"deep":                   {strings.Repeat("[", 50) + strings.Repeat("]", 50), "too deeply"},
		"large":                  {"#" + strings.Repeat("x", published.MaxBytes), "allowed are 1048576"},
	}
	for name, c := range cases {
		_, err := published.Decode([]byte(c.text))
		require.ErrorContains(t, err, c.says, name)
		require.NotContains(t, err.Error(), token, name)
	}
}

func TestADocumentIsBounded(t *testing.T) {
	t.Parallel()
	d := document(t)
	d.Outputs[2].Value = pointer(strings.Repeat("x", published.MaxBytes))
	_, err := d.Encode()
	require.ErrorContains(t, err, "publish less")
	d.Outputs[2].Value = pointer(strings.Repeat("x", published.MaxBytes-4096))
	content, err := d.Encode()
	require.NoError(t, err)
	_, err = published.Decode(content)
	require.NoError(t, err)
}

// FuzzDecode: whatever a branch holds, it is read in bounded time or refused, and what is read is written again as it was.
func FuzzDecode(f *testing.F) {
	good, err := document(f).Encode()
	require.NoError(f, err)
	f.Add(good)
	f.Add([]byte("apiVersion: dive/v1alpha1\nkind: Outputs\ninstance: a\nhost: b\ngeneration: 1\noutputs: []\n"))
	f.Add([]byte("a: &a [*a]"))
	f.Add([]byte("? [a]\n: !!binary x\n<<: {outputs: [~, {}]}"))
	f.Fuzz(func(t *testing.T, content []byte) {
		d, err := published.Decode(content)
		if err != nil {
			require.Less(t, len(err.Error()), 1024)
			return
		}
		first, err := d.Encode()
		if err != nil {
			return // it is written longer than it was
		}
		back, err := published.Decode(first)
		require.NoError(t, err, string(first))
		second, err := back.Encode()
		require.NoError(t, err)
		require.Equal(t, string(first), string(second))
	})
}
