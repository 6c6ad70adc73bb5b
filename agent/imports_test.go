package agent

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/reconcilers"
	"dive-agent/report"
	"dive-agent/state"
)

// crossing makes the world of an instance, deu, of a fleet in which usa and est publish.
func crossing(t *testing.T, components string) *world {
	t.Helper()
	files := fstest.MapFS{}
	for name, text := range crossingFiles(components) {
		files[name] = &fstest.MapFile{Data: []byte(text)}
	}
	fleet, err := desired.LoadFS(files, desired.Options{Kinds: []desired.Kind{{Name: "Ledger", New: func() any { return &entry{} }}}})
	require.NoError(t, err)
	w := newWorld(t)
	w.instance = fleet.Instances["deu"]
	w.options.fleet, w.options.instance, w.options.scope = fleet, w.instance, w.instance.Scope(nil).WithInstances(nil)
	return w
}

func crossingFiles(components string) map[string]string {
	files := map[string]string{
		"fleet.yaml":         "kind: Fleet\nmetadata: {name: test}\nspec: {}\n",
		"hosts/host-01.yaml": "kind: Host\nmetadata: {name: host-01}\nspec: {}\n",
		"instances/usa.yaml": "kind: Instance\nmetadata: {name: usa}\nspec: {role: hub, host: host-01, components: {identity: {kind: Ledger, value: x, publish: [value, token]}}}\n",
		"instances/est.yaml": "kind: Instance\nmetadata: {name: est}\nspec: {role: spoke, host: host-01, components: {identity: {kind: Ledger, value: x, publish: [value]}}}\n",
		"instances/deu.yaml": "kind: Instance\nmetadata: {name: deu}\nspec:\n  role: spoke\n  host: host-01\n  components:\n" + components,
	}
	for name, text := range files {
		files[name] = "apiVersion: dive/v1alpha1\n" + text
	}
	return files
}

// crossingDir is the same as a folder.
func crossingDir(t *testing.T, components string) string {
	dir := t.TempDir()
	for name, text := range crossingFiles(components) {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	}
	return dir
}

// A plan without a host tells values of other instances as what is known later; one on the host says what it waits for.
func TestAPlanTellsOfValuesOfOtherInstances(t *testing.T) {
	const spokes = `    d: {kind: Ledger, value: "${join(\",\", [for s in fleet.spokes : s.outputs.identity.value])}"}` + "\n"
	w, _ := newHost(t, newWorld(t))
	w.Kinds = []desired.Kind{{Name: "Ledger", New: func() any { return &entry{} }}}
	dir := crossingDir(t, threeEntries+spokes)
	previews, _, err := Offline(t.Context(), dir, crossingDir(t, "    b: {kind: Ledger, value: x}\n    d: {kind: Ledger, value: y}\n"), OfflineOptions{
		Kinds: w.Kinds, Reconcilers: w.Reconcilers, Instance: "deu",
	})
	require.NoError(t, err)
	told := map[string]string{}
	for _, n := range previews[0].Nodes {
		for _, c := range n.Changes {
			for _, d := range c.Differences {
				told[n.ID] = d.After
			}
		}
	}
	require.Equal(t, map[string]string{"b": "(known after apply) (secret)", "d": "(known after apply)"}, told)

	previews, err = w.Preview(t.Context(), Revision{Commit: "2222222", Dir: dir}, "deu")
	require.NoError(t, err)
	b := previews[0].Nodes[1]
	require.Equal(t, "b", b.ID)
	require.Len(t, b.Changes, 1)
	require.Contains(t, b.Waits, "waits for instances.usa.identity.token, instances.usa.identity.value: ")
	d := previews[0].Nodes[slices.IndexFunc(previews[0].Nodes, func(n PreviewNode) bool { return n.ID == "d" })]
	require.Empty(t, d.Waits, "a for over the spokes waits for nothing")
}

// know gives the world values of other instances, as a round would.
func (w *world) know(values map[string]map[string]map[string]desired.Value) {
	w.options.imported.values = values
	w.options.scope = w.instance.Scope(nil).WithInstances(values)
}

func from(instance string, outputs map[string]desired.Value) map[string]map[string]map[string]desired.Value {
	return map[string]map[string]map[string]desired.Value{instance: {"identity": outputs}}
}

const threeEntries = `    a: {kind: Ledger, value: alone}
    b: {kind: Ledger, value: "${instances.usa.identity.value} ${instances.usa.identity.token}"}
    c: {kind: Ledger, value: "${b.value}"}
`

func TestANodeWaitsByNameForWhatAnotherInstancePublishes(t *testing.T) {
	w := crossing(t, threeEntries)
	p := w.run(t.Context())
	require.Equal(t, map[string]NodeState{"a": NodeDone, "b": NodeWaiting, "c": NodeWaiting}, states(p))
	require.Equal(t, []string{"a"}, w.ledger.made())
	b, c := p.views()[1], p.views()[2]
	require.Equal(t, "waits for instances.usa.identity.token, instances.usa.identity.value: usa has not published it yet", b.Message)
	require.Equal(t, "instances.usa.identity.token, instances.usa.identity.value", b.Waits)
	require.Len(t, b.Plan, 1, "what it would do is shown")
	require.Equal(t, "waits for b.value", c.Message)
	require.Equal(t, importAgain, p.again())

	w.know(from("usa", map[string]desired.Value{"value": desired.String("v")}))
	p = w.run(t.Context())
	require.Equal(t, "instances.usa.identity.token", p.views()[1].Waits, "only what is missing is named")

	w.know(from("usa", map[string]desired.Value{"value": desired.String("v"), "token": desired.Secret("t")}))
	p = w.run(t.Context())
	require.Equal(t, map[string]NodeState{"a": NodeDone, "b": NodeDone, "c": NodeDone}, states(p))
	require.Equal(t, "v t", w.ledger.entries["b"])
}

// A pass that could do nothing but find out again that a value is missing is not begun: it would be recorded as a run.
func TestAPassThatOnlyWaitsForOthersIsNotBegun(t *testing.T) {
	w := crossing(t, threeEntries)
	w.run(t.Context())
	recorded := len(w.recorder.lines)
	p := newPass(w.options)
	require.False(t, p.survey(t.Context()))
	p.settle(t.Context())
	require.Len(t, w.recorder.lines, recorded)
	require.Equal(t, map[string]NodeState{"a": NodeDone, "b": NodeWaiting, "c": NodeWaiting}, states(p))
	require.Equal(t, "waits for b.value", p.views()[2].Message)
}

// An image whose name another instance publishes keeps everything from being touched, and no pass from being begun for nothing.
func TestWhatComesFirstInAnInstanceMayWaitForAnother(t *testing.T) {
	w := newWorld(t, [2]string{"r", "x"}, [2]string{"b", "y"})
	w.instance.Graph.Nodes[0].Part = "@resources"
	p := newPass(w.options)
	p.nodes["r"].imports = []desired.Import{{Instance: "usa", Component: "registry", Output: "image"}}
	require.False(t, p.survey(t.Context()))
	p.settle(t.Context())
	require.Empty(t, w.ledger.made())
	require.Equal(t, NodeWaiting, states(p)["r"])
}

// The words of what is missing come from who reads the other instances; what is missing for another reason is not put
// under the same one.
func TestAWaitForAnotherInstanceSaysWhy(t *testing.T) {
	w := crossing(t, "    a: {kind: Ledger, value: \"${instances.est.identity.value} ${instances.usa.identity.value} ${instances.usa.identity.token}\"}\n")
	w.options.imported.why = func(i desired.Import) error {
		if i.Instance == "usa" {
			return errors.New("the status of usa cannot be read: no such branch")
		}
		return nil
	}
	require.Equal(t, "waits for instances.est.identity.value: est has not published it yet", w.run(t.Context()).views()[0].Message)
	w.know(from("est", map[string]desired.Value{"value": desired.String("v")}))
	require.Equal(t, "waits for instances.usa.identity.token, instances.usa.identity.value: the status of usa cannot be read: no such branch",
		w.run(t.Context()).views()[0].Message)
}

// A for over the spokes never waits: it goes over those that have published.
func TestAForOverSpokesNeverWaits(t *testing.T) {
	w := crossing(t, `    a: {kind: Ledger, value: "${join(\",\", [for s in fleet.spokes : \"${s.name}=${s.outputs.identity.value}\"])}."}`+"\n")
	require.Equal(t, NodeDone, states(w.run(t.Context()))["a"])
	require.Equal(t, ".", w.ledger.entries["a"])
	w.know(from("est", map[string]desired.Value{"value": desired.String("v")}))
	require.Equal(t, NodeDone, states(w.run(t.Context()))["a"])
	require.Equal(t, "est=v.", w.ledger.entries["a"])
}

// Once a value was known and is not any more (the state was lost), what runs stays as it is and the node says what it waits for.
func TestAnInstanceThatWasReadyIsLeftAloneWhileAValueIsMissing(t *testing.T) {
	w := crossing(t, threeEntries)
	w.know(from("usa", map[string]desired.Value{"value": desired.String("v"), "token": desired.Secret("t")}))
	w.run(t.Context())
	w.options.applied = true
	w.know(nil)
	p := w.run(t.Context())
	require.Equal(t, map[string]NodeState{"a": NodeDone, "b": NodeWaiting, "c": NodeDone}, states(p))
	require.Equal(t, "v t", w.ledger.entries["b"])
	require.Len(t, w.ledger.made(), 3)
}

// What keeps a node from being looked at is told before what it waits for.
func TestAFailureIsToldBeforeTheWaitForAnotherInstance(t *testing.T) {
	w := crossing(t, threeEntries)
	w.options.reconcilers = map[string]reconcilers.Reconciler{"Ledger": failing{w.ledger}}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	p := newPass(w.options)
	p.survey(ctx)
	p.settle(ctx)
	require.Equal(t, NodeFailed, p.views()[1].State)
	require.Contains(t, p.views()[1].Message, "the engine does not answer")
}

type failing struct{ *ledger }

func (failing) Observe(context.Context, reconcilers.Target) (reconcilers.Observed, error) {
	return reconcilers.Observed{}, errors.New("the engine does not answer")
}

// A round gives the status what it waits for, in words, and reads no secret of others into anything.
func TestAStatusTellsWhatIsAwaitedOfOthers(t *testing.T) {
	w := crossing(t, threeEntries)
	host, _ := newHost(t, w)
	host.assigned.fleet = w.options.fleet
	host.workers[host.name] = host
	require.LessOrEqual(t, host.round(t.Context(), "test"), importAgain)
	status, err := host.Status(t.Context(), host.name)
	require.NoError(t, err)
	require.Equal(t, []string{"b waits for instances.usa.identity.token, instances.usa.identity.value: usa has not published it yet"}, status.Why)
	require.Equal(t, "Progressing", string(status.Phase))
	require.Equal(t, []report.Read{{From: "usa", Component: "identity", Output: "token"}, {From: "usa", Component: "identity", Output: "value"}}, status.Nodes[1].Reads)
	runs := host.runs(t)
	require.Equal(t, 1, runs)
	host.round(t.Context(), "test")
	require.Equal(t, runs, host.runs(t), "a round that can do nothing leaves no run")
}

// runs counts the runs that were recorded.
func (w *worker) runs(t *testing.T) (n int) {
	require.NoError(t, w.Store.View(t.Context(), func(r state.Reader) error {
		runs, err := r.Runs(w.name, 0)
		n = len(runs)
		return err
	}))
	return n
}
