package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/report"
	"dive-agent/testbed"
)

// before is a proxy before a Keycloak server, which lets each new role take its time.
type before struct {
	*small
	mu    sync.Mutex
	at    *url.URL // the server, once it runs
	slow  time.Duration
	asked int            // new roles
	made  map[string]int // how often the server made a role of a name
}

// newBefore starts it. The server need not run yet.
func (s *small) newBefore(t *testing.T) (*before, string) {
	t.Helper()
	b := &before{small: s, made: map[string]int{}}
	proxy := &httputil.ReverseProxy{
		Transport: testbed.Whole(http.DefaultTransport),
		Rewrite: func(r *httputil.ProxyRequest) {
			if to := b.server(r.In.Context()); to != nil {
				r.SetURL(to)
			}
			r.Out.Host = r.In.Host
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) {
			b.mu.Lock()
			b.at = nil // its container may have another address by now
			b.mu.Unlock()
			w.WriteHeader(http.StatusBadGateway)
		},
		ModifyResponse: func(resp *http.Response) error {
			if isNewRole(resp.Request) && resp.StatusCode == http.StatusCreated {
				b.mu.Lock()
				defer b.mu.Unlock()
				b.made[filepath.Base(resp.Header.Get("Location"))]++
			}
			return nil
		},
	}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if isNewRole(r) {
			b.mu.Lock()
			b.asked++
			slow := b.slow
			b.mu.Unlock()
			select {
			case <-time.After(slow):
			case <-r.Context().Done():
			}
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	return b, front.URL
}

// server is nil as long as it does not run: then nothing is reached.
func (b *before) server(ctx context.Context) *url.URL {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.at == nil {
		running, err := testbed.Running(ctx, b.engine, b.project)
		if c, runs := running["keycloak"]; err == nil && runs && testbed.Address(c) != "" {
			b.at = &url.URL{Scheme: "http", Host: net.JoinHostPort(testbed.Address(c), "8080")}
		}
	}
	return b.at
}

func isNewRole(r *http.Request) bool {
	return r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/roles")
}

// lets each new role take so long from now on.
func (b *before) lets(each time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.slow, b.asked = each, 0
}

func (b *before) begun() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.asked
}

// processesIn are those that work in a folder, or below it.
func processesIn(t *testing.T, dir string) (found []string) {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/cwd")
	require.NoError(t, err)
	for _, link := range links {
		at, err := os.Readlink(link)
		if err != nil || at != dir && !strings.HasPrefix(at, dir+"/") {
			continue
		}
		line, err := os.ReadFile(filepath.Join(filepath.Dir(link), "cmdline"))
		if err == nil {
			found = append(found, fmt.Sprintf("%s in %s: %q", filepath.Base(filepath.Dir(link)), at, line))
		}
	}
	return found
}

// TestTheAgentIsStoppedInTheMiddleOfAnApply: an apply that ends soon is waited for. A longer one is interrupted: its state has
// all but what the server was being asked for at that moment, which is cut off, and the next agent knows of that. Nothing is
// left running, and the rest is made by the next start.
func TestTheAgentIsStoppedInTheMiddleOfAnApply(t *testing.T) {
	t.Parallel()
	const atATime = 2
	r := newRealm(t)
	door, at := r.newBefore(t)
	r.begin(r.files(fmt.Sprintf("      url: %s\n      parallelism: %d\n", at, atATime)))
	folder := filepath.Join(r.host.Dir, "state", "instances", "one", "components", "identity")
	names, usual := []string{"reader", "writer"}, r.roles()
	// stopped merges more roles, and stops the agent once a few of them are begun. It gives the commit, and what the realm and
	// the state have then.
	stopped := func(more int, each time.Duration) (merged string, live, state map[string]string) {
		for range more {
			names = append(names, fmt.Sprintf("role-%02d", len(names)))
		}
		door.lets(each)
		merged = r.Merge("More roles", map[string]string{"instances/one.yaml": r.manifest(", roles: ["+strings.Join(names, ", ")+"]", "")})
		testbed.Eventually(t, soon, "the apply is at work", func() error {
			if begun := door.begun(); begun <= atATime {
				return fmt.Errorf("%d roles were begun", begun)
			}
			return nil
		})
		asked := time.Now()
		r.host.Stop()
		t.Logf("ended %.1f s after SIGTERM, %d of %d roles were begun", time.Since(asked).Seconds(), door.begun(), more)
		require.Empty(t, processesIn(t, r.host.Dir))
		locks, err := filepath.Glob(filepath.Join(folder, ".*.lock.info"))
		require.NoError(t, err)
		require.Empty(t, locks)
		return merged, r.ownRoles(usual), rolesOfState(t, filepath.Join(folder, "terraform.tfstate"))
	}

	merged, live, state := stopped(4, 2*time.Second)
	require.Len(t, live, len(names))
	require.Equal(t, live, state, "the state has what the realm has")
	door.lets(0)
	r.host.Start()
	r.host.AwaitPhase(2*soon, "one", report.Ready, merged)
	require.Zero(t, door.begun())

	merged, live, state = stopped(24, 4*time.Second) // 48 s in all, of which the agent waits for 20
	require.Less(t, len(live), len(names), "it was cut off")
	require.Greater(t, len(state), 2+4+atATime)
	require.Subset(t, live, state)
	require.LessOrEqual(t, len(live)-len(state), atATime, "what was being asked for")
	door.lets(0)
	r.host.Start()
	r.host.AwaitPhase(2*soon, "one", report.Ready, merged)
	all := r.ownRoles(usual)
	require.Len(t, all, len(names))
	require.Equal(t, all, rolesOfState(t, filepath.Join(folder, "terraform.tfstate")))
	require.Subset(t, all, live, "what was made stays what it is")
	rest := len(names) - len(live)
	require.LessOrEqual(t, door.begun(), rest, "only the rest was made")
	require.GreaterOrEqual(t, door.begun(), rest-atATime, "the server may have ended what it was being asked for after we looked")
	for name, times := range door.made {
		require.Equal(t, 1, times, name)
	}
	r.host.Do("plan") // exit code 0: in sync
}

// ownRoles are the ids of the realm's roles by name, but for those that each realm has.
func (r *withRealm) ownRoles(usual map[string]string) map[string]string {
	r.t.Helper()
	own := r.roles()
	for name := range usual {
		if name != "reader" && name != "writer" {
			delete(own, name)
		}
	}
	return own
}

// rolesOfState are the ids of the roles in a state, by name.
func rolesOfState(t *testing.T, file string) map[string]string {
	t.Helper()
	var state struct {
		Resources []struct {
			Type      string
			Instances []struct{ Attributes struct{ ID, Name string } }
		}
	}
	require.NoError(t, json.Unmarshal([]byte(read(t, file)), &state))
	all := map[string]string{}
	for _, resource := range state.Resources {
		for _, one := range resource.Instances {
			if resource.Type == "keycloak_role" {
				all[one.Attributes.Name] = one.Attributes.ID
			}
		}
	}
	return all
}
