package keycloak

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

// ordersOf names the file with the orders of a process that is an agent of its own.
const ordersOf = "DIVE_TEST_AGENT"

// TestMain lets the test's program be an agent, which a test can kill. Terraform is started through the same program then,
// as by the real one.
func TestMain(m *testing.M) {
	if name := os.Getenv(ordersOf); name != "" {
		os.Exit(beAgent(name))
	}
	os.Exit(m.Run())
}

// orders are what an agent of its own needs to know of a world.
type orders struct {
	Spec, Realm, Source, Dir, Tool, CLIConfig string
}

// What the end of an agent of its own tells.
const (
	agentDone    = 0
	agentBlocked = 3
	agentLate    = 4
	agentBroken  = 5
)

// agentLimit is how long an agent of its own may take to bring its realm about.
const agentLimit = 3 * time.Minute

// beAgent observes, plans and applies until there is nothing to do, as the agent does. What it says goes to stderr.
func beAgent(name string) int {
	var o orders
	if err := load(name, &o); err != nil {
		return broken(err)
	}
	spec, err := desired.DecodeSpec(Kind, "test.yaml", []byte(o.Spec))
	if err != nil {
		return broken(err)
	}
	target := targetOf(spec.(*Spec), valuesOf(o.Realm), o.Source, o.Dir, os.Stderr)
	tool := reconcilers.Terraform{Path: o.Tool, CLIConfig: o.CLIConfig}
	r := New(reconcilers.Deps{Redact: redactTest, Terraform: tool, OpenTofu: tool})
	ctx, cancel := context.WithTimeout(context.Background(), agentLimit)
	defer cancel()
	for {
		changes, err := turn(ctx, r, target)
		var (
			blocked *reconcilers.BlockedError
			pause   = 200 * time.Millisecond
		)
		switch {
		case errors.As(err, &blocked):
			say("blocked:", err)
			return agentBlocked
		case err != nil:
			say("tried again:", err)
		case changes == 0:
			return agentDone
		default:
			pause = 0
		}
		select {
		case <-ctx.Done():
			return agentLate
		case <-time.After(pause):
		}
	}
}

func broken(err error) int {
	say(err)
	return agentBroken
}

// say tells the test, and when it was.
func say(what ...any) {
	fmt.Fprintln(os.Stderr, append([]any{time.Now().Format("15:04:05.000")}, what...)...)
}

// turn is one pass: what there was to do is done when it gives no error.
func turn(ctx context.Context, r *Reconciler, t reconcilers.Target) (changes int, err error) {
	observed, err := r.Observe(ctx, t)
	if err != nil {
		return 0, err
	}
	for _, note := range observed.Facts.Notes {
		say("note:", note)
	}
	if observed.Err != nil {
		return 0, observed.Err
	}
	plan, err := r.Plan(t, observed)
	if err != nil || len(plan.Changes) == 0 {
		return 0, err
	}
	say("plan:", printOf(plan.Changes))
	_, err = r.Apply(ctx, t, plan, &steps{})
	return len(plan.Changes), err
}

// agentProcess is an agent of its own.
type agentProcess struct {
	*exec.Cmd
	ended chan error
}

// start lets another process bring the world about.
func (w *world) start(spec string) *agentProcess {
	w.t.Helper()
	text, err := json.Marshal(orders{Spec: spec, Realm: w.realm, Source: w.target.SourceDir, Dir: w.target.Dir, Tool: w.tool, CLIConfig: w.bed.mirror.ConfigFile})
	require.NoError(w.t, err)
	name := filepath.Join(filepath.Dir(w.target.Dir), "orders.json")
	require.NoError(w.t, os.WriteFile(name, text, 0o600))
	a := &agentProcess{Cmd: exec.Command(os.Args[0]), ended: make(chan error, 1)}
	a.Env = append(os.Environ(), ordersOf+"="+name)
	a.Stderr = w.said
	require.NoError(w.t, a.Start())
	go func() { a.ended <- a.Wait() }()
	return a
}

// kill ends it with SIGKILL; false when it had ended before.
func (a *agentProcess) kill() bool {
	_ = a.Process.Kill()
	err := <-a.ended
	a.ended <- err
	var exit *exec.ExitError
	return errors.As(err, &exit) && exit.ExitCode() < 0
}

// through waits until it is done.
func (a *agentProcess) through(w *world) {
	w.t.Helper()
	select {
	case err := <-a.ended:
		require.NoError(w.t, err, "the agent gave up:\n%s", w.said)
	case <-time.After(agentLimit + 10*time.Second):
		_ = a.Process.Kill()
		w.t.Fatalf("the agent hangs:\n%s", w.said)
	}
}

// targetOf is the component of a test.
func targetOf(spec *Spec, values map[string]desired.Value, source, dir string, said io.Writer) reconcilers.Target {
	return reconcilers.Target{
		Instance:  &desired.Instance{Name: "deu", Position: desired.Position{File: "instances/deu.yaml"}},
		Component: &desired.Component{Name: "identity", Kind: Kind.Name, Spec: spec},
		Scope:     desired.NewScope(values),
		SourceDir: source, Dir: dir,
		Log: slog.New(slog.NewTextHandler(said, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
}
