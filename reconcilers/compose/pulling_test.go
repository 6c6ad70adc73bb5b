package compose

import (
	"context"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/reconcilers"
	"dive-agent/testbed"
)

// pulledStack is one service of an image that a registry has, and one that needs none of it.
const pulledStack = `
services:
  web: {image: "${WEB}", pull_policy: "${POLICY:-missing}", command: ["${DO:-serve}"], healthcheck: {test: [CMD, /pulled, "true"], interval: 300ms}}
  other: {image: "${IMAGE}", init: true, command: [bash, -c, "${RUN}"], healthcheck: {test: [CMD, "true"], interval: 300ms}}
`

// pulling gives a stack and a registry of its own, whose images go with the test.
func pulling(t *testing.T, options testbed.RegistryOptions) (*world, *testbed.Registry) {
	t.Helper()
	w, registry := newWorld(t, pulledStack), testbed.NewRegistry(t, options)
	w.set("WEB", registry.Image("app:1"))
	t.Cleanup(func() {
		w.clean()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		defer cancel()
		list, err := w.engine.ImageList(ctx, client.ImageListOptions{})
		require.NoError(t, err)
		for _, image := range list.Items {
			for _, name := range append(image.RepoTags, image.RepoDigests...) {
				if strings.HasPrefix(name, registry.Address+"/") {
					_, _ = w.engine.ImageRemove(ctx, image.ID, client.ImageRemoveOptions{Force: true})
					break
				}
			}
		}
	})
	return w, registry
}

// merge is a new revision that says the same.
func (w *world) merge() { w.instance.Digest += "+" }

func TestPullPolicyOfAService(t *testing.T) {
	t.Parallel()
	w, registry := pulling(t, testbed.RegistryOptions{})
	registry.Push(testbed.Pushed{Name: "app:1"})
	require.Equal(t, "pull: not on this host", w.plan(SharedPart).Changes[0].Reason)
	w.up("web", "other")
	first := w.inspect("web").Image

	registry.Push(testbed.Pushed{Name: "app:1", Labels: map[string]string{"v": "2"}})
	w.merge()
	w.inSync(SharedPart)
	w.inSync("web")

	w.set("POLICY", "always")
	require.Equal(t, "pull: pull policy always, new revision", w.change(SharedPart).Reason)
	require.NoError(t, w.try(SharedPart))
	require.Contains(t, w.change("web").Reason, "now means")
	w.up("web", "other")
	require.NotEqual(t, first, w.inspect("web").Image)
	w.inSync("web")

	w.spec.Pull = "always"
	w.set("POLICY", "missing")
	w.merge()
	require.Equal(t, "image "+w.image, w.change(SharedPart).Address, "what the service says comes first")
	w.set("POLICY", "every_12h")
	w.spec.Pull = ""
	require.NoError(t, w.try(SharedPart)) // nobody knows when it was pulled last
	w.inSync(SharedPart)
	w.r.clock = &movedClock{by: 13 * time.Hour}
	require.Equal(t, "pull: pull policy every 12h", w.change(SharedPart).Reason)
	require.NoError(t, w.try(SharedPart))
	w.restart()
	w.r.clock = &movedClock{by: 14 * time.Hour}
	w.inSync(SharedPart)

	w.set("POLICY", "never")
	w.set("WEB", registry.Image("app:2"))
	r := rejected(t, w.try(SharedPart))
	require.Contains(t, r.Message, "not on this host and the pull policy is never")
}

// movedClock is the real one, put forward.
type movedClock struct {
	reconcilers.SystemClock
	by time.Duration
}

func (c *movedClock) Now() time.Time { return time.Now().Add(c.by) }

// A pin stays what it is, whatever becomes of the tag beside it, and is never asked for again.
func TestDigestPins(t *testing.T) {
	t.Parallel()
	w, registry := pulling(t, testbed.RegistryOptions{})
	w.set("POLICY", "always")
	digest := registry.Push(testbed.Pushed{Name: "app:1"})
	for _, pin := range []string{"app@" + digest, "app:1@" + digest} {
		w.set("WEB", registry.Image(pin))
		w.up("web", "other")
		first := w.inspect("web")
		registry.Push(testbed.Pushed{Name: "app:1", Labels: map[string]string{"v": pin}})
		asked := registry.Asked()
		w.merge()
		w.restart()
		w.inSync(SharedPart)
		w.inSync("web")
		require.Equal(t, first.ID, w.inspect("web").ID)
		require.Equal(t, asked, registry.Asked())
	}
	before := w.inspect("web").ID
	w.set("WEB", registry.Image("app@sha256:"+strings.Repeat("0", 64)))
	r := rejected(t, w.try(SharedPart))
	require.Contains(t, r.Message, "does not have it")
	require.Equal(t, before, w.inspect("web").ID)
}

// Whatever keeps an image from this host, nothing that runs is touched, and it says what it is.
func TestImagesThatCannotBeHad(t *testing.T) {
	t.Parallel()
	w, registry := pulling(t, testbed.RegistryOptions{})
	registry.Push(testbed.Pushed{Name: "app:1"})
	registry.Push(testbed.Pushed{Name: "arm:1", Platform: "linux/arm64"})
	registry.Push(testbed.Pushed{Name: "app:2"})
	w.up("web", "other")
	before := w.picture(t)

	w.set("WEB", registry.Image("app:9"))
	r := rejected(t, w.try(SharedPart))
	require.Contains(t, r.Error(), "image "+registry.Image("app:9")+" cannot be pulled: registry "+registry.Address+" does not have it")
	require.Equal(t, untouched, r.PutBack)

	w.set("WEB", registry.Image("arm:1"))
	for range 2 { // the second time as the first
		r = rejected(t, w.try(SharedPart))
		require.Contains(t, r.Message, "image "+registry.Image("arm:1")+" is for linux/arm64, and this host is linux/amd64")
		_, err := w.engine.ImageInspect(t.Context(), registry.Image("arm:1"))
		require.Error(t, err, "what is of no use is not kept")
	}

	w.set("WEB", registry.Image("app:2"))
	w.r.quietLimit = 2 * time.Second
	registry.Hang(true)
	began := time.Now()
	r = rejected(t, w.try(SharedPart))
	require.Equal(t, "the registry "+registry.Address+" takes the connection and sends nothing of image "+registry.Image("app:2")+" for 2s", r.Message)
	require.True(t, r.Again)
	require.Less(t, time.Since(began), 15*time.Second)
	registry.Hang(false)

	registry.Close()
	for range 2 {
		progress := &heard{t: t}
		_, err := w.r.Apply(t.Context(), w.target(SharedPart), w.plan(SharedPart), progress)
		r = rejected(t, err)
		require.Equal(t, "the registry "+registry.Address+" does not answer, and image "+registry.Image("app:2")+" is needed from it; nothing was changed", r.Error())
		require.True(t, r.Again)
		require.Empty(t, progress.begun, "it was in doubt already: nothing is begun, and told, before it answers")
	}
	require.Equal(t, before, w.picture(t))
	registry.Open()
	w.up("web", "other")
}

// A tag that moved to an image for another platform is given back to the one that it was.
func TestMovedTagOfAnotherPlatform(t *testing.T) {
	t.Parallel()
	w, registry := pulling(t, testbed.RegistryOptions{})
	w.set("POLICY", "always")
	registry.Push(testbed.Pushed{Name: "app:1"})
	w.up("web", "other")
	before := w.inspect("web")
	registry.Push(testbed.Pushed{Name: "app:1", Platform: "linux/arm64"})
	w.merge()
	require.NoError(t, w.try(SharedPart))
	w.inSync(SharedPart)
	require.Contains(t, strings.Join(w.observe(SharedPart).Facts.Notes, "\n"), "could not be refreshed, and stays what it is on this host: image "+
		registry.Image("app:1")+" is for linux/arm64, and this host is linux/amd64")
	w.inSync("web")
	require.Equal(t, before.ID, w.inspect("web").ID)

	made, err := w.engine.ImagePull(t.Context(), registry.Image("app:1"), client.ImagePullOptions{}) // by hand
	require.NoError(t, err)
	require.NoError(t, made.Wait(t.Context()))
	w.set("POLICY", "missing")
	require.Equal(t, "pull: on this host for linux/arm64", w.change(SharedPart).Reason)
	require.NotEmpty(t, rejected(t, w.try(SharedPart)).Message)
	require.Equal(t, container.StateRunning, w.inspect("web").State.Status)
	require.Equal(t, before.ID, w.inspect("web").ID)
}

// The service asks for the platform itself: then that one is meant.
func TestPlatformOfAService(t *testing.T) {
	t.Parallel()
	w, registry := pulling(t, testbed.RegistryOptions{})
	registry.Push(testbed.Pushed{Name: "arm:1", Platform: "linux/arm64"})
	w.write(map[string]string{"compose.yaml": `services: {web: {image: "${WEB}", platform: "${PLATFORM:-linux/arm64}"}}`})
	w.set("WEB", registry.Image("arm:1"))
	w.up()
	w.set("PLATFORM", "linux/amd64")
	require.Equal(t, "pull: on this host for linux/arm64", w.change(SharedPart).Reason)
	r := rejected(t, w.try(SharedPart))
	require.Contains(t, r.Error(), "linux/amd64")
}

// Credentials of the manifest, and those of the host: a wrong or a missing one is named, and shown to nobody.
func TestPrivateRegistry(t *testing.T) {
	t.Parallel()
	for name, tokens := range map[string]bool{"password": false, "tokens": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			privateRegistry(t, testbed.RegistryOptions{User: "fleet", Password: "hunter-registry-7", Tokens: tokens})
		})
	}
}

func privateRegistry(t *testing.T, options testbed.RegistryOptions) {
	password := options.Password
	w, registry := pulling(t, options)
	w.spec.Track = "digest"
	clock := &movedClock{}
	w.r.clock = clock
	registry.Push(testbed.Pushed{Name: "app:1"})
	refused := func() string {
		r := rejected(t, w.try(SharedPart))
		require.True(t, r.Again, "they may be given at any time")
		require.NotContains(t, r.Error(), password)
		return r.Message
	}
	require.Contains(t, refused(), "registry "+registry.Address+" does not give out image "+registry.Image("app:1")+" without credentials")
	w.secrets["REGISTRY"] = "wrong" + password
	w.spec.Registries = map[string]RegistryAccount{registry.Address: {Username: desired.Literal("fleet"), Password: w.expr("${REGISTRY}")}}
	require.Contains(t, refused(), "to the account in registries of component stack")
	w.secrets["REGISTRY"] = password
	w.spec.TrackServices = []string{"web"}
	w.up("web", "other")
	registry.Push(testbed.Pushed{Name: "app:1", Labels: map[string]string{"v": "2"}})
	clock.by += time.Hour
	require.Contains(t, w.change(SharedPart).Reason, "its tag moved")
}

// The host's own credentials, where the agent's configuration names them: entries of the file, and helpers, which may fail.
func TestCredentialsOfTheHost(t *testing.T) {
	const password = "hunter:host 8"
	w, registry := pulling(t, testbed.RegistryOptions{User: "fleet", Password: password})
	registry.Push(testbed.Pushed{Name: "app:1"})
	bin := t.TempDir()
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	helper := func(name, script string) {
		require.NoError(t, os.WriteFile(filepath.Join(bin, "docker-credential-"+name), []byte("#!/bin/bash\n"+script), 0o700))
	}
	helper("good", `[ "$1" = get ] && [ "$(cat)" = "`+registry.Address+`" ] && echo '{"ServerURL": "x", "Username": "fleet", "Secret": "`+password+`"}'`)
	helper("none", `echo credentials not found in native keychain; exit 1`)
	helper("bad", `echo "locked: `+password+`"; exit 1`)
	w.r.dockerConfig = filepath.Join(t.TempDir(), "config.json")
	config := func(text string) { require.NoError(t, os.WriteFile(w.r.dockerConfig, []byte(text), 0o600)) }
	entry := base64.StdEncoding.EncodeToString([]byte("fleet:" + password))

	for _, text := range []string{`{`, `{"credsStore": "bad"}`, `{"credsStore": "../bad"}`, `{"credHelpers": {"` + registry.Address + `": "missing"}}`} {
		config(text)
		err := w.try(SharedPart)
		require.ErrorContains(t, err, "credentials for registry "+registry.Address+" from "+w.r.dockerConfig)
		require.NotContains(t, err.Error(), password)
	}
	for _, text := range []string{
		`{"credsStore": "good"}`, `{"credHelpers": {"` + registry.Address + `": "good"}, "credsStore": "bad"}`,
		`{"auths": {"` + registry.Address + `": {"auth": "` + entry + `"}}}`,
		`{"credsStore": "none", "auths": {"https://` + registry.Address + `": {"auth": "` + entry + `"}}}`,
	} {
		config(text)
		require.NoError(t, w.try(SharedPart), text)
		_, err := w.engine.ImageRemove(t.Context(), registry.Image("app:1"), client.ImageRemoveOptions{})
		require.NoError(t, err)
	}
	config(`{"credsStore": "none"}`)
	require.ErrorContains(t, w.try(SharedPart), "without credentials")
}

// Mistakes about images are told at their places.
func TestMistakesAboutImages(t *testing.T) {
	t.Parallel()
	cases := []struct{ component, compose, want string }{
		{"", "services:\n  a:\n    image: x:1\n    pull_policy: every_now\n", "compose.yaml:4:5: "},
		{"", "services:\n  a:\n    image: x:1\n    platform: linux/amd64/v1/x\n", "compose.yaml:4:5: service a: platform"},
		{"", "services:\n  a: {image: \"x:1\", platform: linux/amd64}\n  b: {image: \"x:1\", platform: linux/arm64}\n", "compose.yaml:3:21: service b runs image x:1 for linux/arm64, and service a for linux/amd64"},
		{"      registries: {\"https://ghcr.io\": {username: a, password: b}}\n", "services: {a: {image: \"x:1\"}}\n", "blueprint.yaml:12:39: registries: \"https://ghcr.io\" is no registry"},
		{"      registries: {index.docker.io: {username: a, password: b}}\n", "services: {a: {image: \"x:1\"}}\n", "blueprint.yaml:12:37: registries: images call Docker Hub docker.io"},
		{"      registries: {ghcr.io: {username: a}}\n", "services: {a: {image: \"x:1\"}}\n", "password"},
		{"      registries: {ghcr.io: {username: a, password: \"${nobody.token}\"}}\n", "services: {a: {image: \"x:1\"}}\n", "nobody"},
	}
	for _, c := range cases {
		_, problems := repository(t, c.component, c.compose, nil)
		require.NotEmpty(t, problems, c.want)
		require.Contains(t, problems.Error(), c.want)
	}
	fleet, problems := repository(t, "      registries: {ghcr.io: {username: \"${database.uri}\", password: \"${PASSWORD}\"}}\n", "services: {a: {image: \"x:1\"}}\n", nil)
	require.Empty(t, problems)
	for _, node := range fleet.Instances["deu"].Graph.Nodes {
		if node.ID == "stack/"+SharedPart {
			require.Len(t, node.Needs, 1)
			require.Equal(t, "database", node.Needs[0].On)
		}
	}
}

// A disk that gets full while an image is pulled: named before a container is touched, and tried again when there is room.
func TestTheEnginesDiskGetsFull(t *testing.T) {
	t.Parallel()
	w, registry := newWorld(t, pulledStack), testbed.NewRegistry(t, testbed.RegistryOptions{})
	shared, private := w.engine, testbed.NewPrivateEngineOnDisk(t, "24m")
	w.engine = private.Client()
	w.restart()
	t.Cleanup(func() { // while that engine runs
		w.clean()
		w.engine = shared
	})
	w.set("WEB", registry.Image("app:1"))
	w.write(map[string]string{"compose.yaml": `services: {web: {image: "${WEB}", healthcheck: {test: [CMD, /pulled, "true"], interval: 300ms}}}`})
	registry.Push(testbed.Pushed{Name: "app:1"})
	registry.Push(testbed.Pushed{Name: "app:2", Ballast: 32 << 20})
	w.up("web")
	before := w.inspect("web").ID
	w.set("WEB", registry.Image("app:2"))
	for range 2 {
		r := rejected(t, w.try(SharedPart))
		require.Contains(t, r.Error(), "the engine's disk has no room for image "+registry.Image("app:2"))
		require.True(t, r.Again)
	}
	require.Equal(t, before, w.inspect("web").ID)
	require.True(t, w.inspect("web").State.Running)
	private.Resize("160m")
	w.up("web")
	require.NotEqual(t, before, w.inspect("web").ID)
}
