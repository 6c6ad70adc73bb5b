package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"

	"dive-agent/secrets"
	"dive-agent/testbed"
	"dive-agent/testbed/agenttest"
)

// withApp adds a user to the three members' set, and a service that holds its password and names no output of the set.
func (s *small) withApp() map[string]string {
	files := edited(s.t, s.trio(testbed.Image(s.t, testbed.Mongod605), "6.0"), trioFile,
		"  secrets:\n", "  secrets:\n    APP_PASSWORD: {generate: {length: 24}}\n",
		"      environment:\n", "      environment:\n        APP_PASSWORD: ${APP_PASSWORD}\n",
		"      keyfile:", "      users: [{name: app, password: \"${APP_PASSWORD}\", roles: [readWrite@dive]}]\n      keyfile:")
	return edited(s.t, files, stackFile, "services:\n", "services:\n  app:\n    image: "+testbed.Image(s.t, testbed.Redis7)+
		"\n    environment: {APP_PASSWORD: \"${APP_PASSWORD}\"}\n    stop_grace_period: 1s\n")
}

// setSecret does what `dive-agent secrets set --replace` does.
func setSecret(t *testing.T, h *agenttest.Host, name, value string) {
	t.Helper()
	setSecretOf(t, h, "one", name, value)
}

func setSecretOf(t *testing.T, h *agenttest.Host, instance, name, value string) {
	t.Helper()
	store, err := secrets.Open(storeFor(h, instance, time.Now))
	require.NoError(t, err)
	require.NoError(t, store.Set(t.Context(), name, []byte(value)))
}

// attempt is one login with what a container's environment held.
type attempt struct {
	at        time.Time
	container string
	refused   bool
}

// logins logs in anew every 50 ms with what the environment of the service's running container holds, until stop.
func (s *small) logins(t *testing.T, service, variable, user string) (stop func() []attempt) {
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	ended := make(chan []attempt, 1)
	go func() {
		var attempts []attempt
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				ended <- attempts
				return
			case <-tick.C:
			}
			if container, password := s.environment(ctx, service, variable); container != "" {
				err := s.logIn(ctx, user, password)
				switch refused := isRefused(err); {
				case err == nil || refused:
					attempts = append(attempts, attempt{time.Now(), container, refused})
				case ctx.Err() == nil:
					t.Logf("log in: %v", err)
				}
			}
		}
	}()
	return func() []attempt { cancel(); return <-ended }
}

// environment gives a variable of the service's running container, and the container's ID.
func (s *small) environment(ctx context.Context, service, variable string) (container, value string) {
	list, err := s.engine.ContainerList(ctx, client.ContainerListOptions{Filters: testbed.OfProject(s.project).Add("label", "com.docker.compose.service="+service)})
	if err != nil || len(list.Items) != 1 {
		return "", ""
	}
	c, err := s.engine.ContainerInspect(ctx, list.Items[0].ID, client.ContainerInspectOptions{})
	if err != nil || !c.Container.State.Running {
		return "", ""
	}
	for _, line := range c.Container.Config.Env {
		if text, ok := strings.CutPrefix(line, variable+"="); ok {
			return c.Container.ID, text
		}
	}
	return "", ""
}

// refusedFor gives the longest time for which one container's password was refused, and the containers that held one
// that never worked.
func refusedFor(attempts []attempt) (longest time.Duration, never []string) {
	since, worked := map[string]time.Time{}, map[string]bool{}
	for _, a := range attempts {
		switch first, is := since[a.container]; {
		case !a.refused:
			worked[a.container] = true
			delete(since, a.container)
		case !is:
			since[a.container] = a.at
			if !worked[a.container] {
				never = append(never, a.container)
			}
		default:
			longest = max(longest, a.at.Sub(first))
		}
	}
	return longest, never
}

// TestAPasswordIsRotatedUnderItsClient: the server takes the new password first, then the service that holds it is made
// anew. No container is ever started with a password that the server does not take.
func TestAPasswordIsRotatedUnderItsClient(t *testing.T) {
	t.Parallel()
	s := newSmall(t)
	h, _ := s.readyWith(s.withApp(), 3*soon, agenttest.HostOptions{})
	before := s.running()
	stop := s.logins(t, "app", "APP_PASSWORD", "app")

	setSecret(t, h, "APP_PASSWORD", "rotated-Secret-7262")
	h.Do("sync", "one", "--wait")
	container, password := s.environment(t.Context(), "app", "APP_PASSWORD")
	require.Equal(t, "rotated-Secret-7262", password)
	require.NoError(t, s.logIn(t.Context(), "app", password))
	attempts := stop()
	longest, never := refusedFor(attempts)
	require.Empty(t, never, "a container was started with a password that the server did not take yet")
	require.Less(t, longest, 10*time.Second, "longer than the restart of the service")
	t.Logf("%d logins, longest time of refused ones %s", len(attempts), longest.Round(time.Millisecond))

	after := s.running()
	require.NotEqual(t, before["app"], container)
	delete(before, "app")
	delete(after, "app")
	require.Equal(t, before, after, "no member was touched")
}

// TestTheAdministratorsPasswordIsRotatedUnderWay: the members go one at a time with the former password in the server, the
// server takes the new one last, and the agent is killed on the way. The former value is gone at the end.
func TestTheAdministratorsPasswordIsRotatedUnderWay(t *testing.T) {
	t.Parallel()
	s := newSmall(t)
	h, _ := s.readyWith(s.withApp(), 3*soon, agenttest.HostOptions{})
	before := s.running()
	stop := s.logins(t, "app", "APP_PASSWORD", "app")

	setSecret(t, h, "MONGO_PASSWORD", "rotated-Secret-of-root")
	former := formerOf(h, "MONGO_PASSWORD")
	require.FileExists(t, former)
	h.Do("sync", "one")
	testbed.Eventually(t, soon, "a member that was made anew", func() error {
		now := s.running()
		for n := 1; n <= 3; n++ {
			service := fmt.Sprintf("mongodb-%d", n)
			if id := now[service]; id != "" && id != before[service] {
				return nil
			}
		}
		return errors.New("none was")
	})
	h.Kill()
	require.FileExists(t, former)
	h.Start()
	testbed.Eventually(t, 2*soon, "a former password that is forgotten", func() error {
		if _, err := os.Stat(former); err == nil {
			return errors.New("it is there")
		}
		return nil
	})
	require.NoError(t, s.logIn(t.Context(), "admin", "rotated-Secret-of-root"))
	attempts := stop()
	for _, a := range attempts {
		require.False(t, a.refused, "the app's password was never touched")
	}
	after := s.running()
	require.Equal(t, before["app"], after["app"])
	for n := 1; n <= 3; n++ {
		service := fmt.Sprintf("mongodb-%d", n)
		require.NotEqual(t, before[service], after[service], "the environment of %s holds the secret", service)
	}
	require.NotContains(t, h.Log(), "rotated-Secret-of-root")
}
