package compose

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/reconcilers"
	"dive-agent/reconcilers/conformance"
	"dive-agent/testbed"
	"dive-agent/testbed/pki"
)

// A tag that moves is found by one HEAD when it is time, planned with both digests for image and service, and brought in.
func TestATagThatMovesIsFollowed(t *testing.T) {
	t.Parallel()
	ca, err := pki.New("registry")
	require.NoError(t, err)
	server, err := ca.Server("127.0.0.1")
	require.NoError(t, err)
	w, registry := pulling(t, testbed.RegistryOptions{User: "fleet", Password: "hunter-9", TLS: server})
	w.spec.Registries = map[string]RegistryAccount{registry.Address: {Username: desired.Literal("fleet"), Password: desired.Literal("hunter-9")}}
	w.spec.Track, w.spec.TrackServices = "digest", []string{"web"}
	w.write(map[string]string{"compose.yaml": strings.Replace(pulledStack, `command: ["${DO:-serve}"], `, "", 1)})
	clock := &movedClock{}
	w.r.clock = clock
	first := registry.Push(testbed.Pushed{Name: "app:1"})
	w.up("web", "other")
	asked := registry.Asked()

	second := registry.Push(testbed.Pushed{Name: "app:1", Labels: map[string]string{"v": "2"}})
	for range 3 {
		w.inSync(SharedPart)
		w.inSync("web")
	}
	require.Equal(t, asked, registry.Asked(), "it is not time yet")

	clock.by += 15 * time.Minute
	change := w.change(SharedPart)
	require.Equal(t, "pull: its tag moved, "+shortDigest(first)+" -> "+shortDigest(second), change.Reason)
	require.Equal(t, []string{"digest on this host: " + first, "digest in the registry: " + second}, change.Details)
	change = w.change("web")
	require.Equal(t, reconcilers.Replace, change.Action)
	require.Equal(t, "the tag of image "+registry.Image("app:1")+" moved, "+shortDigest(first)+" -> "+shortDigest(second), change.Reason)
	require.Empty(t, w.plan("other").Changes)
	for what, n := range registry.Asked() {
		if what != "HEAD manifests" && what != "root" {
			require.Equal(t, asked[what], n, what)
		}
	}
	var wait *reconcilers.WaitError
	before := w.inspect("web")
	require.ErrorAs(t, w.try("web"), &wait, "its image comes first")
	require.Equal(t, before.ID, w.inspect("web").ID)
	w.restart()
	w.r.clock = clock
	w.up("web", "other")
	require.NotEqual(t, before.Image, w.inspect("web").Image)

	// One that does not work is put back, and not tried again until the tag moves on.
	registry.Push(testbed.Pushed{Name: "app:1", Command: []string{"fail"}})
	good := w.inspect("web").Image
	clock.by += 15 * time.Minute
	require.NoError(t, w.try(SharedPart))
	require.Contains(t, rejected(t, w.try("web")).PutBack, "put back to")
	require.Equal(t, good, w.inspect("web").Image)
	clock.by += 15 * time.Minute
	w.inSync(SharedPart)
	w.inSync("web")
	registry.Push(testbed.Pushed{Name: "app:1", Labels: map[string]string{"v": "4"}})
	clock.by += 15 * time.Minute
	w.up("web", "other")
	require.NotEqual(t, good, w.inspect("web").Image)
}

// A registry that cannot be asked changes nothing: it is told once, since when, and asked again in its turn.
func TestARegistryThatCannotBeAsked(t *testing.T) {
	t.Parallel()
	w, registry := pulling(t, testbed.RegistryOptions{})
	w.spec.Track = "digest"
	w.spec.TrackServices = []string{"web"}
	clock := &movedClock{}
	w.r.clock = clock
	registry.Push(testbed.Pushed{Name: "app:1"})
	w.up("web", "other")
	notes := func() string { return strings.Join(w.observe(SharedPart).Facts.Notes, "\n") }
	require.Empty(t, notes())

	registry.Close()
	clock.by += 15 * time.Minute
	w.inSync(SharedPart)
	first := notes()
	require.Contains(t, first, "the registry could not be asked for image "+registry.Image("app:1"))
	clock.by += time.Hour
	require.Equal(t, first, notes())
	w.inSync("web")
	registry.Open()
	require.Equal(t, first, notes())
	clock.by += 15 * time.Minute
	require.Empty(t, notes())

	// It moved to an image for another platform: that is told, and not pulled again at each turn.
	registry.Push(testbed.Pushed{Name: "app:1", Platform: "linux/arm64"})
	clock.by += 15 * time.Minute
	require.NoError(t, w.try(SharedPart))
	w.inSync(SharedPart)
	w.inSync("web")
	clock.by += 15 * time.Minute
	w.inSync(SharedPart)
	require.Contains(t, notes(), "is for linux/arm64")
	registry.Push(testbed.Pushed{Name: "app:1", Labels: map[string]string{"v": "2"}})
	clock.by += 15 * time.Minute
	w.up("web", "other")
	require.Empty(t, notes())
}

// The agent wakes by itself when registries are to be asked.
func TestTrackingWakes(t *testing.T) {
	t.Parallel()
	w, registry := pulling(t, testbed.RegistryOptions{})
	w.spec.Track, w.spec.TrackEvery = "digest", desired.Duration(300*time.Millisecond)
	registry.Push(testbed.Pushed{Name: "app:1"})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	woken := make(chan string, 64)
	go func() { _ = w.r.Watch(ctx, w.target(""), func(part string) { woken <- part }) }()
	require.Empty(t, <-woken)
	for range 2 {
		select {
		case part := <-woken:
			require.Equal(t, SharedPart, part)
		case <-ctx.Done():
			t.Fatal("not woken")
		}
	}
}

// What the engine trusts of a registry is trusted, and nothing else: an authority of its folder, or that it calls insecure.
func TestWhatRegistriesAreTrusted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, twoServices)
	w.r.certificates = t.TempDir()
	ca, err := pki.New("registry")
	require.NoError(t, err)
	server, err := ca.Server("127.0.0.1")
	require.NoError(t, err)
	registry := testbed.NewRegistry(t, testbed.RegistryOptions{TLS: server})
	digest := registry.Push(testbed.Pushed{Name: "app:1"})
	ask := func(insecure bool) error {
		transport, err := w.r.registryTransport(registry.Address, insecure)
		if err != nil {
			return err
		}
		return head(t, transport, "https://"+registry.Address+"/v2/app/manifests/"+digest)
	}
	require.ErrorContains(t, ask(false), "unknown authority")
	require.NoError(t, ask(true))
	dir := filepath.Join(w.r.certificates, registry.Address)
	require.NoError(t, os.Mkdir(dir, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "ca.crt"), ca.PEM(), 0o600))
	require.NoError(t, ask(false))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "ca.crt"), []byte("none"), 0o600))
	require.ErrorContains(t, ask(false), "ca.crt is no certificate")

	info, err := w.engine.Info(t.Context(), client.InfoOptions{})
	require.NoError(t, err)
	require.True(t, allWithin(t.Context(), registry.Address, info.Info.RegistryConfig.InsecureRegistryCIDRs))
	require.False(t, allWithin(t.Context(), "192.0.2.1:5000", info.Info.RegistryConfig.InsecureRegistryCIDRs))
}

func head(t *testing.T, transport http.RoundTripper, address string) error {
	request, err := http.NewRequestWithContext(t.Context(), http.MethodHead, address, nil)
	require.NoError(t, err)
	request.Header.Set("Accept", "application/vnd.docker.distribution.manifest.v2+json")
	response, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	require.Equal(t, http.StatusOK, response.StatusCode)
	return response.Body.Close()
}

// Pulls of two images of a private registry, one of which is for a followed tag: cut off anywhere, they are brought to their end.
func TestConformanceOfPulls(t *testing.T) {
	t.Parallel()
	world := func(t *testing.T) *conformance.World {
		w, registry := pulling(t, testbed.RegistryOptions{User: "fleet", Password: conformanceSecret})
		w.secrets["REGISTRY"] = conformanceSecret
		w.spec.Registries = map[string]RegistryAccount{registry.Address: {Username: desired.Literal("fleet"), Password: w.expr("${REGISTRY}")}}
		w.spec.Track, w.spec.PruneImages = "digest", desired.Duration(time.Hour)
		w.write(map[string]string{"compose.yaml": `services: {web: {image: "${WEB}"}, next: {image: "${NEXT}", pull_policy: daily}}`})
		w.set("NEXT", registry.Image("next:1"))
		registry.Push(testbed.Pushed{Name: "app:1"})
		registry.Push(testbed.Pushed{Name: "next:1", Labels: map[string]string{"is": "next"}})
		return &conformance.World{
			Target: w.target(SharedPart), Secrets: []string{conformanceSecret},
			State: func(t *testing.T) string {
				picture := w.picture(t)
				for _, name := range []string{"app:1", "next:1"} {
					if _, err := w.engine.ImageInspect(t.Context(), registry.Image(name)); err == nil {
						picture += "\nimage " + name
					}
				}
				return picture
			},
			New: func(*testing.T) reconcilers.Reconciler {
				w.restart()
				return w.r
			},
		}
	}
	conformance.Run(t, conformance.Subject{World: world, Limit: time.Minute})
}
