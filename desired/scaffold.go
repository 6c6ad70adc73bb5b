package desired

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
)

// NewInstance says what NewInstanceFile is to write.
type NewInstance struct {
	Role    string // spoke or hub
	Code    string // country code, such as DEU
	Country string // name for people, such as Germany
	Name    string // default: the code in lower case
	Host    string // default: the only host without an instance whose name begins with the instance's, else <name>-01
}

// File is a file of a repository that is to be written.
type File struct {
	Path string // slash-separated, relative to the repository's root
	Text []byte
}

// offsets are the port offsets that DIVE gives to countries; others get the first that is free on the host.
var offsets = map[string]int{"USA": 0, "FRA": 10, "DEU": 11, "GBR": 31}

// NewInstanceFile writes what a pull request adds for a new instance: its manifest and, when the host is new, the
// host's. The port offset is the country's own if no other instance of the host has it or collides with it, else the
// first that fits. The repository must be valid.
func NewInstanceFile(dir string, o Options, want NewInstance) ([]File, error) {
	fleet, err := Load(dir, o)
	if err != nil {
		return nil, err
	}
	want.Code = strings.ToUpper(strings.TrimSpace(want.Code))
	if want.Name == "" {
		want.Name = strings.ToLower(want.Code)
	}
	switch {
	case len(want.Code) != 3 || strings.Trim(want.Code, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "":
		return nil, fmt.Errorf("code %q: use the three letters of a country, such as DEU", want.Code)
	case !validName(want.Name):
		return nil, fmt.Errorf("name %q: use lower-case letters, digits and hyphens, at most 40", want.Name)
	case want.Role != RoleSpoke && want.Role != RoleHub:
		return nil, fmt.Errorf("role %q: use spoke or hub", want.Role)
	case fleet.Instances[want.Name] != nil:
		return nil, fmt.Errorf("instance %s is there already (%s)", want.Name, fleet.Instances[want.Name].Position.File)
	}
	blueprint, err := blueprintFor(dir, o, want.Role)
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(fleet.Instances)) {
		if code, ok := fleet.Instances[name].Values["code"]; ok && code.Text() == want.Code {
			return nil, fmt.Errorf("instance %s has the code %s already", name, want.Code)
		}
	}
	if want.Host == "" {
		want.Host = freeHost(fleet, want.Name)
	}
	var files []File
	if fleet.Hosts[want.Host] == nil {
		if !validName(want.Host) {
			return nil, fmt.Errorf("host %q: use lower-case letters, digits and hyphens, at most 40", want.Host)
		}
		files = append(files, hostFile(want))
	}
	return placed(dir, o, fleet, want, blueprint, files)
}

// blueprintFor finds the blueprint of a role: the one with the role's name, else the only one.
func blueprintFor(dir string, o Options, role string) (*blueprint, error) {
	l := newLoader(nil, dir, o)
	stop, err := l.openDir()
	if err != nil {
		return nil, err
	}
	defer stop()
	l.readBlueprints()
	var found []*blueprint
	for _, name := range slices.Sorted(maps.Keys(l.blueprints)) {
		if b := l.blueprints[name]; b.role == role {
			if name == role {
				return b, nil
			}
			found = append(found, b)
		}
	}
	if len(found) != 1 {
		return nil, fmt.Errorf("there are %d blueprints of role %s; name one %s, or write the instance by hand", len(found), role, role)
	}
	return found[0], nil
}

// freeHost is a declared host for the instance that runs none yet, or the name of a new one.
func freeHost(fleet *Fleet, name string) string {
	taken := map[string]bool{}
	for _, i := range fleet.Instances {
		taken[i.Host] = true
	}
	for _, host := range slices.Sorted(maps.Keys(fleet.Hosts)) {
		if strings.HasPrefix(host, name+"-") && !taken[host] {
			return host
		}
	}
	return name + "-01"
}

func hostFile(want NewInstance) File {
	return File{Path: "hosts/" + want.Host + ".yaml", Text: fmt.Appendf(nil, `# The host of %s. What dive-agent enroll prints on it takes this file's place: its machine id, and the public halves of its keys.
apiVersion: %s
kind: Host
metadata: {name: %s}
spec: {}
`, want.Code, APIVersion, want.Host)}
}

// placed tries port offsets until the repository with the new files has no collision.
func placed(dir string, o Options, fleet *Fleet, want NewInstance, b *blueprint, files []File) ([]File, error) {
	_, hasOffset := b.decls["portOffset"]
	candidates := []int{-1}
	if hasOffset {
		candidates = candidateOffsets(fleet, want)
	}
	var last error
	for _, offset := range candidates {
		file := File{Path: "instances/" + want.Name + ".yaml", Text: instanceText(want, b, offset)}
		all := append(slices.Clone(files), file)
		err := tryWith(dir, o, all)
		if err == nil {
			return all, nil
		}
		last = err
		var problems Problems
		if !errors.As(err, &problems) || !slices.ContainsFunc(problems, func(p Problem) bool { return strings.Contains(p.Message, "is taken on host") }) {
			break // another offset would not help
		}
	}
	return nil, fmt.Errorf("no valid manifest for %s: %w", want.Name, last)
}

// candidateOffsets are the country's own offset and then those that no instance of the host has, the lowest first.
func candidateOffsets(fleet *Fleet, want NewInstance) []int {
	used := map[int]bool{}
	for _, i := range fleet.Instances {
		if n, err := strconv.Atoi(i.Values["portOffset"].Text()); err == nil && i.Host == want.Host {
			used[n] = true
		}
	}
	var out []int
	if own, ok := offsets[want.Code]; ok && !used[own] {
		out = append(out, own)
	}
	for n := 1; n <= 99 && len(out) < 40; n++ {
		if !used[n] && !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}

// instanceText is the manifest, with the values that only it can know; other required values are the fleet's.
func instanceText(want NewInstance, b *blueprint, offset int) []byte {
	var values []string
	add := func(name, text string) {
		if b.decls[name] != nil {
			values = append(values, name+": "+text)
		}
	}
	add("code", want.Code)
	if want.Country != "" {
		add("country", yamlText(want.Country))
	}
	if offset >= 0 {
		add("portOffset", strconv.Itoa(offset))
	}
	text := fmt.Sprintf("apiVersion: %s\nkind: %s\nmetadata: {name: %s}\nspec:\n  blueprint: %s\n  host: %s\n", APIVersion, InstanceKind, want.Name, b.name, want.Host)
	if len(values) > 0 {
		text += "  values: {" + strings.Join(values, ", ") + "}\n"
	}
	return []byte(text)
}

// yamlText quotes a text where YAML would read it as something else.
func yamlText(text string) string {
	plain := strings.IndexFunc(text, func(r rune) bool {
		return r != ' ' && r != '-' && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && r < 0x80
	}) < 0
	first := []rune(text)[0]
	n, problems := parseManifest("", []byte("x: "+text))
	if plain && first != ' ' && first != '-' && len(problems) == 0 && n.get("x") != nil && n.get("x").tag == "!!str" && n.get("x").text == text {
		return text
	}
	return strconv.Quote(strings.ReplaceAll(text, "${", "$${"))
}

// tryWith validates the repository as it would be with some files more.
func tryWith(dir string, o Options, files []File) error {
	l := newLoader(nil, dir, o)
	stop, err := l.openDir()
	if err != nil {
		return err
	}
	defer stop()
	l.files = overlay{l.files, files}
	_, err = l.run()
	return err
}

// overlay is a file system with some files put over it.
type overlay struct {
	fs.FS
	files []File
}

func (o overlay) Open(name string) (fs.File, error) {
	for _, f := range o.files {
		if f.Path == name {
			return openText(f)
		}
	}
	return o.FS.Open(name)
}

// ReadDir implements fs.ReadDirFS.
func (o overlay) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, err := fs.ReadDir(o.FS, name)
	added := false
	for _, f := range o.files {
		if path.Dir(f.Path) != name {
			continue
		}
		file, openErr := openText(f)
		if openErr != nil {
			return nil, openErr
		}
		info, statErr := file.Stat()
		if statErr != nil {
			return nil, statErr
		}
		entries, added = append(entries, fs.FileInfoToDirEntry(info)), true
	}
	if added && errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return entries, err
}
