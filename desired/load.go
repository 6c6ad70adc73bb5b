package desired

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
)

// Options say how a repository is read.
type Options struct {
	Kinds []Kind
	Light bool // leave out what must read Compose files and other big content: quicker, but parts and their needs stay unknown
	// Allow gives what a host's own configuration allows beyond what any fleet may ask for, in words that the kinds know;
	// nil: nothing. Whoever cannot know it, since the instance is another host's, gives AllowAll.
	Allow func(host string) []string
}

// AllowAll stands for every word of Options.Allow.
const AllowAll = "*"

// Load reads and validates the fleet repository in a folder. The error is a Problems with all that is wrong in it, in the
// order of files and lines; then no fleet is given. Nothing outside the folder is read: a symlink that leaves it is a
// problem.
func Load(dir string, o Options) (*Fleet, error) {
	l := newLoader(nil, dir, o)
	stop, err := l.openDir()
	if err != nil {
		return nil, err
	}
	defer stop()
	return l.run()
}

// LoadFS is Load for a repository that is not a folder on disk; Check.SourceDir stays empty.
func LoadFS(files fs.FS, o Options) (*Fleet, error) { return newLoader(files, "", o).run() }

func newLoader(files fs.FS, dir string, o Options) *loader {
	l := &loader{
		files: files, dir: dir, options: o, kinds: map[string]*Kind{}, blueprints: map[string]*blueprint{},
		fleet: &Fleet{Hosts: map[string]*Host{}, Instances: map[string]*Instance{}},
	}
	for i := range o.Kinds {
		l.kinds[o.Kinds[i].Name] = &o.Kinds[i]
	}
	return l
}

// openDir opens the repository's folder so that nothing outside it can be read.
func (l *loader) openDir() (stop func(), err error) {
	root, err := os.OpenRoot(l.dir)
	if err != nil {
		return nil, Problems{{Position{File: "."}, fmt.Sprintf("cannot read the repository: %v", cause(err))}}
	}
	l.files = root.FS()
	return func() { _ = root.Close() }, nil
}

func (l *loader) run() (*Fleet, error) {
	if !l.readFleet() {
		return nil, l.problems.Sort()
	}
	l.readHosts()
	l.readBlueprints()
	l.readInstances()
	l.shareSpokes()
	l.shareOutputs()
	l.validate()
	l.shareImports()
	l.checkKnots()
	l.collisions()
	if problems := fold(l.problems.Sort()); len(problems) > 0 {
		return nil, problems
	}
	l.digests()
	return l.fleet, nil
}

// loader holds what is read while a repository is loaded.
type loader struct {
	files      fs.FS
	dir        string
	options    Options
	kinds      map[string]*Kind
	fleet      *Fleet
	fleetText  []byte
	values     map[string]*node // of fleet.yaml
	blueprints map[string]*blueprint
	builders   []*builder // one per instance, by name
	byName     map[string]*builder
	instances  Value // what they publish, as yet unknown
	problems   Problems
	memos      sync.Map // source folder -> *memo
}

func (l *loader) memoOf(source string) *memo {
	m, _ := l.memos.LoadOrStore(source, &memo{})
	return m.(*memo)
}

func (l *loader) fail(at Position, format string, args ...any) {
	l.problems = append(l.problems, Problem{at, fmt.Sprintf(format, args...)})
}

// parse reads a manifest. It gives nil when there is nothing to go on with.
func (l *loader) parse(name string) (root *node, text []byte, problems Problems) {
	text, err := readBounded(l.files, name)
	if err != nil {
		return nil, nil, Problems{{Position{File: name}, fmt.Sprintf("cannot read the file: %v", cause(err))}}
	}
	root, problems = parseManifest(name, text)
	if root != nil && root.kind != mappingNode {
		return nil, text, append(problems, Problem{root.at, "a manifest is a map that begins with apiVersion, kind and metadata"})
	}
	return root, text, problems
}

// readBounded reads a file, or so much of it that the parser sees it is too big.
func readBounded(files fs.FS, name string) ([]byte, error) {
	file, err := files.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is not a regular file")
	}
	text := bytes.NewBuffer(make([]byte, 0, min(info.Size(), maxManifestBytes)+bytes.MinRead))
	_, err = text.ReadFrom(io.LimitReader(file, maxManifestBytes+1))
	return text.Bytes(), err
}

// cause takes the operation and the path out of a file error, since the place says the path already.
func cause(err error) error {
	var pathError *fs.PathError
	if errors.As(err, &pathError) {
		if strings.Contains(pathError.Err.Error(), "escapes") {
			return errors.New("a symbolic link on the way to it leaves the repository")
		}
		return pathError.Err
	}
	return err
}

// readFleet says false when there is no fleet.yaml to read: nothing else has a meaning without it.
func (l *loader) readFleet() bool {
	const name = "fleet.yaml"
	root, text, problems := l.parse(name)
	l.problems = append(l.problems, problems...)
	if root == nil {
		if _, err := fs.Stat(l.files, name); errors.Is(err, fs.ErrNotExist) {
			l.problems = Problems{{Position{File: name}, "the file is missing: this is no fleet repository (dive-agent init makes one)"}}
		}
		return false
	}
	spec, problems := l.open(name, root, FleetKind, "")
	l.problems = append(l.problems, problems...)
	l.fleetText = text
	if at := root.get("metadata").get("name"); at != nil {
		l.fleet.Name = at.text
	}
	d := &Decoder{}
	var f fleetSpec
	d.decodeSpec(spec, &f)
	l.problems = append(l.problems, d.problems...)
	l.fleet.Hub, l.fleet.Removed = f.Hub, f.Removed
	l.fleet.Hub.at = spec.Get("hub").Get("instance").Position()
	l.values = map[string]*node{}
	for name, value := range f.Values {
		l.values[name] = value.n
	}
	l.readCA(spec.Get("hub"))
	return true
}

// readCA puts the content of hub.caFile in hub.ca.
func (l *loader) readCA(hub Tree) {
	h := &l.fleet.Hub
	at := hub.Get("caFile").Position()
	switch {
	case h.CAFile == "":
	case h.CA != "":
		l.fail(at, "write either ca or caFile, not both")
	case !fs.ValidPath(path.Clean(h.CAFile)):
		l.fail(at, "caFile %q leaves the repository", h.CAFile)
	default:
		text, err := readBounded(l.files, path.Clean(h.CAFile))
		if err != nil {
			l.fail(at, "cannot read caFile %s: %v", h.CAFile, cause(err))
		}
		h.CA = string(text)
	}
	if h.CA != "" {
		if at.Line == 0 {
			at = hub.Get("ca").Position()
		}
		if err := checkCertificates([]byte(h.CA)); err != nil {
			l.fail(at, "the hub's certificate authority is no PEM certificate: %v", err)
		}
	}
}

// manifests lists the manifests of a folder: name -> path. A folder that is not there has none.
func (l *loader) manifests(folder, inFolder string, plain bool) map[string]string {
	entries, err := fs.ReadDir(l.files, folder)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			l.fail(Position{File: folder}, "cannot read the folder: %v", cause(err))
		}
		return nil
	}
	found := map[string]string{}
	add := func(name, file string) {
		if other, twice := found[name]; twice {
			l.fail(Position{File: file}, "%s is declared twice, also in %s", name, other)
			return
		}
		found[name] = file
	}
	for _, entry := range entries {
		l.manifest(entry, folder, inFolder, plain, add)
	}
	return found
}

// manifest adds the manifest that an entry of a folder is, if it is one. What was likely meant as a manifest but stands
// where none is read is refused: ignored, its instance would seem to be removed.
func (l *loader) manifest(entry fs.DirEntry, folder, inFolder string, plain bool, add func(name, file string)) {
	name := entry.Name()
	file := path.Join(folder, name)
	isDir := entry.IsDir()
	if entry.Type()&fs.ModeSymlink != 0 {
		info, err := fs.Stat(l.files, file)
		if err != nil {
			l.fail(Position{File: file}, "cannot read it: %v", cause(err))
			return
		}
		isDir = info.IsDir()
	}
	extension := path.Ext(name)
	switch {
	case strings.HasPrefix(name, "."):
	case isDir && inFolder != "":
		inside := path.Join(file, inFolder)
		if _, err := fs.Stat(l.files, inside); err != nil {
			l.fail(Position{File: file}, "the folder has no %s", inFolder)
			return
		}
		add(name, inside)
	case isDir:
	case plain && extension == ".yaml":
		add(strings.TrimSuffix(name, extension), file)
	case extension == ".yml" || !plain && extension == ".yaml":
		want := strings.TrimSuffix(name, extension) + ".yaml"
		if !plain {
			want = path.Join(strings.TrimSuffix(name, extension), inFolder)
		}
		l.fail(Position{File: file}, "this file is not read; its place is %s", path.Join(folder, want))
	}
}

// sourceDir is a folder of the repository on disk, or "" when it is not on disk.
func (l *loader) sourceDir(source string) string {
	if l.dir == "" {
		return ""
	}
	return filepath.Join(l.dir, filepath.FromSlash(source))
}

// parallel calls f for 0 to n-1 on all processors.
func parallel(n int, f func(int)) {
	workers := min(runtime.GOMAXPROCS(0), n)
	if workers <= 1 {
		for i := range n {
			f(i)
		}
		return
	}
	var next atomic.Int64
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				f(i)
			}
		})
	}
	group.Wait()
}

// fold keeps at most three problems of one place of a blueprint, which each of its instances may have in words of its own.
func fold(problems Problems) Problems {
	const most = 3
	var out Problems
	same := 0
	for i, p := range problems {
		if i > 0 && p.Position == problems[i-1].Position && p.Position.Line > 0 {
			same++
		} else {
			same = 0
		}
		if same < most {
			out = append(out, p)
		}
	}
	return out
}
