package desired_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
)

func TestDecode(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"unknown field", "service: a\nserivce: b", `2:1: unknown field "serivce", did you mean "service"?`},
		{"unknown field, nothing near", "service: a\nzzz: b", `2:1: unknown field "zzz" (known: service, members, password, key, options, extra, ratio, hidden)`},
		{"missing", "members: 1", `1:1: this needs the field "service"`},
		{"text for number", "service: a\nmembers: many", `2:10: members must be a whole number, not "many"`},
		{"fraction for whole number", "service: a\nmembers: 1.5", `2:10: members must be a whole number, not the number 1.5`},
		{"too big a number", "service: a\nmembers: 99999999999999999999", `2:10: members must be a whole number, not the number 99999999999999999999`},
		{"list for text", "service: [a]", `1:10: service must be a text, not a list`},
		{"truth for text", "service: true", `1:10: service must be a text (in quotes), not true`},
		{"expression in a plain text", `service: "x-${code}"`, `1:10: no expression is possible here: service is a plain text, not "x-${code}"`},
		{"nothing", "service:", `1:1: service has no value`},
		{"text for truth", "service: a\nhidden: yes", `2:9: hidden must be true or false, not "yes"`},
		{"duplicate", "service: a\nservice: b", `2:1: duplicate key "service", first at line 1`},
		{"map for expression", "service: a\npassword: {x: 1}", `2:11: password must be a text, not a map`},
		{"tag", "service: !shell rm", `1:10: the tag !shell has no meaning here; write the plain value`},
		{"key is no text", "service: a\n{a: b}: c", `2:1: a key must be a plain text`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := desired.DecodeSpec(kinds[1], "f", []byte(c.text))
			require.EqualError(t, err, "f:"+c.want)
		})
	}
}

func TestAnExpressionWithoutQuotesInAFlowIsNamed(t *testing.T) {
	for text, want := range map[string]bool{
		"service: a\nextra: {flow: ${x}}": true, "extra: [a, x-${y}, b]\n": true, "service: [a": false, "extra: {flow: \"${x}\", a": false,
	} {
		_, err := desired.DecodeSpec(kinds[1], "f", []byte(text))
		require.ErrorContains(t, err, "this is not valid YAML", text)
		require.Equal(t, want, strings.Contains(err.Error(), "has to stand in quotes, see line"), "%s: %v", text, err)
	}
	_, err := desired.DecodeSpec(kinds[1], "f", []byte("service: a\nextra: {flow: ${x}}\n"))
	require.ErrorContains(t, err, "see line 2")
}

func TestDecodeValues(t *testing.T) {
	spec, err := desired.DecodeSpec(kinds[1], "f", []byte("\xef\xbb\xbfbase: &b {members: 0x1F}\r\n"))
	require.Nil(t, spec)
	require.ErrorContains(t, err, `unknown field "base"`)

	spec, err = desired.DecodeSpec(kinds[1], "f", []byte("service: 007\r\nratio: 0.5\r\npassword: 12\r\nextra: {<<: {a: 1, b: 2}, b: 3}\r\n"))
	require.NoError(t, err)
	d := spec.(*databaseSpec)
	require.Equal(t, "007", d.Service)
	require.Equal(t, 1, d.Members, "the default")
	require.InDelta(t, 0.5, *d.Ratio, 0)
	require.Equal(t, "12", d.Password.Source())
	require.Len(t, d.Extra, 2)
	b, err := d.Extra["b"].(desired.Tree).Eval(nil)
	require.NoError(t, err)
	require.Equal(t, int64(3), b.Go())
}

func TestTree(t *testing.T) {
	tree, err := desired.ParseTree("f", []byte(`{hello: 1, on: true, none: null, f: 1.5, list: [a, "${n + 1}", "x-${n}"], s: "${secret}", at: 2024-01-01}`))
	require.NoError(t, err)
	scope := desired.NewScope(map[string]desired.Value{"n": desired.ValueOf(number(4)), "secret": desired.Secret("hush")})
	v, err := tree.Eval(scope)
	require.NoError(t, err)
	require.True(t, v.Secret())
	require.Equal(t, "(secret)", v.Display())
	require.Equal(t, map[string]any{
		"hello": int64(1), "on": true, "none": nil, "f": 1.5, "list": []any{"a", int64(5), "x-4"}, "s": "hush", "at": "2024-01-01",
	}, v.Go())
	require.Equal(t, "hello", tree.Fields()[0].Name)
	require.True(t, tree.Get("list").IsList())
	require.True(t, tree.Get("nothing").IsZero())

	_, err = tree.Eval(desired.NewScope(nil))
	require.ErrorContains(t, err, "f:1:55")
}

// An alias bomb, deep nesting and a big file are refused without being expanded.
func TestBounds(t *testing.T) {
	var bomb strings.Builder
	bomb.WriteString("a0: &a0 x\n")
	for i := 1; i < 60; i++ {
		name, before := "a"+strings.Repeat("x", i), "a"+strings.Repeat("x", i-1)
		if i == 1 {
			before = "a0"
		}
		bomb.WriteString(name + ": &" + name + " [*" + before + ", *" + before + "]\n")
	}
	for name, text := range map[string]string{
		"more than 50000 values":     bomb.String(),
		"nested deeper":              strings.Repeat("[", 500) + strings.Repeat("]", 500),
		"a manifest may have":        "# " + strings.Repeat("x", 2<<20),
		"brackets nested 100 deep":   "service: ${" + strings.Repeat("(", 1000) + "1" + strings.Repeat(")", 1000) + "}",
		"has no meaning here":        "service: !!binary aGk=",
		"more than one YAML":         "service: a\n---\nservice: b",
		"not valid YAML":             "service: [a",
		"not UTF-8":                  "service: \xff\xfe",
		"the file is empty":          "# nothing\n",
		"must name a map or a list":  "service: a\n<<: 3",
		"exceeded max depth of":      strings.Repeat("[", 20000),
		"must be a map, not a list":  "- service",
		"cannot unmarshal a recurse": "",
	} {
		t.Run(name, func(t *testing.T) {
			if text == "" {
				text, name = "a: &a [*a]", "nested deeper"
			}
			if strings.HasPrefix(text, "service: ${") {
				text = strings.Replace(text, "service", "service: a\npassword", 1)
			}
			_, err := desired.DecodeSpec(kinds[1], "f", []byte(text))
			require.ErrorContains(t, err, name)
		})
	}
}
