package agent_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Every reason for which the agent stops has an entry in docs/blocked.md, to which the status points, and every entry is
// of a reason that there is.
func TestEveryBlockedReasonHasAnEntry(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "docs", "blocked.md"))
	require.NoError(t, err)
	entries := map[string]bool{}
	for _, found := range regexp.MustCompile(`(?m)^### (\w+)\n\S`).FindAllStringSubmatch(string(page), -1) {
		require.False(t, entries[found[1]], "%s has two entries", found[1])
		entries[found[1]] = true
	}
	reasons := map[string]bool{}
	for _, room := range []string{".", filepath.Join("..", "reconcilers")} {
		require.NoError(t, filepath.WalkDir(room, func(path string, _ fs.DirEntry, err error) error {
			if err == nil && strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
				reasonsIn(t, path, reasons)
			}
			return err
		}))
	}
	require.Greater(t, len(reasons), 30)
	for reason := range reasons {
		require.True(t, entries[reason], "docs/blocked.md has no entry %s", reason)
	}
	for entry := range entries {
		require.True(t, reasons[entry], "nothing is blocked for %s any more", entry)
	}
}

// reasonsIn collects the reasons of a file's BlockedError literals. One that is a name stands for all texts that the
// file gives to that name.
func reasonsIn(t *testing.T, path string, reasons map[string]bool) {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	require.NoError(t, err)
	named := map[string][]string{}
	give := func(name, value ast.Expr) {
		if id, ok := name.(*ast.Ident); ok {
			if text, ok := textOf(value); ok {
				named[id.Name] = append(named[id.Name], text)
			}
		}
	}
	var used []ast.Expr
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			for i := range min(len(n.Lhs), len(n.Rhs)) {
				give(n.Lhs[i], n.Rhs[i])
			}
		case *ast.ValueSpec:
			for i := range n.Values {
				give(n.Names[i], n.Values[i])
			}
		case *ast.CompositeLit:
			if isBlockedError(n.Type) {
				for _, element := range n.Elts {
					if pair, ok := element.(*ast.KeyValueExpr); ok && pair.Key.(*ast.Ident).Name == "Reason" {
						used = append(used, pair.Value)
					}
				}
			}
		}
		return true
	})
	for _, value := range used {
		texts := []string{}
		if text, ok := textOf(value); ok {
			texts = append(texts, text)
		} else if id, ok := value.(*ast.Ident); ok {
			texts = named[id.Name]
		}
		require.NotEmpty(t, texts, "%s: a reason that cannot be read from the code", path)
		for _, text := range texts {
			reasons[text] = true
		}
	}
}

func isBlockedError(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.SelectorExpr:
		return e.Sel.Name == "BlockedError"
	case *ast.Ident:
		return e.Name == "BlockedError"
	}
	return false
}

func textOf(e ast.Expr) (string, bool) {
	literal, ok := e.(*ast.BasicLit)
	if !ok || literal.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(literal.Value)
	return text, err == nil
}
