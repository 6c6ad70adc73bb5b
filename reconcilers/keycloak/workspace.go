package keycloak

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/hashicorp/terraform-exec/tfexec"
	tfjson "github.com/hashicorp/terraform-json"
	"golang.org/x/sync/errgroup"

	"dive-agent/reconcilers"
)

// Limits of single runs of Terraform. An apply has the component's own.
const (
	initLimit = 5 * time.Minute
	planLimit = 10 * time.Minute
	showLimit = time.Minute
	// graceful is how long Terraform may take to stop after an interrupt before it is killed, which may cost its state.
	graceful = 3 * time.Minute
)

// workspace is the component's folder on the host.
//
//	module/         the module's copy, with .terraform and the lock file; Terraform's working directory
//	terraform.tfstate, .backup
//	remote.tfstate      the state as it was last read at a remote backend, in place of these
//	backend/, former/   working directories of the remote backend, and of the one that a state is moved from
//	copies/         of the state, by serial
//	run/            the planfile, a plan that waits as it is shown, and the output of the apply under way
//	record.json, journal.jsonl, init.json, key
type workspace struct {
	dir, module, state, copies, run string
	tool                            reconcilers.Terraform
	toolName, toolVersion           string
	key                             []byte
	source                          *source // of module/
	memory                          *memory
	tf, apply                       *tfexec.Terraform // for all but an apply, and for an apply
	remote                          *remote           // where Terraform keeps the state; nil: in the folder
	remoteEnv                       map[string]string // of that
	beside                          bool              // the folder is a copy: no remote place is written to, nor locked
	offline                         bool              // no server is asked
	trusts                          bool              // plans take the state's word for what is in the realm
}

// self is this very program, also when its file was replaced by a newer one since it started.
const self = "/proc/self/exe"

// variablesFile has the secrets among the variables for as long as a plan is made.
const variablesFile = "dive-agent.auto.tfvars.json"

// lockFile has the versions and digests of the providers.
const lockFile = ".terraform.lock.hcl"

// recordName is the file of the record.
const recordName = "record.json"

// overrideFile puts the state where the manifest says, whatever backend the module names.
const overrideFile = "dive_agent_override.tf"

// openWorkspace makes the folders, for the agent's user alone, and finds the program. It changes nothing in the module.
func openWorkspace(t reconcilers.Target, s *Spec, d reconcilers.Deps, source *source, kept *memory) (*workspace, error) {
	dir, err := filepath.EvalSymlinks(t.Dir)
	if err != nil {
		return nil, err
	}
	w := &workspace{
		dir: dir, module: filepath.Join(dir, "module"), state: filepath.Join(dir, stateName),
		copies: filepath.Join(dir, "copies"), run: filepath.Join(dir, "run"), toolName: s.tool(), toolVersion: s.ToolVersion, source: source, memory: kept,
	}
	for _, folder := range []string{w.module, w.copies, w.run, filepath.Join(dir, "home")} {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return nil, err
		}
	}
	if w.key, err = keyOf(dir, d.Rand); err != nil {
		return nil, err
	}
	w.tool, err = findTool(s, d)
	return w, err
}

func (w *workspace) record() (*record, error) {
	r := &record{}
	return r, load(w.recordFile(), r)
}

func (w *workspace) recordFile() string { return filepath.Join(w.dir, recordName) }

func (w *workspace) keep(r *record) error { return store(w.recordFile(), r) }

// keepsIn tells where the state is. On a copy of the folder Terraform works on a copy of the state, too.
func (w *workspace) keepsIn(s *site, beside bool) {
	w.beside = beside
	if s.r == nil || beside {
		return
	}
	w.remote, w.remoteEnv, w.state = s.r, s.r.environment(s.authority()), filepath.Join(w.dir, remoteName)
}

// output is where an apply writes what it does.
func (w *workspace) output() string { return filepath.Join(w.run, "apply.jsonl") }

// How Terraform and its providers collect their garbage, see Go's package runtime: a process that ends within seconds spends a fifth
// of its CPU on that otherwise. They take half as much memory again for it, some 65 MB in a plan of 131 resources; from 1 GiB on each
// saves memory as before.
const (
	seldom = "400"
	ample  = "1GiB"
)

// environment is all that Terraform gets of the agent's: no TF_VAR_*, no KEYCLOAK_*. GORACE is for a shim that was built with
// the race detector.
func (w *workspace) environment() map[string]string {
	env := map[string]string{"HOME": filepath.Join(w.dir, "home"), "CHECKPOINT_DISABLE": "1", "GOGC": seldom, "GOMEMLIMIT": ample}
	for _, name := range []string{"PATH", "TMPDIR", "LANG", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR", "GORACE"} {
		if value, ok := os.LookupEnv(name); ok {
			env[name] = value
		}
	}
	if w.tool.CLIConfig != "" {
		env["TF_CLI_CONFIG_FILE"] = w.tool.CLIConfig
	}
	return env
}

func (w *workspace) terraform(path string, more map[string]string) (*tfexec.Terraform, error) {
	env := map[string]string{}
	maps.Copy(env, w.remoteEnv)
	maps.Copy(env, more)
	return w.terraformIn(w.module, path, env)
}

// terraformIn gives the value that an earlier look had, which knows its program's version, where all that it depends on is the same.
func (w *workspace) terraformIn(dir, path string, more map[string]string) (*tfexec.Terraform, error) {
	env := w.environment()
	maps.Copy(env, more)
	key := keyOfTool(dir, path, stamp(w.tool.Path), env)
	if tf, there := w.memory.tools.get(key); there {
		return tf, nil
	}
	tf, err := tfexec.NewTerraform(dir, path)
	if err == nil {
		err = errors.Join(tf.SetEnv(env), tf.SetWaitDelay(graceful))
	}
	if err != nil {
		return nil, err
	}
	w.memory.tools.put(key, tf)
	return tf, nil
}

// prepared is what the working directory was initialised for, and the module that is copied there.
type prepared struct {
	Module   string `json:"module"`
	Installs string `json:"installs"`
	Shipped  string `json:"shipped"` // lock file of the module
	Lock     string `json:"lock"`    // the one that is there
	Config   string `json:"config"`
	Tool     string `json:"tool"`
	Version  string `json:"version"`
	Backend  string `json:"backend,omitempty"` // its block, empty for the file
}

// sameBut says whether nothing differs but the rest of the module.
func (p prepared) sameBut(other prepared) bool {
	p.Module = other.Module
	return p == other
}

func (w *workspace) wanted() prepared {
	backend := ""
	if w.remote != nil {
		backend = w.remote.block(false)
	}
	return prepared{
		Backend: backend, Module: w.source.hash, Installs: w.source.module.installs, Shipped: fileHash(filepath.Join(w.source.folder, lockFile)),
		Lock: fileHash(filepath.Join(w.module, lockFile)), Config: fileHash(w.tool.CLIConfig), Tool: stamp(w.tool.Path), Version: w.toolVersion,
	}
}

// prepare brings the module's copy up to date, and initialises it when what it installs changed, the lock file or the
// tool's configuration.
func (w *workspace) prepare(ctx context.Context) error {
	var err error
	if w.tf, err = w.terraform(w.tool.Path, nil); err != nil {
		return err
	}
	if w.apply, err = w.terraform(self, map[string]string{shimTool: w.tool.Path, shimOutput: w.output()}); err != nil {
		return err
	}
	var done prepared
	mark := filepath.Join(w.dir, "init.json")
	if err := load(mark, &done); err != nil {
		done = prepared{}
	}
	wanted := w.wanted()
	if done != wanted {
		if err := removeIfThere(mark); err != nil {
			return err
		}
		if err := w.copyModule(); err != nil {
			return fmt.Errorf("copy Terraform module %s: %w", filepath.Base(w.source.folder), err)
		}
	}
	// The library asks each of its values for Terraform's version once, which takes no longer than init does, and these are kept.
	g, ctx := errgroup.WithContext(ctx)
	if !done.sameBut(wanted) {
		g.Go(func() error { return w.initialise(ctx) })
	}
	g.Go(func() error { return w.askVersion(ctx, w.tf) })
	g.Go(func() error { return w.askVersion(ctx, w.apply) })
	if err := g.Wait(); err != nil || done == wanted {
		return err
	}
	return store(mark, w.wanted())
}

// copyModule puts the module's files in place of the former ones. What Terraform keeps beside them stays: the providers,
// and a state that it could not write (errored.tfstate). States and values that the source brings are left out.
func (w *workspace) copyModule() error {
	old, err := os.ReadDir(w.module)
	if err != nil {
		return err
	}
	for _, entry := range old {
		if !strings.HasPrefix(entry.Name(), ".terraform") && entry.Name() != "errored.tfstate" {
			if err := os.RemoveAll(filepath.Join(w.module, entry.Name())); err != nil {
				return err
			}
		}
	}
	files := os.DirFS(w.source.folder)
	err = walkModule(files, ".", func(rel string) error {
		if strings.Contains(rel, ".tfstate") || strings.HasSuffix(rel, ".auto.tfvars.json") {
			return nil
		}
		data, err := fs.ReadFile(files, rel)
		if err != nil {
			return err
		}
		name := filepath.Join(w.module, rel)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			return err
		}
		return os.WriteFile(name, data, 0o600)
	})
	if err != nil {
		return err
	}
	if w.offline && w.source.module.provider {
		if err := os.WriteFile(filepath.Join(w.module, offlineFile), []byte(offlineText), 0o600); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(w.module, overrideFile), []byte(w.remote.block(false)), 0o600)
}

// initialise lets Terraform fetch the providers. With a lock file shipped by the module exactly these are taken.
func (w *workspace) initialise(ctx context.Context) error {
	shipped := fileHash(filepath.Join(w.source.folder, lockFile))
	lock := filepath.Join(w.module, lockFile)
	if shipped == "" {
		// A lock file of our own making does not outlive what it was made for; a shipped one is the module's word.
		if err := removeIfThere(lock); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, initLimit)
	defer cancel()
	if err := w.tf.Init(ctx, tfexec.Upgrade(false), tfexec.Reconfigure(true)); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("%s init of module %s: %s", w.toolName, filepath.Base(w.source.folder), brief(err))
	}
	if shipped != "" && fileHash(lock) != shipped {
		return &reconcilers.BlockedError{
			Reason: "ProviderLockChanged", Message: w.toolName + " init wanted to change the module's .terraform.lock.hcl",
			Do: "Run `" + program[w.toolName] + " providers lock` for this host's platform and commit the file",
		}
	}
	return nil
}

// colours are how a terminal is told of them: some of Terraform's commands cannot be asked to leave them out.
var colours = regexp.MustCompile("\x1b\\[[0-9;]*m")

// brief is an error of Terraform's in one line, without its frame, its colours and without exit codes.
func brief(err error) string {
	if terminated(err) {
		return "it was stopped before its end"
	}
	var words []string
	for _, line := range strings.Split(colours.ReplaceAllString(err.Error(), ""), "\n") {
		line = strings.TrimSpace(strings.TrimLeft(line, "│╷╵ "))
		if line != "" && !strings.HasPrefix(line, "exit status") {
			words = append(words, line)
		}
	}
	return strings.Join(words, " ")
}

// planned is a plan that was made.
type planned struct {
	changes bool
	file    string
	stream  *stream
	plan    *tfjson.Plan // read when there are changes
}

// plan makes a plan into a file of its own, with a refresh unless the state is to be trusted. The variables stand in a file
// for that long.
func (w *workspace) plan(ctx context.Context, in *inputs, parallelism int) (*planned, error) {
	data, err := json.Marshal(in.variables)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(w.module, variablesFile)
	defer func() { _ = os.Remove(file) }()
	if err := write(file, data); err != nil {
		return nil, err
	}
	old, _ := filepath.Glob(filepath.Join(w.run, "*.tfplan"))
	for _, name := range old {
		_ = os.Remove(name)
	}
	p := &planned{file: filepath.Join(w.run, fmt.Sprintf("%d.tfplan", time.Now().UnixNano())), stream: &stream{}}
	limited, cancel := context.WithTimeout(ctx, planLimit)
	defer cancel()
	p.changes, err = w.tf.PlanJSON(limited, p.stream, tfexec.Out(p.file), tfexec.Parallelism(parallelism), tfexec.Lock(true), tfexec.Refresh(!w.offline && !w.trusts))
	w.tf.SetStdout(nil)
	_ = os.Chmod(p.file, 0o600)
	if err != nil {
		_ = os.Remove(p.file)
		return p, err
	}
	if !p.changes {
		return p, os.Remove(p.file)
	}
	shown, stop := context.WithTimeout(ctx, showLimit)
	defer stop()
	if p.plan, err = w.tf.ShowPlanFile(shown, p.file); err != nil {
		return p, fmt.Errorf("%s show: %s", w.toolName, brief(err))
	}
	return p, nil
}
