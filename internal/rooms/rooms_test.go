// Package rooms holds the rule of which package may import which; docs/architecture.md tells it to people.
package rooms

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "dive-agent/"

// allowed says what the packages below a folder may import of ours, besides what lies below the same folder. Their tests
// may import more.
var allowed = map[string][]string{
	"agent":       {"desired", "source", "reconcilers", "secrets", "state", "report"},
	"atomicfile":  {},
	"config":      {},
	"desired":     {},
	"gitremote":   {},
	"source":      {"gitremote", "atomicfile"},
	"state":       {},
	"secrets":     {"desired", "atomicfile"},
	"report":      {"state", "gitremote"},
	"reconcilers": {"desired", "atomicfile"},
}

// free are the folders that put the others together.
var free = []string{"cmd", "testbed", "bench", "internal", "examples", "docs"}

func TestEveryPackageImportsOnlyWhatItsRoomMay(t *testing.T) {
	root := filepath.Join("..", "..")
	seen := map[string]bool{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && rel != "." || d.Name() == "testdata" || d.Name() == "bin") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		room, _, _ := strings.Cut(filepath.ToSlash(rel), "/")
		seen[room] = true
		checkFile(t, path, filepath.ToSlash(rel), room)
		return nil
	})
	require.NoError(t, err)
	for room := range allowed {
		require.True(t, seen[room], "room %s of the table does not exist", room)
	}
}

func checkFile(t *testing.T, path, rel, room string) {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
	require.NoError(t, err)
	for _, spec := range file.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		require.NoError(t, err)
		ours, ok := strings.CutPrefix(imported, module)
		if !ok {
			continue
		}
		if !mayImport(rel, room, ours) {
			t.Errorf("%s imports %s: its room may not", rel, imported)
		}
	}
}

func mayImport(rel, room, imported string) bool {
	target, _, _ := strings.Cut(imported, "/")
	isTest := strings.HasSuffix(rel, "_test.go") || strings.Contains(rel, "bench/") || strings.Contains(rel, "/internal/lab/")
	if isTest {
		return true
	}
	if target == "testbed" || strings.HasSuffix(imported, "/conformance") || strings.HasSuffix(imported, "/storetest") {
		return room == "testbed" || room == "bench" || strings.Contains(rel, "/conformance/") || strings.Contains(rel, "/storetest/")
	}
	for _, folder := range free {
		if room == folder {
			return true
		}
	}
	if room == "reconcilers" && target == "reconcilers" {
		return sameEngine(rel, imported)
	}
	if target == room {
		return true
	}
	for _, other := range allowed[room] {
		if other == target {
			return target != "reconcilers" || imported == "reconcilers"
		}
	}
	return false
}

// sameEngine says whether a reconciler imports the contract, something of its own folder, or what all of them share.
func sameEngine(rel, imported string) bool {
	own := filepath.ToSlash(filepath.Dir(rel))
	return imported == "reconcilers" || imported == own || strings.HasPrefix(imported, own+"/") || strings.HasPrefix(imported, "reconcilers/internal/")
}
