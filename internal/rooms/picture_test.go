package rooms

import (
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	beginOfPicture = "<!-- made from the imports of the code by `go generate ./internal/rooms` -->\n"
	endOfPicture   = "<!-- end of what is made -->\n"
)

// TestPictureIsOfTheCode holds the picture of the rooms in docs/architecture.md; with UPDATE it draws it.
func TestPictureIsOfTheCode(t *testing.T) {
	text, err := os.ReadFile(document)
	require.NoError(t, err)
	before, rest, begins := strings.Cut(string(text), beginOfPicture)
	have, after, ends := strings.Cut(rest, endOfPicture)
	require.True(t, begins && ends, "docs/architecture.md has no place for the picture")
	want := draw(readRules(t), readImports(t))
	if os.Getenv("UPDATE") != "" {
		require.NoError(t, os.WriteFile(document, []byte(before+beginOfPicture+want+endOfPicture+after), 0o644))
		return
	}
	if have != want {
		t.Fatal("the picture in docs/architecture.md is not current: run `go generate ./internal/rooms`")
	}
}

// draw gives the rooms of the product as a Mermaid graph: an arrow for each import, but for what can be reached by
// other arrows too.
func draw(r rules, all []imported) string {
	arrows := map[string]map[string]bool{}
	members := map[string]map[string]bool{}
	for _, i := range all {
		from, folder := r.of(path.Dir(i.file))
		if from == nil || from.forTests || strings.HasSuffix(i.file, "_test.go") {
			continue
		}
		if arrows[from.folder] == nil {
			arrows[from.folder], members[from.folder] = map[string]bool{}, map[string]bool{}
		}
		members[from.folder][folder] = true
		ours, isOurs := strings.CutPrefix(i.path, module)
		if to, _ := r.of(ours); isOurs && to != nil && to != from {
			arrows[from.folder][to.folder] = true
		}
	}
	var b strings.Builder
	b.WriteString("```mermaid\nflowchart TD\n")
	id := func(name string) string { return strings.NewReplacer("/", "_", "*", "each", "-", "_").Replace(name) }
	for _, name := range slices.Sorted(maps.Keys(arrows)) {
		fmt.Fprintf(&b, "  %s[\"%s\"]\n", id(name), strings.Join(slices.Sorted(maps.Keys(members[name])), "<br>"))
	}
	for _, from := range slices.Sorted(maps.Keys(arrows)) {
		for _, to := range slices.Sorted(maps.Keys(arrows[from])) {
			if !byOthers(arrows, from, to) {
				fmt.Fprintf(&b, "  %s --> %s\n", id(from), id(to))
			}
		}
	}
	b.WriteString("```\n")
	return b.String()
}

// byOthers says whether there is a way of more than one arrow. Imports have no circles, rooms might: what was seen is not
// walked twice.
func byOthers(arrows map[string]map[string]bool, from, to string) bool {
	seen := map[string]bool{from: true}
	var walk func(string) bool
	walk = func(at string) bool {
		if at == to {
			return true
		}
		if seen[at] {
			return false
		}
		seen[at] = true
		return slices.ContainsFunc(slices.Collect(maps.Keys(arrows[at])), walk)
	}
	for next := range arrows[from] {
		if next != to && walk(next) {
			return true
		}
	}
	return false
}
