package desired_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
)

// The public half of a key is a value, plain, and unknown before the key was made.
func TestPublicHalvesOfKeys(t *testing.T) {
	fleet := loadTree(t, withSecrets("    SIGN: {generate: {kind: rsa}}\n    PASS: {generate: {length: 20}}\n"))
	deu := fleet.Instances["deu"]
	x, problems := desired.ParseExpr("${SIGN_PUBLIC}", desired.Position{})
	require.Empty(t, problems)
	v, err := x.Eval(deu.Scope(nil))
	require.NoError(t, err)
	require.False(t, v.Known())
	require.False(t, v.Secret())
	v, err = x.Eval(deu.Scope(map[string]desired.Value{"SIGN": desired.Secret("private"), "SIGN_PUBLIC": desired.String("public")}))
	require.NoError(t, err)
	require.Equal(t, "public", v.Text())
	_, has := deu.Secret("PASS").PublicName()
	require.False(t, has)
	require.Contains(t, problemsIn(t, withSecrets("    SIGN: {generate: {kind: rsa}}\n    SIGN_PUBLIC: {provide: true}\n")),
		"instances/deu.yaml:12:5: secret SIGN is a key, and SIGN_PUBLIC is its public half: name the other one otherwise")
}
