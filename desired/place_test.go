package desired_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
	"pgregory.net/rapid"

	"dive-agent/desired"
)

// Whatever the style of a scalar, the place of a name in it is where the name stands in the file, or the scalar's own
// place where that cannot be told.
func TestPlacesInScalars(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		before := rapid.SampledFrom([]string{"", "a", "é ", "a\tb ", "it's ", `say "x" \ `, "one\ntwo ", "one\n\n  two\n", " lead\nx ", strings.Repeat("long words ", 20)}).Draw(t, "before")
		after := rapid.SampledFrom([]string{"", " end", "\nlast\n", "'\"", "\n\n"}).Draw(t, "after")
		style := rapid.SampledFrom([]yaml.Style{0, yaml.DoubleQuotedStyle, yaml.SingleQuotedStyle, yaml.LiteralStyle, yaml.FoldedStyle}).Draw(t, "style")
		scalar := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: before + "${name}" + after, Style: style}
		depth := rapid.IntRange(1, 4).Draw(t, "depth")
		root := scalar
		for range depth {
			root = &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{{Kind: yaml.ScalarNode, Value: "key"}, root}}
		}
		text, err := yaml.Marshal(root)
		require.NoError(t, err)
		if rapid.Bool().Draw(t, "CRLF") && style == 0 && !strings.Contains(before+after, "\n") {
			text = []byte(strings.ReplaceAll(string(text), "\n", "\r\n"))
		}
		tree, err := desired.ParseTree("f", text)
		require.NoError(t, err)
		for range depth {
			tree = tree.Get("key")
		}
		refs := tree.Expr().References()
		require.Len(t, refs, 1)
		at := refs[0].Position
		if at == tree.Position() {
			return
		}
		line := strings.Split(string(text), "\n")[at.Line-1]
		offset := 0
		for range at.Column - 1 {
			_, size := utf8.DecodeRuneInString(line[offset:])
			offset += size
		}
		require.True(t, strings.HasPrefix(line[offset:], "name}"), "%s\n%v", text, at)
	})
}

// The styles that people write are followed, not only not wrong.
func TestPlacesAreFound(t *testing.T) {
	for text, want := range map[string]string{
		"k: a ${n}":                        "f:1:8",
		"k: 'it''s ${n}'":                  "f:1:13",
		`k: "\t\u00e9\\ ${n}"`:             "f:1:18",
		"k: |\n  one\n    two ${n}\n":      "f:3:11",
		"k: |-\n\n  one\n\n  two ${n}":     "f:5:9",
		"k: >\n  one\n  two ${n}\n":        "f:3:9",
		"k: >-\n  one\n\n  two\n  x ${n}":  "f:5:7",
		"k: one\n  two ${n}":               "f:2:9",
		"k: \"one\n  two ${n}\"":           "f:2:9",
		"\xef\xbb\xbfk: ${n}":              "f:1:6",
		"k: {a: [1, \"${n}\"]}":            "f:1:15",
		"k: é${n}":                         "f:1:7",
		"k: >-\r\n  one\r\n  two ${n}\r\n": "f:3:9",
	} {
		tree, err := desired.ParseTree("f", []byte(text))
		require.NoError(t, err, text)
		exprs := tree.Exprs()
		refs := exprs[len(exprs)-1].References()
		require.Len(t, refs, 1, text)
		require.Equal(t, want, refs[0].Position.String(), text)
	}
}
