package story

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/client"

	"dive-agent/examples"
	"dive-agent/testbed"
	"dive-agent/testbed/gitserver"
	"dive-agent/testbed/pki"
)

// projects are the Compose projects that the demo makes, and so may remove.
var projects = []string{"dive-hub", "dive-spoke-deu", "dive-spoke-fra"}

// often is how often the demo looks for what gives no event.
const often = 50 * time.Millisecond

// world is everything the demo makes: one folder, one Git server, agents, containers.
type world struct {
	dir       string
	agentPath string
	pictures  string // folder, or empty

	engine    *client.Client
	host      string // DOCKER_HOST
	mirror    testbed.Mirror
	gitURL    string
	gitAddr   string
	policies  policies
	env       []string // of processes started from now on
	processes map[string]*process
	results   []result
}

func (w *world) path(parts ...string) string {
	return filepath.Join(append([]string{w.dir}, parts...)...)
}

// prepare makes the world: what an earlier demo left goes first.
func (w *world) prepare(ctx context.Context) (err error) {
	if w.agentPath, err = filepath.Abs(w.agentPath); err != nil {
		return err
	}
	if _, err := os.Stat(w.agentPath); err != nil {
		return fmt.Errorf("no agent at %s: make build makes it", w.agentPath)
	}
	if err := w.remove(ctx); err != nil {
		return fmt.Errorf("cannot remove what an earlier demo left: %w", err)
	}
	if w.host, _, err = testbed.EnsureEngine(ctx, func(format string, args ...any) { note(format, args...) }); err != nil {
		return err
	}
	if w.engine, err = testbed.Connect(w.host); err != nil {
		return err
	}
	if err := w.refuseStrangers(ctx); err != nil {
		return err
	}
	if w.mirror, err = testbed.EnsureProviderMirror(ctx); err != nil {
		return err
	}
	if err := os.MkdirAll(w.path(), 0o700); err != nil {
		return err
	}
	if err := w.startGit(ctx); err != nil {
		return err
	}
	if err := w.startPolicies(ctx); err != nil {
		return err
	}
	return w.makeFleet(ctx)
}

// refuseStrangers keeps the demo off a machine where its names belong to someone.
func (w *world) refuseStrangers(ctx context.Context) error {
	for _, project := range projects {
		filters := client.Filters{}.Add("label", "com.docker.compose.project="+project)
		found, err := w.engine.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: filters})
		if err != nil {
			return err
		}
		if len(found.Items) > 0 {
			return fmt.Errorf("this engine runs project %s already, and the demo did not start it: nothing was touched", project)
		}
	}
	return nil
}

// startGit starts the Git server on a port that stays.
func (w *world) startGit(ctx context.Context) error {
	if w.gitAddr == "" {
		probe, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		w.gitAddr = probe.Addr().String()
		_ = probe.Close()
	}
	server, err := testbed.Program(ctx, "./testbed/gitserver/cmd/gitserver")
	if err != nil {
		return err
	}
	if err := w.start("git", server, "-dir", w.path("git"), "-listen", w.gitAddr, "-listen-ssh", "off"); err != nil {
		return err
	}
	w.gitURL = "https://" + strings.Replace(w.gitAddr, "127.0.0.1", "localhost", 1) + "/fleet.git"
	return testbed.Until(ctx, 15*time.Second, often, "the Git server", func() error {
		conn, err := net.DialTimeout("tcp", w.gitAddr, time.Second)
		if err == nil {
			err = conn.Close()
		}
		return err
	})
}

// makeFleet makes the bare repository from the examples with the hub alone, and a clone for the person who works on it.
func (w *world) makeFleet(ctx context.Context) error {
	bare := w.path("git", "repos", "fleet.git")
	server, err := gitserver.New(gitserver.Options{Dir: w.path("git"), ListenSSH: "off"})
	if err != nil {
		return err
	}
	if _, err := server.CreateRepository("fleet"); err != nil {
		return err
	}
	clone := w.path("clone")
	if _, err := w.command(ctx, w.dir, "git", "clone", "-q", bare, clone); err != nil {
		return err
	}
	ca, err := pki.LoadOrCreate(w.path("pki"), "DIVE demo")
	if err != nil {
		return err
	}
	values := testbed.ExampleValues()
	maps.Copy(values, w.policies.values)
	return examples.Write(clone, examples.Options{Instances: []string{"usa"}, Values: values, HubCA: ca.PEM()})
}

// remove ends the processes and removes the containers, volumes, networks and folder of a demo: those that its record
// names, nothing else.
func (w *world) remove(ctx context.Context) error {
	if _, err := os.Stat(w.dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	names, err := filepath.Glob(w.path("*.pid"))
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := endProcess(ctx, name); err != nil {
			return err
		}
	}
	host := w.host
	if record, err := os.ReadFile(w.path("engine.json")); err == nil && host == "" {
		if err := json.Unmarshal(record, &host); err != nil {
			return err
		}
	}
	if host != "" {
		if err := removeProjects(ctx, host); err != nil {
			return err
		}
	}
	return os.RemoveAll(w.dir)
}

func removeProjects(ctx context.Context, host string) error {
	engine, err := testbed.Connect(host)
	if err != nil {
		return err
	}
	defer func() { _ = engine.Close() }()
	for _, project := range projects {
		if err := testbed.RemoveProject(ctx, engine, project); err != nil {
			return err
		}
	}
	return nil
}

// recordEngine lets a later demo-clean find the engine.
func (w *world) recordEngine() error {
	content, err := json.Marshal(w.host)
	if err != nil {
		return err
	}
	return os.WriteFile(w.path("engine.json"), content, 0o600)
}

func (w *world) howToLookAround() {
	fmt.Printf("\nEverything is left running. Look around:\n\n")
	for _, host := range slices.Sorted(slices.Values(hosts)) {
		fmt.Printf("  %s --config %s status\n", w.agentPath, w.config(host))
	}
	fmt.Printf("  DOCKER_HOST=%s docker ps\n  git -C %s log --oneline\n  cat %s\n\nmake demo-clean removes it.\n",
		w.host, w.path("clone"), w.path("usa-01.log"))
}
