package desired_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
)

func TestKeysOfAKeyfile(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		text string
		keys []string
	}{
		"one":                    {"abcdefgh\n", []string{"abcdefgh"}},
		"line breaks are no end": {"abcd\nefgh\n", []string{"abcdefgh"}},
		"a list":                 {"- abcdef\n- \"ghijkl\"\n", []string{"abcdef", "ghijkl"}},
		"nothing":                {"", nil},
		"what is written":        {desired.KeyfileOf("abcdef", "ghi+/="), []string{"abcdef", "ghi+/="}},
		"one that is written":    {desired.KeyfileOf("abcdef"), []string{"abcdef"}},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, c.keys, desired.KeysOf(c.text)) })
	}
	for text, wrong := range map[string]string{
		"- abcdef\n- ghijkl\n":           "",
		strings.Repeat("a", 1024):        "",
		"":                               "one key or two, not 0",
		"- abcdef\n- ghijkl\n- mnopqr\n": "one key or two, not 3",
		"abcde":                          "6 to 1024 characters, not 5",
		strings.Repeat("a", 1025):        "6 to 1024 characters, not 1025",
		"with-a-hyphen":                  "only characters of base64",
		"-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqh\n": "only characters of base64",
	} {
		if err := desired.CheckKeys(desired.KeysOf(text)); wrong == "" {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, wrong)
		}
	}
}

// TestASecretThatServersShareIsAKeyfile: however it came, as long as nothing is made of it.
func TestASecretThatServersShareIsAKeyfile(t *testing.T) {
	t.Parallel()
	for key, shared := range map[string]bool{"${KEY}": true, "${ KEY }": true, "x${KEY}": false, "${lower(KEY)}": false, "${PASSWORD}${KEY}": false, "${code}": false} {
		inst := loadTree(t, map[string]string{"blueprints/spoke/blueprint.yaml": strings.NewReplacer(
			"password: ${PASSWORD}", "password: ${PASSWORD}\n      key: \""+key+"\"",
			"    KEYFILE:", "    KEY: {provide: true}\n    KEYFILE:",
		).Replace(spokeBlueprint)}).Instances["deu"]
		require.Equal(t, shared, inst.Secret("KEY").Keyfile, key)
		require.True(t, inst.Secret("KEYFILE").Keyfile, "one that is made as such")
		require.False(t, inst.Secret("PASSWORD").Keyfile)
		holders := map[string][]string{"PASSWORD": {"database"}}
		if shared {
			holders["KEY"] = []string{"database"}
		}
		require.Equal(t, holders, inst.Graph.Holders, key)
	}
}
