package rooms

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// namedTest is a test that the docs name: `TestX` or `TestX/a part of it`, and in brackets behind it the folder it is in.
var namedTest = regexp.MustCompile("`(Test[A-Z]\\w*)(?:/([^`]+))?`(?: \\(([a-z][\\w/-]*)\\))?")

// shownBy is the head of the column in which each row names a test.
const shownBy = "shown by"

// declaredTests are the tests of a folder: their names, and every text of its test files, which has the names of their parts.
type declaredTests struct {
	names, texts map[string]bool
}

// TestTestsThatTheDocsNameExist reads every page: who follows it finds the test, and a row that claims something has one.
func TestTestsThatTheDocsNameExist(t *testing.T) {
	folders := readTests(t)
	pages, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	require.NoError(t, err)
	require.NotEmpty(t, pages)
	named, rows := 0, 0
	for _, page := range pages {
		text, err := os.ReadFile(page)
		require.NoError(t, err)
		claims := false
		for i, line := range strings.Split(string(text), "\n") {
			at := filepath.Base(page) + ":" + strconv.Itoa(i+1)
			for _, match := range namedTest.FindAllStringSubmatch(line, -1) {
				named++
				require.True(t, exists(folders, match[1], match[2], match[3]), "%s: there is no test %s", at, match[0])
			}
			switch cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|"); {
			case !strings.HasPrefix(line, "|"):
				claims = false
			case strings.TrimSpace(cells[len(cells)-1]) == shownBy:
				claims = true
			case claims && !strings.HasPrefix(line, "| ---"):
				rows++
				require.Regexp(t, namedTest, cells[len(cells)-1], "%s: no test shows what this row says", at)
			}
		}
	}
	require.Greater(t, named, 30, "the tests that the docs name are not found")
	require.Greater(t, rows, 15, "the rows with tests are not found")
}

func exists(folders map[string]*declaredTests, name, part, folder string) bool {
	for of, tests := range folders {
		if (folder == "" || of == folder) && tests.names[name] && (part == "" || tests.texts[part]) {
			return true
		}
	}
	return false
}

// readTests gives the tests of every folder, whatever their build tags.
func readTests(t *testing.T) map[string]*declaredTests {
	t.Helper()
	folders := map[string]*declaredTests{}
	require.NoError(t, fs.WalkDir(os.DirFS(root), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && name != "." && (strings.HasPrefix(d.Name(), ".") || slices.Contains([]string{"testdata", "bin"}, d.Name())):
			return fs.SkipDir
		case !strings.HasSuffix(name, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, name), nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		tests := folders[path.Dir(name)]
		if tests == nil {
			tests = &declaredTests{map[string]bool{}, map[string]bool{}}
			folders[path.Dir(name)] = tests
		}
		ast.Inspect(file, func(node ast.Node) bool {
			switch n := node.(type) {
			case *ast.FuncDecl:
				tests.names[n.Name.Name] = n.Recv == nil || tests.names[n.Name.Name]
			case *ast.BasicLit:
				if text, err := strconv.Unquote(n.Value); err == nil && n.Kind == token.STRING {
					tests.texts[text] = true
				}
			}
			return true
		})
		return nil
	}))
	return folders
}
