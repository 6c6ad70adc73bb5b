package compose

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"
	"github.com/zclconf/go-cty/cty"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

const oneService = `
services:
  web:
    image: ${WEB_IMAGE:-$IMAGE}
    init: true
    command: [bash, -c, "${RUN}"]
    healthcheck: {test: [CMD-SHELL, "${CHECK:-true}"], interval: 300ms, retries: 2}
    volumes: ["./conf:/conf:ro"]
`

func rejected(t *testing.T, err error) *reconcilers.RejectedError {
	t.Helper()
	var r *reconcilers.RejectedError
	require.ErrorAs(t, err, &r)
	return r
}

// A new version that does not work is put back, in every way that it may fail, and the service runs as before.
func TestBadVersionIsPutBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, oneService)
	w.write(map[string]string{"conf/a": "good"})
	w.up("web")
	good := w.picture(t)
	goodEnv, goodRevision := w.spec.Environment, w.revision

	cases := []struct {
		name, variable, value, says string
	}{
		{"exits", "RUN", "echo dying of tests; exit 3", "service web exited with 3"},
		{"never healthy", "CHECK", "echo not today; false", "is unhealthy: its check exits with 1: not today"},
		{"does not start", "RUN", "", "start container"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w.spec.Environment = goodEnv
			w.set(c.variable, c.value)
			w.write(map[string]string{"conf/a": "bad"})
			if c.name == "does not start" {
				w.write(map[string]string{"compose.yaml": "services: {web: {image: \"${IMAGE}\", command: [/no/such/program]}}"})
			}
			r := rejected(t, w.try("web"))
			require.Contains(t, r.Error(), c.says)
			require.Equal(t, "put back to "+w.image, r.PutBack)
			if c.name == "exits" {
				require.Contains(t, r.Logs, "dying of tests")
			}
			require.Equal(t, good, w.picture(t))
			content, err := os.ReadFile(filepath.Join(w.dirs, "project", "conf", "a"))
			require.NoError(t, err)
			require.Equal(t, "good", string(content), "bound files go back with their version")

			bad := w.revision
			w.spec.Environment, w.revision = goodEnv, goodRevision
			w.inSync("web")
			w.revision = bad
		})
	}
}

// TestAVolumeWithoutANameOutlivesItsContainers: it is found again by the version that is put back, and by one that is healed.
func TestAVolumeWithoutANameOutlivesItsContainers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "services: {web: {image: '${IMAGE}', init: true, command: [bash, -c, '${RUN}'], volumes: [/kept]}}")
	w.up("web")
	before := w.inspect("web")
	require.Len(t, before.Mounts, 1)
	volume, good := before.Mounts[0].Name, w.spec.Environment
	t.Cleanup(func() {
		w.clean()
		_, err := w.engine.VolumeRemove(context.Background(), volume, client.VolumeRemoveOptions{})
		require.NoError(t, err)
	})

	w.set("RUN", "exit 3")
	require.Contains(t, rejected(t, w.try("web")).PutBack, "put back to")
	back := w.inspect("web")
	require.NotEqual(t, before.ID, back.ID)
	require.Equal(t, volume, back.Mounts[0].Name)

	_, err := w.engine.ContainerRemove(t.Context(), back.ID, client.ContainerRemoveOptions{Force: true})
	require.NoError(t, err)
	w.spec.Environment = good
	w.up("web")
	require.Equal(t, volume, w.inspect("web").Mounts[0].Name)
}

// TestWhatIsReadyIsNotedHoweverLongItTook: a wait for health may outlast both the call and the limit of its changes.
func TestWhatIsReadyIsNotedHoweverLongItTook(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "services: {web: {image: '${IMAGE}', init: true, command: [bash, -c, '${RUN}']}}")
	w.up("web")
	st := w.observe("web").State.(*serviceState)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, w.r.commit(over, st, st.container.ID))
	good, err := st.readGood()
	require.NoError(t, err)
	require.NoError(t, w.r.noteBack(over, st, good, st.container.ID))
	w.inSync("web")
}

// A tag that leads to an image that does not work is not tried again and again, whatever somebody does to the container.
func TestMovedTagThatDoesNotWork(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `services: {web: {image: "${WEB_IMAGE}", init: true, restart: unless-stopped}}`)
	w.set("WEB_IMAGE", w.commit("1", `CMD ["bash","-c","trap 'exit 0' TERM; while :; do sleep 0.2 & wait $!; done"]`))
	w.up("web")
	before := w.inspect("web").Image
	w.commit("1", `CMD ["bash","-c","exit 4"]`)
	change := w.change("web")
	require.Equal(t, reconcilers.Replace, change.Action)
	require.Contains(t, change.Reason, "now means")
	r := rejected(t, w.try("web"))
	require.Contains(t, r.Message, "exited with 4")
	require.Equal(t, before, w.inspect("web").Image)
	w.inSync("web")
	require.Len(t, w.observe("web").Facts.Notes, 1)
	for _, end := range []func(id string) error{
		func(id string) error {
			_, err := w.engine.ContainerStop(t.Context(), id, client.ContainerStopOptions{})
			return err
		},
		func(id string) error {
			_, err := w.engine.ContainerRemove(t.Context(), id, client.ContainerRemoveOptions{Force: true})
			return err
		},
	} {
		require.NoError(t, end(w.inspect("web").ID))
		w.up("web")
		require.Equal(t, before, w.inspect("web").Image)
		require.Len(t, w.observe("web").Facts.Notes, 1)
	}
	w.commit("1", `CMD ["bash","-c","trap 'exit 0' TERM; while :; do sleep 0.3 & wait $!; done"]`)
	w.up("web")
	require.NotEqual(t, before, w.inspect("web").Image)
}

func TestBadFirstVersionIsRejectedAndLeftForInspection(t *testing.T) {
	t.Parallel()
	w := newWorld(t, oneService)
	w.set("RUN", "echo first words; exit 7")
	require.NoError(t, w.try(SharedPart))
	r := rejected(t, w.try("web"))
	require.Contains(t, r.Message, "exited with 7")
	require.Equal(t, "there is no earlier version to put back", r.PutBack)
	require.Equal(t, []string{"first words"}, r.Logs)
	require.Equal(t, 7, w.inspect("web").State.ExitCode)
	w.set("RUN", serve)
	w.up("web")
}

// A missing image is found before anything is touched.
func TestMissingImageTouchesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, twoServices)
	w.spec.Pull = "never"
	w.up("db", "web")
	before := w.picture(t)
	db := w.inspect("db").ID
	w.write(map[string]string{"compose.yaml": twoServices + "networks: {extra: {}}\n"})
	w.set("IMAGE", w.project+":missing")
	r := rejected(t, w.try(SharedPart))
	require.Contains(t, r.Message, "is not on this host and the pull policy is never")
	require.Equal(t, "nothing was changed", r.PutBack)
	require.Equal(t, "nothing was changed", rejected(t, w.try("db")).PutBack)
	require.Equal(t, before, w.picture(t))
	require.Equal(t, db, w.inspect("db").ID)

	w.spec.Pull = "missing"
	w.set("IMAGE", "localhost:1/none/"+w.project+":1")
	require.True(t, rejected(t, w.try(SharedPart)).Again, "a registry that is away is asked again")
	require.Equal(t, before, w.picture(t))
}

// A wait that is broken off leaves a record by which the next run finishes the change, one way or the other.
func TestInterruptedWaitIsFinished(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, check string
		good        bool
	}{{"becomes healthy", "test -e /tmp/ready", true}, {"never healthy", "false", false}} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, oneService)
			w.write(map[string]string{"conf/a": "1"})
			w.up("web")
			before := w.picture(t)
			w.set("CHECK", c.check)
			p := w.plan("web")
			ctx, cancel := cancellable(t)
			_, err := w.r.Apply(ctx, w.target("web"), p, &stopper{heard: &heard{t: t}, cancel: cancel})
			require.ErrorIs(t, err, ctx.Err())
			w.restart()
			change := w.change("web")
			require.Contains(t, change.Reason, "after an interruption")
			if c.good {
				id := w.inspect("web").ID
				exec, code, err := w.r.Services(w.target("")).Exec(t.Context(), "web", []string{"touch", "/tmp/ready"}, nil, nil)
				require.NoError(t, err)
				require.Zero(t, code, string(exec))
				require.NoError(t, w.try("web"))
				w.inSync("web")
				require.Equal(t, id, w.inspect("web").ID)
				return
			}
			r := rejected(t, w.try("web"))
			require.Contains(t, r.PutBack, "put back to")
			require.Equal(t, before, w.picture(t))
		})
	}
}

// What is left when the process ends within Compose's own recreate is cleared up: two containers, one of them under a
// temporary name.
func TestLeftoversOfAnInterruptedRecreate(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name      string
		removeOld bool
		stopOld   bool
		aside     bool
	}{{"new one created", false, false, false}, {"old one stopped", false, true, false}, {"old one put aside", false, true, true}, {"old one removed", true, true, false}} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, oneService)
			w.up("web")
			old := w.inspect("web")
			w.set("CHECK", "true # changed")
			// Make the new one elsewhere, then put the old one back beside it, as Compose leaves them.
			s, err := w.r.stack(t.Context(), w.target("web"))
			require.NoError(t, err)
			require.NotEqual(t, old.Config.Labels["com.docker.compose.config-hash"], s.model.hashes["web"])
			o := w.observe("web")
			st := o.State.(*serviceState)
			g, err := st.readGood()
			require.NoError(t, err)
			st.record.Pending = &pending{Since: time.Now(), Reason: "healthcheck changed"}
			require.NoError(t, st.record.write(s.recordPath("web")))
			require.NoError(t, w.r.remove(t.Context(), old.ID))
			st.container = nil
			one, err := w.r.make(t.Context(), st)
			require.NoError(t, err)
			made := one.made
			_, err = w.engine.ContainerRename(t.Context(), made, client.ContainerRenameOptions{NewName: old.ID[:12] + "_" + st.wantName})
			require.NoError(t, err)
			if !c.removeOld {
				again, err := w.r.recreate(t.Context(), g)
				require.NoError(t, err)
				if c.aside {
					_, err = w.engine.ContainerRename(t.Context(), again, client.ContainerRenameOptions{NewName: st.wantName + "-replaced-" + again[:12]})
					require.NoError(t, err)
				}
				if !c.stopOld {
					_, err = w.engine.ContainerStart(t.Context(), again, client.ContainerStartOptions{})
					require.NoError(t, err)
				}
			}
			w.restart()
			require.NoError(t, w.try("web"))
			w.inSync("web")
			now := w.inspect("web")
			require.NotContains(t, []string{made, old.ID}, now.ID, "one that was never started, and of which nothing is noted, is made again")
			require.Equal(t, "/"+st.wantName, now.Name)
			require.Equal(t, container.StateRunning, now.State.Status)
		})
	}
}

func TestUnknownInputIsShownAndNotApplied(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `services: {web: {image: "${IMAGE}", init: true, command: [bash, -c, "${RUN}"], environment: {URI: "${URI}"}}}`)
	w.spec.Environment["URI"] = w.expr("${database.uri}")
	w.outputs["uri"] = desired.UnknownSecret()
	require.NoError(t, w.try(SharedPart))
	p := w.plan("web")
	require.Equal(t, []string{"database.uri"}, p.Unknown)
	require.Contains(t, p.Changes[0].Reason, "URI known after apply")
	_, err := w.r.Apply(t.Context(), w.target("web"), p, &heard{t: t})
	var wait *reconcilers.WaitError
	require.ErrorAs(t, err, &wait)
	require.Equal(t, "database.uri", wait.For)

	w.outputs["uri"] = desired.Secret("mongodb://one")
	w.up("web")
	w.outputs["uri"] = desired.Secret("mongodb://two")
	require.Equal(t, "environment URI changed", w.change("web").Reason)
	w.up("web")
	require.Contains(t, w.inspect("web").Config.Env, "URI=mongodb://two")
	w.outputs["uri"] = desired.Unknown()
	require.Equal(t, []string{"database.uri"}, w.plan("web").Unknown)
}

func TestOneShotRunsOnce(t *testing.T) {
	t.Parallel()
	const seed = `
services:
  seed:
    image: ${IMAGE}
    command: [bash, -c, "echo seeding; exit $CODE"]
    labels: {dive.service.class: init}
`
	w := newWorld(t, seed)
	w.set("CODE", "5")
	require.NoError(t, w.try(SharedPart))
	err := w.try("seed")
	require.ErrorContains(t, err, `service seed exited with 5; its last words: "seeding"`)
	var r *reconcilers.RejectedError
	require.False(t, errors.As(err, &r), "a job is tried again")
	require.Equal(t, "run again: exit code 5", w.change("seed").Reason)
	w.set("CODE", "0")
	begin := time.Now()
	w.up("seed")
	require.Less(t, time.Since(begin), 10*time.Second)
	require.Equal(t, "completed", w.observe("seed").Facts.Summary)
	id := w.inspect("seed").State.StartedAt
	w.restart()
	w.up("seed")
	require.Equal(t, id, w.inspect("seed").State.StartedAt)

	w.write(map[string]string{"compose.yaml": seed + "    environment: {NEWER: \"1\"}\n"})
	w.up("seed") // a changed job runs again, at once
	require.Equal(t, "completed", w.observe("seed").Facts.Summary)
	require.NotEqual(t, id, w.inspect("seed").State.StartedAt)
}

// A new value of an output that does not work is put back as well, but the revision is not to blame: it is tried again.
func TestBadOutputIsTriedAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `
services:
  web: {image: "${IMAGE}", init: true, command: [bash, -c, "test $$TOKEN = good || { echo bad token; exit 9; }; ${RUN}"], environment: ["TOKEN"]}
`)
	w.spec.Environment["TOKEN"] = w.expr("${database.uri}")
	w.outputs["uri"] = desired.Secret("good")
	w.up("web")
	w.outputs["uri"] = desired.Secret("wrong")
	err := w.try("web")
	require.ErrorContains(t, err, `service web exited with 9; put back to what ran before; its last words: "bad token"`)
	var r *reconcilers.RejectedError
	require.False(t, errors.As(err, &r))
	require.Contains(t, w.inspect("web").Config.Env, "TOKEN=good")
	require.Equal(t, "environment TOKEN changed", w.change("web").Reason)
	w.outputs["uri"] = desired.Secret("good")
	w.inSync("web")
}

// What another instance publishes comes in as an output does: awaited by its name, followed when it changes, and a value that
// does not work is put back without blame for the revision, though it is no secret.
func TestAServiceFollowsWhatAnotherInstancePublishes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `
services:
  web: {image: "${IMAGE}", init: true, command: [bash, -c, "test $$HUB != wrong || { echo no such hub; exit 9; }; ${RUN}"], environment: ["HUB"]}
`)
	w.spec.Environment["HUB"] = w.expr("${instances.usa.identity.url}")
	publish := func(v desired.Value) {
		w.foreign = map[string]cty.Value{"usa": cty.ObjectVal(map[string]cty.Value{"identity": cty.ObjectVal(map[string]cty.Value{"url": v.Cty()})})}
	}
	publish(desired.Unknown())
	require.NoError(t, w.try(SharedPart))
	p := w.plan("web")
	require.Equal(t, []string{"instances.usa.identity.url"}, p.Unknown)
	require.Contains(t, p.Changes[0].Reason, "HUB known after apply")
	_, err := w.r.Apply(t.Context(), w.target("web"), p, &heard{t: t})
	var wait *reconcilers.WaitError
	require.ErrorAs(t, err, &wait)

	publish(desired.String("one"))
	w.up("web")
	publish(desired.String("two"))
	require.Equal(t, "environment HUB changed", w.change("web").Reason)
	w.up("web")
	require.Contains(t, w.inspect("web").Config.Env, "HUB=two")
	publish(desired.String("wrong"))
	err = w.try("web")
	require.ErrorContains(t, err, `put back to what ran before; its last words: "no such hub"`)
	var r *reconcilers.RejectedError
	require.False(t, errors.As(err, &r))
	require.Contains(t, w.inspect("web").Config.Env, "HUB=two")
}

// A service that shares a namespace with another, or asks for it, follows when that one is made anew.
func TestServiceFollowsWhatItIsTiedTo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `
services:
  db: {image: "${IMAGE}", init: true, command: [bash, -c, "${RUN}"], environment: {V: "${V:-1}"}, healthcheck: &check {test: [CMD, "true"], interval: 300ms}}
  side: {image: "${IMAGE}", init: true, command: [bash, -c, "${RUN}"], network_mode: "service:db", healthcheck: *check}
  web: {image: "${IMAGE}", init: true, command: [bash, -c, "${RUN}"], depends_on: {db: {condition: service_healthy, restart: true}}, healthcheck: *check}
`)
	w.up("db", "side", "web")
	web := w.inspect("web")
	w.set("V", "2")
	w.up("db")
	require.Equal(t, reconcilers.Replace, w.change("side").Action)
	require.Equal(t, "restart: service db was made anew", w.change("web").Reason)
	w.up("side", "web")
	require.Equal(t, "container:"+w.inspect("db").ID, string(w.inspect("side").HostConfig.NetworkMode))
	require.Equal(t, web.ID, w.inspect("web").ID)
	require.NotEqual(t, web.State.StartedAt, w.inspect("web").State.StartedAt)
}

// What fails any version may let the old one run for a while when it is put back, as a disk does on which a little is free
// again: a newer version that fails as the old one did a short time ago is not to blame either.
func TestWhatFailedBeforeTheRevisionIsNoFaultOfIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `
services:
  web:
    image: "${IMAGE}"
    init: true
    command: [bash, -c, "test ! -e /disk/full || test $$LABEL = first -a -e /disk/lasts || exit $$(cat /disk/full); ${RUN}"]
    environment: ["LABEL"]
    volumes: ["${DISK}:/disk:ro"]
`)
	disk := t.TempDir()
	put := func(name, content string) {
		t.Helper()
		require.NoError(t, os.WriteFile(filepath.Join(disk, name), []byte(content), 0o600))
	}
	w.set("DISK", disk)
	w.set("LABEL", "first")
	w.up("web")
	put("full", "14")
	_, err := w.engine.ContainerKill(t.Context(), w.inspect("web").ID, client.ContainerKillOptions{Signal: "KILL"})
	require.NoError(t, err)
	require.EqualError(t, w.try("web"), `service web exited with 14; its last words: "serving"`)
	put("lasts", "")

	w.set("LABEL", "second")
	err = w.try("web")
	require.ErrorContains(t, err, "service web exited with 14, as it did before it was changed")
	var r *reconcilers.RejectedError
	require.False(t, errors.As(err, &r))
	put("full", "15")
	require.ErrorAs(t, w.try("web"), &r, "another fault is the revision's own")
	require.Equal(t, "service web exited with 15", r.Message)
	require.Contains(t, w.inspect("web").Config.Env, "LABEL=first")
	require.NoError(t, os.Remove(filepath.Join(disk, "full")))
	w.up("web")
	require.Contains(t, w.inspect("web").Config.Env, "LABEL=second")
}

// A disk that is full, and the like, fails the old version as well as the new one: the revision is tried again, and comes to
// run when there is room.
func TestWhatFailsAnyVersionIsNoFaultOfTheRevision(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `
services:
  web:
    image: "${IMAGE}"
    init: true
    command: [bash, -c, "test ! -e /disk/full || { echo write: No space left on device; echo a trace; exit 14; }; ${RUN}"]
    environment: ["LABEL"]
    volumes: ["${DISK}:/disk:ro"]
`)
	disk := t.TempDir()
	w.set("DISK", disk)
	w.set("LABEL", "first")
	w.up("web")
	require.NoError(t, os.WriteFile(filepath.Join(disk, "full"), nil, 0o600))
	w.set("LABEL", "second")
	err := w.try("web")
	require.ErrorContains(t, err, `service web exited with 14; put back, what ran before does not work any more either; `+
		`its last words: "write: No space left on device"`)
	var r *reconcilers.RejectedError
	require.False(t, errors.As(err, &r))
	require.NoError(t, os.Remove(filepath.Join(disk, "full")))
	require.NoError(t, w.try("web"))
	w.inSync("web")
	require.Contains(t, w.inspect("web").Config.Env, "LABEL=second")
}
