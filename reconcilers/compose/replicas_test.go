package compose

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"

	"dive-agent/reconcilers"
)

const replicatedStack = `
services:
  web:
    image: ${IMAGE}
    init: true
    command: [bash, -c, "${RUN}"]
    environment: {COLOUR: "${COLOUR:-red}"}
    networks: {default: {aliases: [www]}}
    healthcheck: {test: [CMD-SHELL, "${CHECK:-true}"], interval: 300ms, retries: 2}
    stop_grace_period: 1s
    deploy: {replicas: 3}
`

// all gives the containers of a service by name.
func (w *world) all(service string) map[string]container.InspectResponse {
	w.t.Helper()
	list, err := w.engine.ContainerList(w.t.Context(), client.ContainerListOptions{
		All: true, Filters: projectFilter(w.project, "com.docker.compose.service="+service),
	})
	require.NoError(w.t, err)
	all := map[string]container.InspectResponse{}
	for _, item := range list.Items {
		c, err := w.engine.ContainerInspect(w.t.Context(), item.ID, client.ContainerInspectOptions{})
		if errdefs.IsNotFound(err) { // it has just gone
			continue
		}
		require.NoError(w.t, err)
		all[strings.TrimPrefix(c.Container.Name, "/"+w.project+"-")] = c.Container
	}
	return all
}

// holds checks that a service has exactly these containers, each running with this environment, and gives their IDs.
func (w *world) holds(service, env string, names ...string) map[string]string {
	w.t.Helper()
	ids := map[string]string{}
	all := w.all(service)
	for _, name := range names {
		require.Contains(w.t, all, name)
		require.Equal(w.t, container.StateRunning, all[name].State.Status, name)
		require.Contains(w.t, all[name].Config.Env, env, name)
		ids[name] = all[name].ID
	}
	require.Len(w.t, all, len(names))
	return ids
}

// differ tells which containers are other ones.
func differ(before, after map[string]string) (names []string) {
	for name := range after {
		if before[name] != after[name] {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (w *world) addresses(service string) (addresses []string) {
	for _, change := range w.plan(service).Changes {
		addresses = append(addresses, string(change.Action)+" "+change.Address)
	}
	return addresses
}

// TestReplicas: as many containers as declared, named as Compose names them; each is mended alone, and all follow a change.
func TestReplicas(t *testing.T) {
	t.Parallel()
	w := newWorld(t, replicatedStack)
	require.NoError(t, w.try(SharedPart))
	require.Equal(t, []string{"create web", "create web replica 2", "create web replica 3"}, w.addresses("web"))
	w.up("web")
	first := w.holds("web", "COLOUR=red", "web-1", "web-2", "web-3")
	require.Equal(t, "3 replicas running, healthy", w.observe("web").Facts.Summary)
	want := w.picture(t)
	w.restart()
	w.inSync("web")

	mend := func(what string, changed []string, do func(id string) error) {
		t.Helper()
		before := w.holds("web", "COLOUR=red", "web-1", "web-2", "web-3")
		require.NoError(t, do(before["web-2"]), what)
		change := w.change("web")
		require.Equal(t, "web replica 2", change.Address, what)
		require.NoError(t, w.try("web"), what)
		w.inSync("web")
		after := w.holds("web", "COLOUR=red", "web-1", "web-2", "web-3")
		require.Equal(t, changed, differ(before, after), what)
		require.Equal(t, want, w.picture(t), what)
	}
	mend("removed", []string{"web-2"}, func(id string) error {
		_, err := w.engine.ContainerRemove(t.Context(), id, client.ContainerRemoveOptions{Force: true})
		return err
	})
	mend("stopped", nil, func(id string) error {
		_, err := w.engine.ContainerStop(t.Context(), id, client.ContainerStopOptions{})
		return err
	})
	mend("changed", []string{"web-2"}, func(id string) error {
		_, err := w.engine.ContainerUpdate(t.Context(), id, client.ContainerUpdateOptions{Resources: &container.Resources{CPUShares: 100}})
		return err
	})
	mend("renamed", nil, func(id string) error {
		_, err := w.engine.ContainerRename(t.Context(), id, client.ContainerRenameOptions{NewName: w.project + "-elsewhere"})
		return err
	})

	w.set("COLOUR", "blue")
	require.Equal(t, []string{"replace web", "replace web replica 2", "replace web replica 3"}, w.addresses("web"))
	w.up("web")
	require.Equal(t, []string{"web-1", "web-2", "web-3"}, differ(first, w.holds("web", "COLOUR=blue", "web-1", "web-2", "web-3")))
	require.Contains(t, w.exec(t, "web", "getent", "ahostsv4", "www"), "STREAM")
}

// TestReplicasComeAndGo: more or fewer leave the others alone, and how their number is written is no change of them.
func TestReplicasComeAndGo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, replicatedStack)
	scale := func(words string) {
		w.write(map[string]string{"compose.yaml": strings.Replace(replicatedStack, "    deploy: {replicas: 3}\n", words, 1)})
	}
	scale("")
	w.up("web")
	one := w.holds("web", "COLOUR=red", "web-1")
	scale("    deploy: {replicas: 3, update_config: {parallelism: 2, delay: 1s}}\n")
	require.Equal(t, []string{"create web replica 2", "create web replica 3"}, w.addresses("web"))
	w.up("web")
	three := w.holds("web", "COLOUR=red", "web-1", "web-2", "web-3")
	require.Equal(t, one["web-1"], three["web-1"])

	scale("    scale: 2\n")
	require.Equal(t, []string{"delete container " + w.project + "-web-3"}, w.addresses("web"))
	require.False(t, w.change("web").Destroys)
	w.up("web")
	require.Empty(t, differ(three, w.holds("web", "COLOUR=red", "web-1", "web-2")))

	// The first was removed by hand, and only one is wanted: what is there takes its place.
	_, err := w.engine.ContainerRemove(t.Context(), three["web-1"], client.ContainerRemoveOptions{Force: true})
	require.NoError(t, err)
	scale("")
	w.up("web")
	w.holds("web", "COLOUR=red", "web-1")
	left, err := filepath.Glob(filepath.Join(w.dirs, "state", "web@*"))
	require.NoError(t, err)
	for _, path := range left {
		require.NotContains(t, path, "@3", "what is remembered of a replica goes with it")
		require.NoError(t, os.Remove(path))
	}
	w.inSync("web")
}

// TestBadVersionOfReplicas: the first that does not work ends the update, and those that were changed before go back too.
func TestBadVersionOfReplicas(t *testing.T) {
	t.Parallel()
	w := newWorld(t, replicatedStack)
	w.up("web")
	before := w.picture(t)
	was := w.holds("web", "COLOUR=red", "web-1", "web-2", "web-3")
	w.set("COLOUR", "blue")
	w.set("CHECK", `test "$(hostname -i)" != "$(getent ahostsv4 `+w.project+`-web-2 | head -1 | cut -d' ' -f1)"`) // the second alone
	r := rejected(t, w.try("web"))
	require.Contains(t, r.Message, "service web is unhealthy")
	require.Equal(t, "put back to "+w.image, r.PutBack)
	require.Equal(t, before, w.picture(t))
	require.Equal(t, []string{"web-1", "web-2"}, differ(was, w.holds("web", "COLOUR=red", "web-1", "web-2", "web-3")), "the third was not touched")
	w.set("COLOUR", "red")
	w.set("CHECK", "true")
	w.inSync("web")
}

// TestWhatFollowsOnAFailure: pause keeps what serves and asks for another version, continue changes all.
func TestWhatFollowsOnAFailure(t *testing.T) {
	t.Parallel()
	const bad = "trap 'exit 0' TERM; sleep 0.1; exit 6"
	t.Run("pause", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, replicatedStack)
		w.spec.Update = map[string]Update{"web": {OnFailure: onFailurePause}}
		w.up("web")
		was := w.holds("web", "COLOUR=red", "web-1", "web-2", "web-3")
		w.set("RUN", bad)
		w.set("CHECK", "sleep 20") // it ends before anything is said of its health, however slow the machine is
		err := w.try("web")
		var blocked *reconcilers.BlockedError
		require.ErrorAs(t, err, &blocked)
		require.Equal(t, "UpdatePaused", blocked.Reason)
		require.Contains(t, blocked.Message, "the update of service web is paused: service web exited with 6")
		w.restart()
		require.Empty(t, w.plan("web").Changes)
		require.ErrorAs(t, w.observe("web").Err, &blocked)
		all := w.all("web")
		require.Equal(t, was["web-2"], all["web-2"].ID)
		require.Equal(t, was["web-3"], all["web-3"].ID)
		w.set("RUN", serve+" # mended")
		w.set("CHECK", "true")
		w.set("COLOUR", "green")
		w.up("web")
		w.holds("web", "COLOUR=green", "web-1", "web-2", "web-3")
	})
	t.Run("continue", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, strings.Replace(replicatedStack, "deploy: {replicas: 3}", "deploy: {replicas: 3, update_config: {failure_action: continue, parallelism: 0}}", 1))
		w.up("web")
		w.set("RUN", bad)
		w.set("CHECK", "sleep 20")
		w.set("COLOUR", "blue")
		err := w.try("web")
		require.ErrorContains(t, err, "replica 3: service web exited with 6; it is kept (onFailure: continue)")
		var r *reconcilers.RejectedError
		require.NotErrorAs(t, err, &r)
		for name, c := range w.all("web") {
			require.Contains(t, c.Config.Env, "COLOUR=blue", name)
		}
		require.Len(t, w.all("web"), 3)
		w.set("RUN", serve)
		w.set("CHECK", "true")
		w.up("web")
		w.holds("web", "COLOUR=blue", "web-1", "web-2", "web-3")
	})
}

// TestParallelismAndDelay: never more replicas than declared are away at the same time, and batches wait for each other.
func TestParallelismAndDelay(t *testing.T) {
	t.Parallel()
	w := newWorld(t, strings.Replace(replicatedStack, "deploy: {replicas: 3}", "deploy: {replicas: 3, update_config: {parallelism: 2, delay: 1500ms}}", 1))
	w.up("web")
	w.set("COLOUR", "blue")
	h := &heard{t: t}
	begin := time.Now()
	_, err := w.r.Apply(t.Context(), w.target("web"), w.plan("web"), h)
	require.NoError(t, err)
	require.Greater(t, time.Since(begin), 1500*time.Millisecond)
	require.Contains(t, h.said, "waiting 1.5s before the next replicas")
	all := w.all("web")
	started := func(name string) time.Time {
		at, err := time.Parse(time.RFC3339Nano, all[name].State.StartedAt)
		require.NoError(t, err)
		return at
	}
	require.Less(t, started("web-1").Sub(started("web-2")).Abs(), 1500*time.Millisecond)
	require.Greater(t, started("web-3").Sub(started("web-2")), 1500*time.Millisecond)
}

// TestServicesOfReplicas: who asks for the container of a service gets one that is well, and the logs of all.
func TestServicesOfReplicas(t *testing.T) {
	t.Parallel()
	w := newWorld(t, replicatedStack)
	w.set("RUN", "echo I am $HOSTNAME; "+serve)
	w.up("web")
	services := w.r.Services(w.target(""))
	found := func() string {
		c, err := services.Find(t.Context(), "web")
		require.NoError(t, err)
		return c.Name
	}
	require.Equal(t, w.project+"-web-1", found())
	_, err := w.engine.ContainerPause(t.Context(), w.all("web")["web-1"].ID, client.ContainerPauseOptions{})
	require.NoError(t, err)
	require.Equal(t, w.project+"-web-2", found())
	_, err = w.engine.ContainerStop(t.Context(), w.all("web")["web-2"].ID, client.ContainerStopOptions{})
	require.NoError(t, err)
	require.Equal(t, w.project+"-web-3", found())
	log, err := services.Logs(t.Context(), "web", time.Time{}, 0)
	require.NoError(t, err)
	text, err := io.ReadAll(log)
	require.NoError(t, err)
	require.NoError(t, log.Close())
	for _, c := range w.all("web") {
		require.Contains(t, string(text), "I am "+c.Config.Hostname)
	}
}

// TestReplicasAreTakenOver: those that `docker compose up` started stay, and are versions to go back to.
func TestReplicasAreTakenOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t, replicatedStack)
	for scale := 1; scale <= 3; scale++ { // the SDK makes several at a time, in a race of its own
		w.write(map[string]string{"compose.yaml": strings.Replace(replicatedStack, "replicas: 3", fmt.Sprint("replicas: ", scale), 1)})
		w.upByHand(t)
	}
	was := w.holds("web", "COLOUR=red", "web-1", "web-2", "web-3")
	for _, part := range []string{SharedPart, "web"} {
		w.inSync(part)
	}
	require.Empty(t, differ(was, w.holds("web", "COLOUR=red", "web-1", "web-2", "web-3")))
	w.set("RUN", "exit 3")
	require.Contains(t, rejected(t, w.try("web")).PutBack, "put back to")
	w.holds("web", "COLOUR=red", "web-1", "web-2", "web-3")
}

// TestAnUpdateOfReplicasIsResumed: wherever it is cut off between two of them, all end at the new version, none twice.
func TestAnUpdateOfReplicasIsResumed(t *testing.T) {
	t.Parallel()
	for after := range 3 {
		t.Run(fmt.Sprint(after), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, replicatedStack)
			w.up("web")
			w.set("COLOUR", "blue")
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			_, err := w.r.Apply(ctx, w.target("web"), w.plan("web"), &endsAfter{heard: &heard{t: t}, left: after, cancel: cancel})
			require.ErrorIs(t, err, context.Canceled)
			w.restart()
			require.NoError(t, w.try("web"))
			w.inSync("web")
			w.holds("web", "COLOUR=blue", "web-1", "web-2", "web-3")
		})
	}
}

// endsAfter cancels the call after so many changes.
type endsAfter struct {
	*heard
	left   int
	cancel context.CancelFunc
}

func (e *endsAfter) Begin(ctx context.Context, changes ...reconcilers.Change) error {
	if e.left == 0 {
		e.cancel()
	}
	e.left--
	return e.heard.Begin(ctx, changes...)
}

func TestConformanceOfReplicas(t *testing.T) {
	t.Parallel()
	runConformance(t, func(t *testing.T) *world {
		w := newWorld(t, replicatedStack)
		w.up()
		return w
	})
}

// The lost record of one replica is no reason to touch any of them.
func TestALostRecordOfOneReplicaChangesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, replicatedStack)
	w.up("web")
	before := w.holds("web", "COLOUR=red", "web-1", "web-2", "web-3")
	for _, record := range []string{"web.json", "web@2.json"} {
		require.NoError(t, os.Truncate(filepath.Join(w.dirs, "state", record), 20))
		w.restart()
		w.inSync("web")
		w.inSync("web")
	}
	require.Equal(t, before, w.holds("web", "COLOUR=red", "web-1", "web-2", "web-3"))
	id := before["web-2"]
	require.NoError(t, updated("", container.Resources{CPUShares: 100}, nil).do(w, id))
	require.Equal(t, []string{"replace web replica 2"}, w.addresses("web"), "what is changed by hand is seen as before")
}

// A replacement of what somebody changed by hand that is cut off does not take that for what was declared.
func TestInterruptedMendingOfDriftIsFinished(t *testing.T) {
	t.Parallel()
	w := newWorld(t, strings.Replace(replicatedStack, "{replicas: 3}", "{update_config: {order: start-first}}", 1))
	w.up("web")
	id := w.inspect("web").ID
	require.NoError(t, updated("", container.Resources{CPUShares: 100}, nil).do(w, id))
	change := w.change("web")
	st := w.observe("web").State.(*serviceState)
	require.NoError(t, st.begin(time.Now(), change.Reason))
	w.restart()
	require.Equal(t, reconcilers.Replace, w.change("web").Action)
	w.up("web")
	require.NotEqual(t, id, w.inspect("web").ID)
	require.Zero(t, w.inspect("web").HostConfig.CPUShares)
}
