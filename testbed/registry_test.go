package testbed

import (
	"context"
	"net/http"
	"testing"

	"github.com/moby/moby/api/pkg/authconfig"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"

	"dive-agent/testbed/pki"
)

// TestTheEngineTakesWhatTheRegistryHas: pulled and pushed by the engine's own hands, over TLS and with a password.
func TestTheEngineTakesWhatTheRegistryHas(t *testing.T) {
	t.Parallel()
	ca, err := pki.New("registry")
	require.NoError(t, err)
	server, err := ca.Server("127.0.0.1")
	require.NoError(t, err)
	engine := Engine(t)
	account := RegistryOptions{User: "fleet", Password: "pa ss:word"}
	secure := account
	secure.TLS = server
	tokens := account
	tokens.Tokens = true
	for name, options := range map[string]RegistryOptions{"open": {}, "private": account, "secure": secure, "tokens": tokens} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := NewRegistry(t, options)
			digest := r.Push(Pushed{Name: "app:1", Command: []string{"fail"}})
			image := r.Image("app:1")
			t.Cleanup(func() {
				_, err := engine.ImageRemove(context.WithoutCancel(t.Context()), image, client.ImageRemoveOptions{Force: true})
				require.NoError(t, err)
			})
			pull := func(auth string) error {
				response, err := engine.ImagePull(t.Context(), image, client.ImagePullOptions{RegistryAuth: auth})
				if err != nil {
					return err
				}
				return response.Wait(t.Context())
			}
			auth, err := authconfig.Encode(registry.AuthConfig{Username: options.User, Password: options.Password})
			require.NoError(t, err)
			if options.User != "" {
				require.Error(t, pull(""))
			}
			require.NoError(t, pull(auth))
			have, err := engine.ImageInspect(t.Context(), image)
			require.NoError(t, err)
			require.Equal(t, []string{r.Image("app@" + digest)}, have.RepoDigests)

			made, err := engine.ContainerCreate(t.Context(), client.ContainerCreateOptions{Name: Prefix(t), Config: &container.Config{Image: image}})
			require.NoError(t, err)
			_, err = engine.ContainerStart(t.Context(), made.ID, client.ContainerStartOptions{})
			require.NoError(t, err)
			waited := engine.ContainerWait(t.Context(), made.ID, client.ContainerWaitOptions{})
			select {
			case ended := <-waited.Result:
				require.EqualValues(t, 3, ended.StatusCode)
			case err := <-waited.Error:
				t.Fatal(err)
			}
			_, err = engine.ContainerRemove(t.Context(), made.ID, client.ContainerRemoveOptions{})
			require.NoError(t, err)

			other := r.Image("copy:1")
			_, err = engine.ImageTag(t.Context(), client.ImageTagOptions{Source: image, Target: other})
			require.NoError(t, err)
			pushed, err := engine.ImagePush(t.Context(), other, client.ImagePushOptions{RegistryAuth: auth})
			require.NoError(t, err)
			require.NoError(t, pushed.Wait(t.Context()))
			_, err = r.do(http.MethodHead, "/v2/copy/manifests/1", "", nil)
			require.NoError(t, err)
			require.NotZero(t, r.Asked()["GET blobs"])
			_, err = engine.ImageRemove(t.Context(), other, client.ImageRemoveOptions{})
			require.NoError(t, err)
			r.Delete("app", digest)
			require.ErrorContains(t, pull(auth), "not found")
		})
	}
}
