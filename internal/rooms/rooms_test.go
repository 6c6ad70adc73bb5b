package rooms

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const root = "../.."

var document = filepath.Join(root, "docs", "architecture.md")

func TestEveryImportIsOneThatItsRoomMay(t *testing.T) {
	r, all := readRules(t), readImports(t)
	used, rooms := map[string]bool{}, map[string]bool{}
	for _, i := range all {
		if wrong := r.judge(i, used); wrong != "" {
			t.Error(wrong)
		}
		if from, _ := r.of(path.Dir(i.file)); from != nil {
			rooms[from.folder] = true
		}
	}
	for _, one := range r.rooms {
		require.True(t, rooms[one.folder], "room %s of the table does not exist", one.folder)
	}
	require.Empty(t, r.unused(used), "the tables allow what nobody does")
}

// What the rule is for, import by import, so that a row that says too much is seen too.
func TestRuleRefuses(t *testing.T) {
	r := readRules(t)
	for file, imports := range map[string][]string{
		"reconcilers/compose/x.go":      {"dive-agent/reconcilers/mongo", "dive-agent/state", "dive-agent/agent", "go.mongodb.org/mongo-driver/v2/bson"},
		"reconcilers/mongo/x.go":        {"dive-agent/reconcilers/internal/lab", "dive-agent/testbed", "github.com/docker/compose/v5/pkg/api", "github.com/moby/moby/client", "os/exec"},
		"reconcilers/mongo/x_test.go":   {"dive-agent/reconcilers/compose", "dive-agent/state"},
		"reconcilers/x.go":              {"dive-agent/reconcilers/compose", "dive-agent/reconcilers/conformance", "dive-agent/source"},
		"reconcilers/internal/new/x.go": {"dive-agent/testbed"},
		"source/x.go":                   {"dive-agent/desired", "dive-agent/source/sourcebench", "github.com/go-git/go-git/v5/plumbing/transport/http"},
		"source/hook/x.go":              {"dive-agent/source"},
		"state/x.go":                    {"dive-agent/report", "github.com/jackc/pgx/v5"},
		"agent/x.go":                    {"github.com/chromedp/chromedp", "modernc.org/sqlite", "dive-agent/gitremote", "github.com/spf13/cobra"},
		"desired/x.go":                  {"dive-agent/reconcilers", "example.org/unheard/of", "golang.org/x/sync/errgroup"},
		"cmd/dive-agent/x.go":           {"dive-agent/testbed/pki", "dive-agent/bench", "dive-agent/state/storetest", "dive-agent/reconcilers/conformance", "github.com/chromedp/chromedp"},
		"examples/x.go":                 {"dive-agent/agent", "dive-agent/testbed", "os/exec"},
		"testbed/x.go":                  {"dive-agent/agent", "dive-agent/reconcilers/compose"},
		"cmd/another/x.go":              {"fmt"},
		"fleet/x.go":                    {"fmt"},
		"agent/y.go":                    {"dive-agent/fleet"},
	} {
		for _, one := range imports {
			require.NotEmpty(t, r.judge(imported{file: file, path: one}, map[string]bool{}), "%s may import %s", file, one)
		}
	}
}

func readRules(t *testing.T) rules {
	t.Helper()
	text, err := os.ReadFile(document)
	require.NoError(t, err)
	r, err := parseRules(string(text))
	require.NoError(t, err)
	require.NotEmpty(t, r.rooms)
	require.NotEmpty(t, r.permissions)
	return r
}

// readImports gives the imports of every Go file below the root, whatever its build tags; a file without any counts
// with an import of nothing.
func readImports(t *testing.T) (all []imported) {
	t.Helper()
	require.NoError(t, fs.WalkDir(os.DirFS(root), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && name != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || name == "bin"):
			return fs.SkipDir
		case !strings.HasSuffix(name, ".go"):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, name), nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		all = append(all, imported{file: name})
		for _, spec := range file.Imports {
			imports, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			all = append(all, imported{file: name, path: imports})
		}
		return nil
	}))
	return all
}
