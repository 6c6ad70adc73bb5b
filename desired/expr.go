package desired

import (
	"fmt"
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
}

// Reference is one name that an expression uses, such as ["database", "uri"], ["portOffset"] or ["MONGO_PASSWORD"].
type Reference struct {
	Path     []string
	Position Position
}

func (r Reference) String() string { return strings.Join(r.Path, ".") }

// Literal is an expression without a place, for text that no manifest holds.
func Literal(text string) Expr {
	return Expr{source: text, template: &hclsyntax.LiteralValueExpr{Val: cty.StringVal(text)}}
}

// ParseExpr reads a template that stands at a place. Offset of lines and columns is kept for plain one-line scalars;
// for block scalars the column is that of the scalar.
func ParseExpr(source string, at Position) (Expr, Problems) {
	start := hcl.Pos{Line: max(at.Line, 1), Column: max(at.Column, 1)}
	parsed, diags := hclsyntax.ParseTemplate([]byte(source), at.File, start)
	e := Expr{source: source, position: at, template: parsed}
	return e, problemsOf(diags, at)
}

// IsZero says whether the manifest left the field out.
func (e Expr) IsZero() bool { return e.template == nil }

// Source is the text as it stands in the manifest.
func (e Expr) Source() string { return e.source }

// Position is where the text stands.
func (e Expr) Position() Position { return e.position }

// References lists the names the expression uses, in their order, each with its place.
func (e Expr) References() []Reference {
	if e.template == nil {
		return nil
	}
	var refs []Reference
	for _, traversal := range e.template.Variables() {
		refs = append(refs, Reference{Path: pathOf(traversal), Position: place(traversal.SourceRange(), e.position)})
	}
	return refs
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
	if problems := problemsOf(diags, e.position); len(problems) > 0 {
		return Value{}, problems
	}
	return ValueOf(v), nil
}

func problemsOf(diags hcl.Diagnostics, at Position) Problems {
	var problems Problems
	for _, d := range diags {
		if d.Severity != hcl.DiagError {
			continue
		}
		where := at
		if d.Subject != nil {
			where = place(*d.Subject, at)
		}
		problems = append(problems, Problem{where, strings.TrimSuffix(fmt.Sprintf("%s: %s", d.Summary, d.Detail), ": ")})
	}
	return problems
}

func place(r hcl.Range, at Position) Position {
	if at.Line == 0 {
		return at
	}
	return Position{File: at.File, Line: r.Start.Line, Column: r.Start.Column}
}
