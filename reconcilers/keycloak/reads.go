package keycloak

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// A module's functions read with the agent's rights. What it may read is what was taken along with it: the files below its
// own folder. Beside that lie the realm's state and the agent's key. Paths that stand in the module's text, whole or up to
// their first variable part, are judged here; what a variable or another resource makes of one, Terraform alone knows.

// readers are the functions that read the file of their first argument, or look for it; fileset looks for its second one
// there. Terraform has them under core:: too.
var readers = []string{
	"file", "filebase64", "fileexists", "fileset", "filemd5", "filesha1", "filesha256", "filesha512",
	"filebase64sha256", "filebase64sha512", "templatefile",
}

// unknown stands for a part of a path that is not in the module's text.
const unknown = "\x00"

// reads judges the paths in a folder's files.
func (r *moduleReader) reads(s *scope) {
	for i, body := range s.bodies {
		if native, ok := body.(*hclsyntax.Body); ok {
			r.readsOf(s.folder, native)
			continue
		}
		for _, text := range jsonTexts(r.texts[s.names[i]]) {
			if expr, diags := hclsyntax.ParseTemplate([]byte(text.said), s.names[i], text.at); !diags.HasErrors() {
				r.readsOf(s.folder, expr)
			}
		}
	}
}

// withTemplates judges the paths in the module's templates too: they call functions as its own files do.
func (m moduleFiles) withTemplates(files fs.FS, root string) moduleFiles {
	r := &moduleReader{root: root, module: moduleFiles{findings: slices.Clip(m.findings), templates: slices.Clip(m.templates)}}
	for i := 0; i < len(r.module.templates); i++ {
		name := r.module.templates[i]
		text, err := fs.ReadFile(files, name)
		if err != nil || slices.Contains(r.module.templates[:i], name) {
			continue // of one that is not there Terraform tells
		}
		if expr, diags := hclsyntax.ParseTemplate(text, name, hcl.InitialPos); !diags.HasErrors() {
			r.readsOf(root, expr)
		}
	}
	m.findings = r.module.findings
	return m
}

// readsOf finds the calls below a node of a file in a folder of the module.
func (r *moduleReader) readsOf(folder string, node hclsyntax.Node) {
	_ = hclsyntax.VisitAll(node, func(node hclsyntax.Node) hcl.Diagnostics {
		call, ok := node.(*hclsyntax.FunctionCallExpr)
		if !ok || len(call.Args) == 0 {
			return nil
		}
		name := strings.TrimPrefix(call.Name, "core::")
		if !slices.Contains(readers, name) {
			return nil
		}
		said := r.pathOf(folder, call.Args[0])
		if name == "fileset" && len(call.Args) > 1 {
			said += "/" + r.pathOf(folder, call.Args[1])
		}
		switch {
		case strings.HasPrefix(said, unknown):
		case leaves(said):
			r.find(call.Range(), allowFiles, "%s(%q) reads outside of the module's folder: only what is below it is taken along", name, strings.ReplaceAll(said, unknown, "${...}"))
		case name == "templatefile" && !strings.Contains(said, unknown):
			r.module.templates = append(r.module.templates, path.Join(r.root, said))
		}
		return nil
	})
}

// leaves says whether a path leads out of the folder in which Terraform works. A home folder is not in it.
func leaves(said string) bool {
	clean := path.Clean(said)
	return path.IsAbs(clean) || clean == ".." || strings.HasPrefix(clean, "../") || strings.HasPrefix(said, "~")
}

// pathOf gives the text that an expression makes, from the module's folder as path.module is; unknown stands for what only
// Terraform knows.
func (r *moduleReader) pathOf(folder string, expr hclsyntax.Expression) string {
	switch e := expr.(type) {
	case *hclsyntax.TemplateExpr:
		var all strings.Builder
		for _, part := range e.Parts {
			all.WriteString(r.pathOf(folder, part))
		}
		return all.String()
	case *hclsyntax.TemplateWrapExpr:
		return r.pathOf(folder, e.Wrapped)
	case *hclsyntax.ParenthesesExpr:
		return r.pathOf(folder, e.Expression)
	case *hclsyntax.LiteralValueExpr:
		if e.Val.Type() == cty.String && e.Val.IsKnown() && !e.Val.IsNull() {
			return e.Val.AsString()
		}
	case *hclsyntax.FunctionCallExpr:
		if (e.Name == "abspath" || e.Name == "pathexpand") && len(e.Args) == 1 {
			return r.pathOf(folder, e.Args[0])
		}
	case *hclsyntax.ScopeTraversalExpr:
		if e.Traversal.RootName() != "path" || len(e.Traversal) != 2 {
			return unknown
		}
		switch name, _ := e.Traversal[1].(hcl.TraverseAttr); name.Name {
		case "module":
			return "./" + strings.TrimPrefix(strings.TrimPrefix(folder, r.root), "/")
		case "root", "cwd":
			return "."
		}
	}
	return unknown
}

// jsonText is a text of a JSON file, and where it begins.
type jsonText struct {
	said string
	at   hcl.Pos
}

// jsonTexts gives all texts of a JSON file, names too: each may be a template.
func jsonTexts(data []byte) (all []jsonText) {
	tokens := json.NewDecoder(bytes.NewReader(data))
	for {
		from := int(tokens.InputOffset())
		token, err := tokens.Token()
		if err != nil {
			return all // of what is no JSON the parser tells
		}
		if said, ok := token.(string); ok {
			start := from + bytes.IndexByte(data[from:], '"') + 1
			line := bytes.LastIndexByte(data[:start], '\n')
			all = append(all, jsonText{said, hcl.Pos{Line: 1 + bytes.Count(data[:start], []byte("\n")), Column: start - line, Byte: start}})
		}
	}
}
