package desired_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/zclconf/go-cty/cty"

	"dive-agent/desired"
)

func TestValuesTravel(t *testing.T) {
	t.Parallel()
	values := map[string]cty.Value{
		"${a} \"text\"\n": cty.StringVal("${a} \"text\"\n"),
		"":                cty.StringVal(""),
		"12":              cty.NumberIntVal(12),
		"true":            cty.True,
		`["a",1]`:         cty.TupleVal([]cty.Value{cty.StringVal("a"), cty.NumberIntVal(1)}),
		`{"a":{"b":"c"}}`: cty.ObjectVal(map[string]cty.Value{"a": cty.ObjectVal(map[string]cty.Value{"b": cty.StringVal("c")})}),
	}
	for text, value := range values {
		for _, secret := range []bool{false, true} {
			v := desired.ValueOf(value)
			if secret {
				v = desired.ValueOf(value.Mark("x"))
			}
			sent, isJSON, err := v.Portable()
			require.NoError(t, err)
			require.Equal(t, text, sent)
			require.Equal(t, value.Type() != cty.String, isJSON)
			back, err := desired.ParsePortable(sent, isJSON, secret)
			require.NoError(t, err)
			require.True(t, back.Equal(v), text)
			require.Equal(t, secret, back.Secret())
		}
	}
	for _, v := range []desired.Value{desired.Unknown(), desired.ValueOf(cty.NullVal(cty.String))} {
		_, _, err := v.Portable()
		require.Error(t, err)
	}
	for _, text := range []string{"", "{", "null", `{"a":1}x`} {
		_, err := desired.ParsePortable(text, true, true)
		require.ErrorContains(t, err, "no JSON value", text)
	}
}

func TestEntryOfAnInstance(t *testing.T) {
	t.Parallel()
	entries := map[string]cty.Value{"deu": cty.StringVal("a token")}
	for name, v := range map[string]cty.Value{"object": cty.ObjectVal(entries), "map": cty.MapVal(entries)} {
		one, ok := desired.ValueOf(v).Entry("deu")
		require.True(t, ok, name)
		require.Equal(t, "a token", one.Text())
		require.False(t, one.Secret())
		one, ok = desired.ValueOf(v.Mark("x")).Entry("deu")
		require.True(t, ok, name)
		require.True(t, one.Secret(), "a part of what is secret is secret")
		_, ok = desired.ValueOf(v).Entry("fra")
		require.False(t, ok, name)
	}
	one, ok := desired.ValueOf(cty.ObjectVal(map[string]cty.Value{"deu": desired.Secret("x").Cty()})).Entry("deu")
	require.True(t, ok)
	require.True(t, one.Secret())
	for _, v := range []desired.Value{desired.Unknown(), desired.String("x"), desired.ValueOf(cty.DynamicVal), desired.ValueOf(cty.NullVal(cty.Map(cty.String)))} {
		_, ok := v.Entry("deu")
		require.False(t, ok)
	}
}
