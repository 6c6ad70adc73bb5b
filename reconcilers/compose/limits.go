package compose

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"dive-agent/desired"
)

// What a stack may be made of. compose-go reads what it is given, however much that becomes, and heeds no deadline
// meanwhile; so all files are read and counted before it sees any of them. With these limits a file that is refused costs
// less than a second and 50 MB.
const (
	composeFileLimit = 1 << 20 // bytes of one file, env and label files too
	filesLimit       = 100     // files of a stack, with what they include and extend
	marksLimit       = 100_000 // signs at which a value of a file can begin: each may cost 400 bytes to parse
	nodeLimit        = 200_000 // values of all files, once aliases and extends are expanded
	serviceLimit     = 500     // services of all files
)

// sourceFile is one Compose file of a stack, or one that such a file includes or extends.
type sourceFile struct {
	name    string // relative to the source folder
	path    string
	content []byte
	roots   []*yaml.Node // one for each document
}

// placedError is a mistake at a place in a file of the source folder.
type placedError struct {
	at   desired.Position // File is relative to the source folder
	text string
	err  error
}

func (e *placedError) Error() string { return e.at.String() + ": " + e.text }
func (e *placedError) Unwrap() error { return e.err }

// gatherer reads the files of one stack within the limits.
type gatherer struct {
	r        request
	files    []*sourceFile
	byPath   map[string]*sourceFile
	named    map[string]bool // names by which files are included or extended, as written and as compose-go may resolve them
	nodes    int
	services int
	ports    int
}

// gather reads the Compose files with all that they include and extend. With an error come the files that were read.
func (r request) gather() (*gatherer, error) {
	g := &gatherer{r: r, byPath: map[string]*sourceFile{}, named: map[string]bool{}}
	for _, name := range r.files {
		path, err := r.inside(name)
		if err != nil {
			return g, fmt.Errorf("find Compose file %s: %w", name, err)
		}
		if _, err := g.read(path, r.base()); err != nil {
			return g, err
		}
	}
	return g, nil
}

// read reads one file and what it refers to; dir is the folder that its relative paths count from.
func (g *gatherer) read(path, dir string) (*sourceFile, error) {
	if file := g.byPath[path]; file != nil {
		return file, nil // compose-go tells a cycle
	}
	name := g.r.relative(path)
	if len(g.files) >= filesLimit {
		return nil, fmt.Errorf("%s: the stack has more than %d Compose files", name, filesLimit)
	}
	content, err := readLimited(path)
	if err != nil {
		return nil, fmt.Errorf("read Compose file %s: %w", name, cause(err))
	}
	file := &sourceFile{name: name, path: path, content: content}
	if err := file.parse(); err != nil {
		return nil, err
	}
	if err := g.count(file); err != nil {
		return nil, err
	}
	g.files = append(g.files, file)
	g.byPath[path] = file
	g.named[path], g.named[name] = true, true
	for _, root := range file.roots {
		if err := g.countPorts(file, root); err != nil {
			return nil, err
		}
		if err := g.included(file, root, dir); err != nil {
			return nil, err
		}
		if err := g.extended(file, root, dir); err != nil {
			return nil, err
		}
	}
	return file, nil
}

// relative names a file as people know it.
func (r request) relative(path string) string {
	if rel, err := filepath.Rel(r.base(), path); err == nil {
		return filepath.ToSlash(rel)
	}
	return filepath.Base(path)
}

// parse reads the documents of a file that is small enough for it.
func (f *sourceFile) parse() error {
	if marks := countMarks(f.content); marks > marksLimit {
		return fmt.Errorf("%s: it has %d or more values, some %d are allowed", f.name, marks, marksLimit)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(f.content))
	for {
		var doc yaml.Node
		err := decoder.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return f.syntaxError(err)
		}
		if len(doc.Content) > 0 {
			f.roots = append(f.roots, doc.Content[0])
		}
	}
}

// countMarks counts what each value of a YAML text needs one of: a line of its own, or a sign before it.
func countMarks(content []byte) int {
	marks := 0
	for _, c := range content {
		switch c {
		case '\n', ',', ':', '[', '{', '-', '?':
			marks++
		}
	}
	return marks
}

// syntaxError gives the line that the parser names, at its first word.
func (f *sourceFile) syntaxError(err error) error {
	at := desired.Position{File: f.name, Line: 1, Column: 1}
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if found := yamlLine.FindStringSubmatch(text); found != nil {
		at.Line = atoi(found[1])
		text = strings.TrimPrefix(text, found[0]+": ")
		if strings.HasPrefix(text, "did not find expected") {
			at.Line++ // the parser, other than the scanner before it, counts lines from 0
		}
		if lines := bytes.SplitN(f.content, []byte("\n"), at.Line+1); at.Line > 0 && at.Line <= len(lines) {
			line := lines[at.Line-1]
			at.Column = len(line) - len(bytes.TrimLeft(line, " \t")) + 1
		}
	}
	return &placedError{at: at, text: text, err: err}
}

// count adds the values and services of a file to those of the stack.
func (g *gatherer) count(file *sourceFile) error {
	seen := map[*yaml.Node]int{}
	for _, root := range file.roots {
		g.nodes += expanded(root, seen)
		if _, services := child(root, "services"); services != nil {
			g.services += len(services.Content) / 2
		}
	}
	switch {
	case g.nodes > nodeLimit:
		return fmt.Errorf("%s: %d or more values once its aliases are expanded, %d are allowed", file.name, g.nodes, nodeLimit)
	case g.services > serviceLimit:
		return fmt.Errorf("%s: the stack has %d services, %d are allowed", file.name, g.services, serviceLimit)
	}
	return nil
}

// expanded counts the nodes below one, aliases expanded; it stops counting beyond the limit.
func expanded(node *yaml.Node, seen map[*yaml.Node]int) int {
	if node == nil {
		return 0
	}
	if count, ok := seen[node]; ok {
		return count
	}
	seen[node] = nodeLimit + 1 // an alias of itself
	count := 1
	if node.Kind == yaml.AliasNode {
		count = expanded(node.Alias, seen)
	}
	for _, child := range node.Content {
		if count > nodeLimit {
			break
		}
		count += expanded(child, seen)
	}
	seen[node] = count
	return count
}

// inclusion is one entry of include, in its long form.
type inclusion struct {
	Path             texts  `yaml:"path"`
	ProjectDirectory string `yaml:"project_directory"`
	EnvFile          texts  `yaml:"env_file"`
}

// texts is a text or a list of them.
type texts []string

func (t *texts) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind == yaml.SequenceNode {
		return node.Decode((*[]string)(t))
	}
	*t = texts{node.Value}
	return nil
}

func (i *inclusion) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind == yaml.ScalarNode {
		i.Path = texts{node.Value}
		return nil
	}
	type plain inclusion
	return node.Decode((*plain)(i))
}

// included reads what the document includes. Paths in it count from dir, which compose-go calls the project directory.
func (g *gatherer) included(file *sourceFile, root *yaml.Node, dir string) error {
	key, list := child(root, "include")
	if key == nil {
		return nil
	}
	wrong := func(node *yaml.Node, err error) error {
		return &placedError{at: positionIn(file, node), text: "include: " + err.Error(), err: err}
	}
	for _, item := range resolved(list).Content {
		var entry inclusion
		if err := item.Decode(&entry); err != nil {
			return wrong(item, err)
		}
		if len(entry.Path) == 0 {
			return wrong(item, errors.New("it has no path"))
		}
		first, err := g.r.below(dir, entry.Path[0])
		if err != nil {
			return wrong(item, err)
		}
		if !g.own(file) && (entry.ProjectDirectory != "" || len(entry.EnvFile) > 0) {
			// compose-go would look for them from the folder that the process runs in.
			return wrong(item, errors.New("project_directory and env_file are possible only in the stack's own files, not in what they include"))
		}
		project := filepath.Dir(first)
		if entry.ProjectDirectory != "" {
			if project, err = g.r.below(dir, entry.ProjectDirectory); err != nil {
				return wrong(item, err)
			}
		}
		for _, path := range slices.Concat(entry.EnvFile, texts{filepath.Join(project, ".env")}) {
			if err := g.r.smallEnough(dir, path); err != nil {
				return wrong(item, err)
			}
		}
		for _, name := range entry.Path {
			g.named[name] = true
			path, err := g.r.below(dir, name)
			if err != nil {
				return wrong(item, err)
			}
			if _, err := g.read(path, project); err != nil {
				return unlessPlaced(err, func() error { return wrong(item, err) })
			}
		}
	}
	return nil
}

// own says whether the manifest itself names the file.
func (g *gatherer) own(file *sourceFile) bool {
	return slices.ContainsFunc(g.r.files, func(name string) bool {
		path, err := g.r.inside(name)
		return err == nil && path == file.path
	})
}

// extended reads the files whose services are extended, and counts what each service becomes by that.
func (g *gatherer) extended(file *sourceFile, root *yaml.Node, dir string) error {
	_, services := child(root, "services")
	services = resolved(services)
	if services == nil || services.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(services.Content); i += 2 {
		at, base := child(services.Content[i+1], "extends")
		if at == nil {
			continue
		}
		from, service := root, resolved(base).Value
		if _, named := child(base, "service"); named != nil {
			service = named.Value
		}
		if _, other := child(base, "file"); other != nil {
			g.named[other.Value] = true
			path, err := g.r.below(dir, other.Value)
			if err == nil {
				var read *sourceFile
				if read, err = g.read(path, filepath.Dir(path)); err == nil {
					from = nil
					if len(read.roots) > 0 {
						from = read.roots[0]
					}
				}
			}
			if err != nil {
				return unlessPlaced(err, func() error {
					return &placedError{at: positionIn(file, other), text: "extends: " + err.Error(), err: err}
				})
			}
		}
		_, all := child(from, "services")
		_, extends := child(all, service)
		if g.nodes += expanded(extends, map[*yaml.Node]int{}); g.nodes > nodeLimit {
			return &placedError{at: positionIn(file, at), text: fmt.Sprintf("%d or more values once services are extended, %d are allowed", g.nodes, nodeLimit)}
		}
	}
	return nil
}

// unlessPlaced gives an error a place that has none yet.
func unlessPlaced(err error, place func() error) error {
	var placed *placedError
	if errors.As(err, &placed) {
		return err
	}
	return place()
}

func positionIn(file *sourceFile, node *yaml.Node) desired.Position {
	return desired.Position{File: file.name, Line: node.Line, Column: node.Column}
}

// below gives the place of a file or folder of the source folder that a Compose file names. Its files are read before the
// variables have values.
func (r request) below(dir, name string) (string, error) {
	if strings.Contains(name, "$") {
		return "", errors.New("a path to include or extend cannot hold a variable")
	}
	if !filepath.IsAbs(name) && !strings.Contains(name, "://") {
		name = filepath.Join(dir, name)
	}
	path, err := r.inside(name)
	if err != nil {
		return "", err
	}
	return filepath.Clean(path), nil
}

// smallEnough looks at a file that compose-go reads whole. One that is not there is compose-go's to tell.
func (r request) smallEnough(dir, name string) error {
	if name == os.DevNull {
		return nil
	}
	path, err := r.below(dir, name)
	if err != nil {
		return err
	}
	return checkSize(path)
}

func checkSize(path string) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil
	case !info.Mode().IsRegular():
		return errors.New("it is no regular file")
	case info.Size() > composeFileLimit:
		return fmt.Errorf("it has %d bytes, %d are allowed", info.Size(), composeFileLimit)
	}
	return nil
}

func readLimited(path string) ([]byte, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	if err := checkSize(path); err != nil {
		return nil, err
	}
	return os.ReadFile(path)
}
