package rooms

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

const module = "dive-agent/"

// The tables of docs/architecture.md, by the first cell of their heads.
const (
	tableOfRooms    = "folder"
	tableForTests   = "folder, for tests"
	tableOfPackages = "packages of others"
)

// room is a row of the first two tables: a folder, or several of them when a part of its name is "*".
type room struct {
	folder   string
	forTests bool
	may      []string // folders of rooms
	tests    []string // what its test files may import beyond that and the rooms for tests
}

// permission is a row of the third table: who may import some packages that are not ours.
type permission struct {
	packages []string // import paths; "/..." at the end: all below
	rooms    []string
}

// rules is what may import what.
type rules struct {
	rooms       []room
	permissions []permission
}

// imported is one import of one file.
type imported struct {
	file string // from the root of the checkout
	path string
}

// parseRules reads the tables. What a room may import are the names in back quotes of its row's last cell; those behind
// "tests:" are for its test files.
func parseRules(markdown string) (r rules, err error) {
	table := ""
	for line := range strings.Lines(markdown) {
		if !strings.HasPrefix(line, "|") {
			table = ""
			continue
		}
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		first, last := strings.TrimSpace(cells[0]), cells[len(cells)-1]
		switch {
		case table == "":
			table = first
		case strings.HasPrefix(first, "---"):
		case table == tableOfPackages:
			r.permissions = append(r.permissions, permission{packages: names(cells[0]), rooms: names(last)})
		case table == tableOfRooms, table == tableForTests:
			folder := names(cells[0])
			if len(folder) != 1 {
				return r, fmt.Errorf("row %q does not name one folder", line)
			}
			may, tests, _ := strings.Cut(last, "tests:")
			r.rooms = append(r.rooms, room{folder: folder[0], forTests: table == tableForTests, may: names(may), tests: names(tests)})
		}
	}
	return r, nil
}

var quoted = regexp.MustCompile("`([^`]+)`")

func names(cell string) (out []string) {
	for _, match := range quoted.FindAllStringSubmatch(cell, -1) {
		out = append(out, strings.TrimSuffix(match[1], "/"))
	}
	return out
}

// of gives the room that a package of ours is in, and the room's folder in full: the longest that fits, and one without
// "*" before one with. nil: it has none.
func (r rules) of(folder string) (found *room, full string) {
	parts := strings.Split(folder, "/")
	for i, one := range r.rooms {
		prefix := strings.Join(parts[:min(len(parts), strings.Count(one.folder, "/")+1)], "/")
		fits, _ := path.Match(one.folder, prefix)
		if fits && (len(prefix) > len(full) || len(prefix) == len(full) && one.folder == prefix) {
			found, full = &r.rooms[i], prefix
		}
	}
	return found, full
}

// judge says what is wrong with an import; empty: nothing. What allowed it is noted as used.
func (r rules) judge(i imported, used map[string]bool) string {
	test := strings.HasSuffix(i.file, "_test.go")
	from, fromFolder := r.of(path.Dir(i.file))
	if from == nil {
		return i.file + ": its folder has no row"
	}
	ours, isOurs := strings.CutPrefix(i.path, module)
	if !isOurs {
		return r.judgeOther(i, fromFolder, test || from.forTests, used)
	}
	to, toFolder := r.of(ours)
	switch {
	case to == nil:
		return i.file + " imports " + i.path + ", which has no row"
	case toFolder == fromFolder, test && to.forTests:
		return ""
	case slices.Contains(from.may, to.folder):
		used[from.folder+" imports "+to.folder] = true
		return ""
	case test && slices.Contains(from.tests, to.folder):
		used[from.folder+" tests with "+to.folder] = true
		return ""
	}
	return i.file + " imports " + i.path + ": its room may not"
}

// judgeOther judges an import of what is not ours. All of the standard library that no row names is free, and tests
// are.
func (r rules) judgeOther(i imported, folder string, free bool, used map[string]bool) string {
	if free {
		return ""
	}
	host, _, _ := strings.Cut(i.path, "/")
	named := strings.Contains(host, ".")
	for _, p := range r.permissions {
		for _, pattern := range p.packages {
			prefix, below := strings.CutSuffix(pattern, "/...")
			if i.path != prefix && (!below || !strings.HasPrefix(i.path, prefix+"/")) {
				continue
			}
			named = true
			if slices.Contains(p.rooms, folder) {
				used[pattern], used[p.packages[0]+" in "+folder] = true, true
				return ""
			}
		}
	}
	if named {
		return i.file + " imports " + i.path + ": its room may not"
	}
	return ""
}

// unused gives what the tables allow and nobody does.
func (r rules) unused(used map[string]bool) []string {
	var all []string
	for _, one := range r.rooms {
		for _, other := range one.may {
			all = append(all, one.folder+" imports "+other)
		}
		for _, other := range one.tests {
			all = append(all, one.folder+" tests with "+other)
		}
	}
	for _, p := range r.permissions {
		all = append(all, p.packages...)
		for _, folder := range p.rooms {
			all = append(all, p.packages[0]+" in "+folder)
		}
	}
	return slices.DeleteFunc(all, func(what string) bool { return used[what] })
}
