package keycloak

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

// moduleFiles is what a module is seen to declare without Terraform.
type moduleFiles struct {
	variables map[string]bool // whether it must be given
	outputs   []string
	provider  bool     // it configures the provider by itself
	types     []string // of its resources, those of local modules too
	templates []string // files that it fills in, as far as their names stand in it
	installs  string   // digest of all that `init` acts on: providers, backend, calls of modules
	backend   *ownBackend
	findings  []finding // what is wrong with it, and what is not allowed everywhere
}

// finding is something in a module that keeps it from being used.
type finding struct {
	at   desired.Position // its file counts from the folder that the module was read from
	need string           // word of a host's terraform.allow that lets it pass; empty: nothing does
	text string
}

// modules keeps what was read by content: a fleet's thousand instances share a handful of modules.
var modules sync.Map // [sha256.Size]byte -> moduleFiles

// readModule reads a module's own files and those of the local modules that it calls. An error says that there is no
// module; whatever is wrong inside it is a finding.
func readModule(files fs.FS, folder string) (moduleFiles, error) {
	texts := map[string][]byte{}
	err := walkModule(files, folder, func(name string) (err error) {
		if isConfiguration(name) {
			texts[name], err = fs.ReadFile(files, name)
		}
		return err
	})
	if err != nil {
		return moduleFiles{}, err
	}
	return parseModule(files, texts, folder)
}

// source is the module of a component in the snapshot.
type source struct {
	folder string // on the host
	hash   string // of all its files, names and contents
	module moduleFiles
}

// readSource reads a component's module, each file once.
func readSource(t reconcilers.Target, s *Spec) (*source, error) {
	folder, files, texts := path.Clean(s.Module), os.DirFS(t.SourceDir), map[string][]byte{}
	sum := sha256.New()
	err := walkModule(files, folder, func(name string) error {
		data, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		addFile(sum, strings.TrimPrefix(name, folder+"/"), data)
		if isConfiguration(name) {
			texts[name] = data
		}
		return nil
	})
	src := &source{folder: filepath.Join(t.SourceDir, filepath.FromSlash(folder)), hash: hex.EncodeToString(sum.Sum(nil))}
	if err == nil {
		src.module, err = parseModule(files, texts, folder)
	}
	if err != nil {
		return nil, fmt.Errorf("read Terraform module %s: %w", s.Module, err)
	}
	return src, nil
}

// addFile takes a file into a hash.
func addFile(sum hash.Hash, name string, data []byte) {
	fmt.Fprintf(sum, "%d %s %d\n", len(name), name, len(data))
	sum.Write(data)
}

// parseModule reads a module by its texts, by name, and the templates among its files.
func parseModule(files fs.FS, texts map[string][]byte, folder string) (moduleFiles, error) {
	sum := sha256.New()
	for _, name := range sortedKeys(texts) {
		addFile(sum, name, texts[name])
	}
	key := [sha256.Size]byte(sum.Sum(nil))
	if known, ok := modules.Load(key); ok {
		return known.(moduleFiles).withTemplates(files, folder), nil
	}
	r := &moduleReader{root: folder, texts: texts, parser: hclparse.NewParser(), read: map[string]bool{}, installs: sha256.New()}
	r.module = moduleFiles{variables: map[string]bool{}}
	if !r.folder(folder) {
		return moduleFiles{}, errors.New("it has no .tf file")
	}
	r.module.outputs, r.module.types = sorted(r.module.outputs), sorted(r.module.types)
	r.module.installs = hex.EncodeToString(r.installs.Sum(nil))
	modules.Store(key, r.module)
	return r.module.withTemplates(files, folder), nil
}

func sorted(names []string) []string {
	slices.Sort(names)
	return slices.Compact(names)
}

// isConfiguration tells what Terraform and OpenTofu read.
func isConfiguration(name string) bool {
	return slices.ContainsFunc([]string{".tf", ".tf.json", ".tofu", ".tofu.json"}, func(end string) bool { return strings.HasSuffix(name, end) })
}

// moduleReader reads one module with the local modules that it calls.
type moduleReader struct {
	root   string
	texts  map[string][]byte
	parser *hclparse.Parser
	read   map[string]bool // folders
	module moduleFiles

	installs hash.Hash
}

// scope is one folder of a module: names are looked up there.
type scope struct {
	folder    string
	variables map[string]bool
	locals    map[string]bool
	providers map[string]string // local name -> source, as required_providers says
	bodies    []hcl.Body
	names     []string // of their files
}

// folder reads a folder; false when there is nothing in it.
func (r *moduleReader) folder(folder string) bool {
	r.read[folder] = true
	s := &scope{folder: folder, variables: map[string]bool{}, locals: map[string]bool{}, providers: map[string]string{}}
	found := false
	for _, name := range sortedKeys(r.texts) {
		if path.Dir(name) != folder {
			continue
		}
		found = true
		parse := r.parser.ParseHCL
		if strings.HasSuffix(name, ".json") {
			parse = r.parser.ParseJSON
		}
		file, diags := parse(r.texts[name], name)
		r.diagnostics(name, diags)
		if !diags.HasErrors() {
			s.bodies, s.names = append(s.bodies, file.Body), append(s.names, name)
		}
	}
	blocks := r.blocks(s)
	for _, block := range blocks {
		r.declare(s, block)
	}
	for _, block := range blocks {
		r.judge(s, block)
	}
	if !slices.ContainsFunc(r.module.findings, func(f finding) bool { return path.Dir(f.at.File) == folder }) {
		r.references(s) // what could not be read may have declared the rest
	}
	r.reads(s)
	r.install(s)
	return found
}

// install takes up what `init` acts on: the providers that are used, and the text of each block that says where they, modules
// and the state come from. Of JSON it is the whole file.
func (r *moduleReader) install(s *scope) {
	rel := strings.TrimPrefix(s.folder, r.root)
	for i, body := range s.bodies {
		native, ok := body.(*hclsyntax.Body)
		if !ok {
			addFile(r.installs, rel, r.texts[s.names[i]])
			continue
		}
		for _, block := range native.Blocks {
			if slices.Contains([]string{"terraform", "provider", "module"}, block.Type) {
				addFile(r.installs, rel, block.Range().SliceBytes(r.texts[s.names[i]]))
			}
		}
	}
	for _, name := range sortedKeys(s.providers) {
		addFile(r.installs, rel, []byte(name+" "+s.providers[name]))
	}
}

// diagnostics takes over what the parser says of one file.
func (r *moduleReader) diagnostics(name string, diags hcl.Diagnostics) {
	for _, d := range diags {
		at := hcl.Range{Filename: name}
		if d.Subject != nil {
			at = *d.Subject
		}
		if d.Severity == hcl.DiagError {
			r.find(at, "", "%s", strings.Join(strings.Fields(d.Summary+": "+d.Detail), " "))
		}
	}
}

func (r *moduleReader) find(at hcl.Range, need, format string, args ...any) {
	place := desired.Position{File: at.Filename, Line: at.Start.Line, Column: at.Start.Column}
	r.module.findings = append(r.module.findings, finding{at: place, need: need, text: fmt.Sprintf(format, args...)})
}

// topLevel are the blocks of a module that matter here; what else there is goes to Terraform unread.
var topLevel = &hcl.BodySchema{Blocks: []hcl.BlockHeaderSchema{
	{Type: "terraform"},
	{Type: "variable", LabelNames: []string{"name"}},
	{Type: "output", LabelNames: []string{"name"}},
	{Type: "locals"},
	{Type: "provider", LabelNames: []string{"name"}},
	{Type: "resource", LabelNames: []string{"type", "name"}},
	{Type: "data", LabelNames: []string{"type", "name"}},
	{Type: "ephemeral", LabelNames: []string{"type", "name"}},
	{Type: "action", LabelNames: []string{"type", "name"}},
	{Type: "check", LabelNames: []string{"name"}},
	{Type: "removed"},
	{Type: "module", LabelNames: []string{"name"}},
}}

func (r *moduleReader) blocks(s *scope) hcl.Blocks {
	var all hcl.Blocks
	for _, body := range s.bodies {
		content, _, diags := body.PartialContent(topLevel)
		r.diagnostics("", diags)
		all = append(all, content.Blocks...)
	}
	return all
}

// declare takes up the names that a block gives.
func (r *moduleReader) declare(s *scope, block *hcl.Block) {
	switch block.Type {
	case "variable":
		attributes, _, _ := block.Body.PartialContent(&hcl.BodySchema{Attributes: []hcl.AttributeSchema{{Name: "default"}}})
		_, preset := attributes.Attributes["default"]
		s.variables[block.Labels[0]] = true
		if s.folder == r.root {
			r.module.variables[block.Labels[0]] = !preset
		}
	case "output":
		if s.folder == r.root {
			r.module.outputs = append(r.module.outputs, block.Labels[0])
		}
	case "locals":
		attributes, _ := block.Body.JustAttributes()
		for name := range attributes {
			s.locals[name] = true
		}
	case "provider":
		r.module.provider = r.module.provider || s.folder == r.root && block.Labels[0] == "keycloak"
	case "resource":
		r.module.types = append(r.module.types, block.Labels[0])
	case "terraform":
		r.requiredProviders(s, block.Body)
		r.backend(s, block.Body)
	}
}

// references finds variables and locals that are used and not declared.
func (r *moduleReader) references(s *scope) {
	for _, body := range s.bodies {
		native, ok := body.(*hclsyntax.Body)
		if !ok {
			continue // of JSON Terraform itself tells
		}
		_ = hclsyntax.VisitAll(native, func(node hclsyntax.Node) hcl.Diagnostics {
			use, ok := node.(*hclsyntax.ScopeTraversalExpr)
			if !ok || len(use.Traversal) < 2 {
				return nil
			}
			name, ok := use.Traversal[1].(hcl.TraverseAttr)
			if !ok {
				return nil
			}
			switch root := use.Traversal.RootName(); {
			case root == "var" && !s.variables[name.Name]:
				r.find(use.SrcRange, "", "var.%s: the module declares no variable %q%s", name.Name, name.Name, desired.Suggest(name.Name, sortedKeys(s.variables)))
			case root == "local" && !s.locals[name.Name]:
				r.find(use.SrcRange, "", "local.%s: the module declares no local value %q%s", name.Name, name.Name, desired.Suggest(name.Name, sortedKeys(s.locals)))
			}
			return nil
		})
	}
}
