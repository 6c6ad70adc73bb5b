package desired

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// Expr is a text of a manifest in which ${...} is an HCL template. In a spec type, a field of type Expr takes any
// YAML scalar. The zero Expr is the empty text.
type Expr struct {
	source   string
	position Position
	template hclsyntax.Expression
	node     *node // where it stands, to find columns; nil outside manifests
	static   bool  // no name is used, so the value is always the same
	wrong    bool  // it could not be read as a whole, which was reported
	uses     []use // names, in their order
	late     bool  // nothing waits for what it imports
	asks     []ask // what is asked of the spokes that a for goes over
}

// use is one name in an expression.
type use struct {
	path      []string
	at        hcl.Range
	traversal hcl.Traversal
}

// Reference is one name that an expression uses, such as ["database", "uri"], ["portOffset"] or ["MONGO_PASSWORD"].
type Reference struct {
	Path     []string
	Position Position
}

func (r Reference) String() string { return strings.Join(r.Path, ".") }

// Literal is an expression without a place, for text that no manifest holds.
func Literal(text string) Expr {
	return Expr{source: text, template: &hclsyntax.LiteralValueExpr{Val: cty.StringVal(text)}, static: true}
}

// ParseExpr reads a template that stands at a place, as if it were a plain one-line scalar.
func ParseExpr(source string, at Position) (Expr, Problems) { return parseExpr(source, at, nil) }

func parseExpr(source string, at Position, n *node) (Expr, Problems) {
	e := Expr{source: source, position: at, node: n}
	if !strings.Contains(source, "${") && !strings.Contains(source, "%{") {
		e.template, e.static = &hclsyntax.LiteralValueExpr{Val: cty.StringVal(source)}, true
		return e, nil
	}
	if len(source) > maxTemplate || nesting(source) > maxNesting {
		e.template, e.static = &hclsyntax.LiteralValueExpr{Val: cty.StringVal(source)}, true
		return e, Problems{{at, fmt.Sprintf("a text with ${...} may have %d bytes and brackets nested %d deep", maxTemplate, maxNesting)}}
	}
	parsed, diags := hclsyntax.ParseTemplate([]byte(source), at.File, hcl.InitialPos)
	e.template = parsed
	problems := e.problemsOf(diags)
	for _, traversal := range parsed.Variables() {
		e.uses = append(e.uses, use{pathOf(traversal), traversal.SourceRange(), traversal})
	}
	problems = append(problems, e.askSpokes(parsed)...)
	e.wrong = len(problems) > 0
	e.static = !e.wrong && len(e.uses) == 0
	return e, problems
}

// Bounds of an expression: its parser calls itself for each bracket and operator.
const (
	maxTemplate = 64 << 10
	maxNesting  = 100
)

func nesting(source string) int {
	depth, deepest := 0, 0
	for _, r := range source {
		switch r {
		case '(', '[', '{':
			depth++
			deepest = max(deepest, depth)
		case ')', ']', '}':
			depth--
		}
	}
	return deepest
}

// IsZero says whether the manifest left the field out.
func (e Expr) IsZero() bool { return e.template == nil }

// Source is the text as it stands in the manifest.
func (e Expr) Source() string { return e.source }

// Position is where the text stands.
func (e Expr) Position() Position { return e.position }

// References lists the names the expression uses, in their order, each with its place. The paths are read only.
func (e Expr) References() []Reference {
	var refs []Reference
	for _, u := range e.uses {
		refs = append(refs, Reference{Path: u.path, Position: e.place(u.at)})
	}
	return refs
}

// CrossesHosts says whether the expression uses values that other instances publish.
func (e Expr) CrossesHosts() bool {
	return len(e.asks) > 0 || slices.ContainsFunc(e.uses, func(u use) bool { return u.path[0] == instancesName })
}

// Needs are the needs of a node that uses the expression, for kinds with parts: outputs and secrets of the instance, and
// what other instances publish. by is what uses them, for people: "MONGODB_URL of service backend uses".
func (e Expr) Needs(by string) []Need {
	needs := make([]Need, 0, len(e.uses)+1)
	for _, u := range e.uses {
		need := Need{Why: by + " ${" + strings.Join(u.path, ".") + "}", Position: e.place(u.at)}
		if len(u.path) == 1 {
			need.Secret = u.path[0]
		} else {
			need.Component, need.Output = u.path[0], u.path[1]
		}
		needs = append(needs, need)
	}
	if e.CrossesHosts() {
		needs = append(needs, Need{imports: &e})
	}
	return needs
}

// Name is the name of the value or secret that the text is, when it is nothing else: ${NAME}. Empty otherwise.
func (e Expr) Name() string {
	if len(e.uses) != 1 || len(e.uses[0].path) != 1 || strings.Join(strings.Fields(e.source), "") != "${"+e.uses[0].path[0]+"}" {
		return ""
	}
	return e.uses[0].path[0]
}

func pathOf(traversal hcl.Traversal) []string {
	var path []string
	for _, step := range traversal {
		switch s := step.(type) {
		case hcl.TraverseRoot:
			path = append(path, s.Name)
		case hcl.TraverseAttr:
			path = append(path, s.Name)
		case hcl.TraverseIndex:
			if s.Key.Type() == cty.String && s.Key.IsKnown() {
				path = append(path, s.Key.AsString())
			}
		}
	}
	return path
}

// Eval gives the expression's value in a scope. The error is a Problems.
func (e Expr) Eval(scope *Scope) (Value, error) {
	if e.template == nil {
		return String(""), nil
	}
	v, diags := e.template.Value(scope.context())
	if problems := e.problemsOf(diags); len(problems) > 0 {
		return Value{}, problems
	}
	return ValueOf(v), nil
}

// Missing names what the expression waits for in a scope, such as "registration.token": the references that are not
// known, or its source when it names none.
func (e Expr) Missing(scope *Scope) []string {
	var names []string
	for _, u := range e.uses {
		if v, diags := u.traversal.TraverseAbs(scope.context()); diags.HasErrors() || !v.IsWhollyKnown() {
			names = append(names, strings.Join(u.path, "."))
		}
	}
	if len(names) == 0 {
		names = []string{e.source}
	}
	return names
}

func (e Expr) problemsOf(diags hcl.Diagnostics) Problems {
	var problems Problems
	for _, d := range diags {
		if d.Severity != hcl.DiagError {
			continue
		}
		where := e.position
		if d.Subject != nil {
			where = e.place(*d.Subject)
		}
		detail := strings.TrimSuffix(d.Detail, ".")
		if detail == "" {
			detail = d.Summary
		}
		if strings.HasSuffix(detail, `attribute named "outputs"`) {
			detail += `; those of spokes are there in a for that goes over fleet.spokes itself`
		}
		problems = append(problems, Problem{where, fmt.Sprintf("%s: %s", shown(e.source, d.Subject), lowerFirst(detail))})
	}
	return problems
}

// shown is the part of an expression that a message is about: one line, not long.
func shown(source string, subject *hcl.Range) string {
	if subject != nil && subject.Start.Byte <= len(source) {
		source = source[strings.LastIndexByte(source[:subject.Start.Byte], '\n')+1:]
	}
	line, _, _ := strings.Cut(strings.TrimLeft(source, " \n"), "\n")
	if runes := []rune(line); len(runes) > 60 {
		line = string(runes[:60]) + "..."
	}
	return line
}

func lowerFirst(text string) string {
	if len(text) > 1 && text[0] >= 'A' && text[0] <= 'Z' && text[1] >= 'a' {
		return strings.ToLower(text[:1]) + text[1:]
	}
	return text
}

func (e Expr) place(r hcl.Range) Position {
	switch {
	case e.position.Line == 0:
		return e.position
	case e.node != nil:
		return e.node.locate(r.Start.Byte)
	}
	return Position{File: e.position.File, Line: e.position.Line, Column: e.position.Column + r.Start.Column - 1}
}
