package desired_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/zclconf/go-cty/cty"

	"dive-agent/desired"
)

func number(n int64) cty.Value { return cty.NumberIntVal(n) }

func TestScope(t *testing.T) {
	deu := loadTree(t, nil).Instances["deu"]
	eval := func(text string, scope *desired.Scope) desired.Value {
		t.Helper()
		e, problems := desired.ParseExpr(text, desired.Position{File: "f", Line: 1, Column: 1})
		require.Empty(t, problems)
		v, err := e.Eval(scope)
		require.NoError(t, err)
		return v
	}
	scope := deu.Scope(nil)
	require.Equal(t, "deu at one, a spoke of usa: 4011", eval("${instance.name} at ${instance.host}, a ${instance.role} of ${hub.instance}: ${4000 + portOffset}", scope).Text())
	require.Equal(t, "${code} costs $5", eval("$${code} costs $5", scope).Text())

	password := eval("x${PASSWORD}", scope)
	require.True(t, password.Secret())
	require.False(t, password.Known())
	uri := eval("${database.uri}", scope)
	require.True(t, uri.Secret())
	require.False(t, uri.Known())
	require.False(t, eval("${database.members}", scope).Secret())
	require.False(t, eval("${instance.secrets_dir}/x", scope).Known())

	scope = deu.Scope(map[string]desired.Value{"PASSWORD": desired.Secret("hush")}, desired.Builtins{SecretsDir: "/s", ProjectDir: "/p"})
	require.Equal(t, "xhush", eval("x${PASSWORD}", scope).Text())
	require.Equal(t, "/s/x", eval("${instance.secrets_dir}/x", scope).Text())
	scope = scope.WithOutputs(deu.Component("database"), map[string]desired.Value{"members": desired.String("a:1")})
	require.Equal(t, "a:1", eval("${database.members}", scope).Text())
	require.False(t, eval("${database.uri}", scope).Known(), "an output that is not there yet stays unknown")
	require.True(t, eval("${database.uri}", scope).Secret())
	require.Equal(t, "a%40b%20c", eval(`${urlencode("a@b c")}`, scope).Text())
}

// What a function makes of a secret is told; what it makes of other values is not, and values stay what they were.
func TestSecretsMadeByFunctionsAreTold(t *testing.T) {
	var told []string
	scope := desired.NewScope(map[string]desired.Value{
		"password": desired.Secret("hunter-hunter"), "name": desired.String("deu"), "offset": desired.ValueOf(cty.NumberIntVal(5)),
		"later": desired.UnknownSecret(),
	}).Telling(func(v desired.Value) { told = append(told, v.Text()) }).With(nil)
	for source, want := range map[string]string{
		"mongodb://admin:${upper(password)}@db": "mongodb://admin:HUNTER-HUNTER@db",
		"${upper(name)}-${upper(offset)}":       "DEU-5",
		"${join(\"\", split(\"-\", password))}": "hunterhunter",
		"${password}":                           "hunter-hunter",
		"${upper(later)}":                       "",
		"${coalesce(null, name)}":               "deu",
	} {
		e, problems := desired.ParseExpr(source, desired.Position{})
		require.Empty(t, problems)
		v, err := e.Eval(scope)
		require.NoError(t, err, source)
		require.Equal(t, want, v.Text(), source)
	}
	require.Contains(t, told, "HUNTER-HUNTER")
	require.Contains(t, told, "hunterhunter")
	require.NotContains(t, told, "DEU")
	wrong, problems := desired.ParseExpr("${upper()}", desired.Position{})
	require.Empty(t, problems)
	_, err := wrong.Eval(scope)
	require.ErrorContains(t, err, `Missing value for "str"`)
}

func TestAnExpressionNamesWhatItWaitsFor(t *testing.T) {
	scope := desired.NewScope(map[string]desired.Value{"offset": desired.String("1")}).
		WithObject("registration", map[string]desired.Value{"token": desired.UnknownSecret(), "spoke_id": desired.String("x")})
	e, problems := desired.ParseExpr("${offset}-${registration.spoke_id}-${registration.token}", desired.Position{})
	require.Empty(t, problems)
	require.Equal(t, []string{"registration.token"}, e.Missing(scope))
}
