package desired

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// Limits of one manifest. An alias counts as often as it is used.
const (
	maxManifestBytes = 1 << 20
	maxManifestNodes = 50_000
	maxManifestDepth = 64
)

type nodeKind uint8

const (
	scalarNode nodeKind = iota
	sequenceNode
	mappingNode
)

// node is one place of a manifest, with aliases and merge keys resolved. Nodes are shared between instances of one
// blueprint and never change after parsing, but for the cache of the expression.
type node struct {
	kind   nodeKind
	at     Position
	file   *source
	tag    string // of scalars: !!str, !!int, !!float, !!bool, !!null, !!timestamp
	text   string // of scalars
	style  yaml.Style
	fields []field
	items  []*node
	expr   atomic.Pointer[parsedExpr]
}

type field struct {
	name  string
	at    Position // of the key
	value *node
}

type parsedExpr struct {
	expr     Expr
	problems Problems
}

// source is the text of one file, kept to find columns inside scalars.
type source struct {
	name  string
	data  []byte
	lines []int // offset of each line's first byte
}

func newSource(name string, data []byte) *source {
	s := &source{name: name, data: data, lines: []int{0}}
	for i, b := range data {
		if b == '\n' {
			s.lines = append(s.lines, i+1)
		}
	}
	return s
}

// get finds a field, or nil.
func (n *node) get(name string) *node {
	if n == nil {
		return nil
	}
	for i := range n.fields {
		if n.fields[i].name == name {
			return n.fields[i].value
		}
	}
	return nil
}

// describe names the type of a node for messages.
func (n *node) describe() string {
	switch n.kind {
	case sequenceNode:
		return "a list"
	case mappingNode:
		return "a map"
	}
	switch n.tag {
	case "!!null":
		return "nothing"
	case "!!bool":
		return n.text
	case "!!int", "!!float":
		return "the number " + n.text
	}
	text := n.text
	if len(text) > 40 {
		text = text[:40] + "..."
	}
	return strconv.Quote(text)
}

// parseManifest reads one YAML document. It gives nil when the document cannot be used at all.
func parseManifest(name string, data []byte) (*node, Problems) {
	whole := Position{File: name}
	if len(data) > maxManifestBytes {
		return nil, Problems{{whole, fmt.Sprintf("the file has %d bytes; a manifest may have %d", len(data), maxManifestBytes)}}
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	if at := invalidUTF8(data); at >= 0 {
		line := 1 + bytes.Count(data[:at], []byte("\n"))
		return nil, Problems{{Position{File: name, Line: line, Column: 1}, "this is not UTF-8 text; save the file as UTF-8"}}
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var document yaml.Node
	if err := decoder.Decode(&document); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, Problems{{whole, "the file is empty"}}
		}
		problem := syntaxProblem(name, err)
		if at := unquoted(data); at > 0 {
			problem.Message += fmt.Sprintf("; a ${...} within {...} or [...] has to stand in quotes, see line %d", at)
		}
		return nil, Problems{problem}
	}
	var second yaml.Node
	if err := decoder.Decode(&second); err == nil {
		return nil, Problems{{Position{File: name, Line: max(second.Line, 1), Column: 1}, "the file holds more than one YAML document; write one manifest per file"}}
	} else if !errors.Is(err, io.EOF) {
		return nil, Problems{syntaxProblem(name, err)}
	}
	if document.Kind != yaml.DocumentNode || len(document.Content) == 0 {
		return nil, Problems{{whole, "the file is empty"}}
	}
	c := converter{file: newSource(name, data)}
	root := c.convert(document.Content[0], 0)
	if c.stopped {
		return nil, c.problems
	}
	return root, c.problems
}

func invalidUTF8(data []byte) int {
	if utf8.Valid(data) {
		return -1
	}
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && size == 1 {
			return i
		}
		i += size
	}
	return -1
}

// syntaxProblem takes the line out of an error of the YAML parser ("yaml: line 3: did not find ...").
// flowExpression is an expression without quotes in a list or map on one line: its brace ends it for YAML.
var flowExpression = regexp.MustCompile(`(?m)^[^#'"\n]*[{\[,](?:[^#'"\n]*:)? *[^#'"\n,\[{]*\$\{`)

// unquoted gives the first line with such an expression, 0 when there is none.
func unquoted(data []byte) int {
	at := flowExpression.FindIndex(data)
	if at == nil {
		return 0
	}
	return 1 + bytes.Count(data[:at[0]], []byte("\n"))
}

func syntaxProblem(name string, err error) Problem {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	var typeError *yaml.TypeError
	if errors.As(err, &typeError) && len(typeError.Errors) > 0 {
		text = typeError.Errors[0]
	}
	at := Position{File: name}
	if rest, ok := strings.CutPrefix(text, "line "); ok {
		if number, message, ok := strings.Cut(rest, ": "); ok {
			if line, err := strconv.Atoi(number); err == nil {
				at.Line, at.Column, text = line, 1, message
			}
		}
	}
	return Problem{at, "this is not valid YAML: " + text}
}

// converter makes nodes of YAML nodes, counting every use of an alias.
type converter struct {
	file     *source
	problems Problems
	count    int
	stopped  bool
}

func (c *converter) fail(n *yaml.Node, format string, args ...any) {
	c.problems = append(c.problems, Problem{c.place(n), fmt.Sprintf(format, args...)})
}

func (c *converter) place(n *yaml.Node) Position {
	return Position{File: c.file.name, Line: n.Line, Column: n.Column}
}

func (c *converter) stop(n *yaml.Node, format string, args ...any) *node {
	if !c.stopped {
		c.fail(n, format, args...)
	}
	c.stopped = true
	return &node{tag: "!!null", at: c.place(n), file: c.file}
}

// convert copies what YAML parsed, with aliases expanded. It bounds number and depth of values, since a few lines of
// aliases can mean millions, or lead to themselves.
func (c *converter) convert(y *yaml.Node, depth int) *node {
	if c.count++; c.stopped || c.count > maxManifestNodes {
		return c.stop(y, "the manifest has more than %d values once its aliases are expanded", maxManifestNodes)
	}
	if depth > maxManifestDepth {
		return c.stop(y, "the manifest is nested deeper than %d levels", maxManifestDepth)
	}
	n := &node{at: c.place(y), file: c.file}
	switch y.Kind {
	case yaml.AliasNode:
		if y.Alias == nil {
			return c.stop(y, "alias %q has no anchor", y.Value)
		}
		return c.convert(y.Alias, depth+1)
	case yaml.SequenceNode:
		n.kind = sequenceNode
		for _, item := range y.Content {
			n.items = append(n.items, c.convert(item, depth+1))
		}
	case yaml.MappingNode:
		n.kind = mappingNode
		c.mapping(n, y, depth)
	case yaml.ScalarNode:
		n.tag, n.text, n.style = y.ShortTag(), y.Value, y.Style
		switch n.tag {
		case "!!str", "!!int", "!!float", "!!bool", "!!null", "!!timestamp":
		default:
			c.fail(y, "the tag %s has no meaning here; write the plain value", n.tag)
			n.tag = "!!str"
		}
	default:
		return c.stop(y, "unexpected YAML node")
	}
	return n
}

func (c *converter) mapping(n *node, y *yaml.Node, depth int) {
	seen := make(map[string]Position, len(y.Content)/2)
	var merges []*yaml.Node
	for i := 0; i+1 < len(y.Content); i += 2 {
		key, value := y.Content[i], y.Content[i+1]
		if key.Kind == yaml.AliasNode && key.Alias != nil {
			key = key.Alias
		}
		if key.Kind != yaml.ScalarNode {
			c.fail(y.Content[i], "a key must be a plain text")
			continue
		}
		if key.ShortTag() == "!!merge" {
			merges = append(merges, value)
			continue
		}
		if first, twice := seen[key.Value]; twice {
			c.fail(y.Content[i], "duplicate key %q, first at line %d", key.Value, first.Line)
			continue
		}
		seen[key.Value] = c.place(key)
		n.fields = append(n.fields, field{key.Value, c.place(y.Content[i]), c.convert(value, depth+1)})
	}
	for _, merge := range merges {
		c.merge(n, merge, seen, depth)
	}
}

// merge adds what `<<:` brings and the mapping itself does not say.
func (c *converter) merge(n *node, y *yaml.Node, seen map[string]Position, depth int) {
	from := c.convert(y, depth+1)
	if c.stopped {
		return
	}
	parts := []*node{from}
	if from.kind == sequenceNode {
		parts = from.items
	}
	for _, part := range parts {
		if part.kind != mappingNode {
			c.fail(y, "<< must name a map or a list of maps, not %s", part.describe())
			continue
		}
		for _, f := range part.fields {
			if _, have := seen[f.name]; !have {
				seen[f.name] = f.at
				n.fields = append(n.fields, f)
			}
		}
	}
}
