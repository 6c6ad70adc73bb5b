package keycloak

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/testbed"
)

// lasting is the one that looks and drives.
func (w *world) lasting() *Reconciler {
	if w.agent == nil || w.agentOf != w.tool {
		w.agent, w.agentOf = w.reconciler(), w.tool
	}
	return w.agent
}

func TestAStateIsReadAgainOnceItWasWritten(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), stateName)
	text := func(serial int) []byte {
		return fmt.Appendf(nil, `{"version": 4, "serial": %d, "lineage": "a"}`, serial)
	}
	require.NoError(t, os.WriteFile(name, text(1), 0o600))
	m := &memory{}
	read := func() *tfState {
		t.Helper()
		s, err := m.readState(name)
		require.NoError(t, err)
		return s
	}
	require.NotSame(t, read(), read(), "a file that was written just now may be written once more within a tick of the clock")
	testbed.Eventually(t, 10*time.Second, "the file is at rest", func() error {
		if first, second := read(), read(); first != second {
			return fmt.Errorf("it is read each time")
		}
		return nil
	})

	// The same size, and the same time: as `cp -p` or a state that is put back leaves it.
	info, err := os.Stat(name)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(name, text(2), 0o600))
	require.NoError(t, os.Chtimes(name, info.ModTime(), info.ModTime()))
	require.EqualValues(t, 2, read().Serial)
	require.NoError(t, os.WriteFile(name, nil, 0o600))
	_, err = m.readState(name)
	require.ErrorContains(t, err, "0 bytes")
	require.NoError(t, os.Remove(name))
	_, err = m.readState(name)
	require.ErrorIs(t, err, errNoState)
}

func TestWhatIsKeptIsBounded(t *testing.T) {
	t.Parallel()
	var k kept[int, int]
	for i := range 10 * manyKept {
		k.put(i, i)
		require.LessOrEqual(t, len(k.all), manyKept)
		v, there := k.get(i)
		require.True(t, there)
		require.Equal(t, i, v)
	}
}

// An answer that was asked for ahead counts for the server that gave it and for no other one.
func TestAnAnswerCountsForTheServerThatGaveIt(t *testing.T) {
	t.Parallel()
	asked := make(chan string, 10)
	server := func(status int) string {
		s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			asked <- r.URL.Path
			rw.WriteHeader(status)
		}))
		t.Cleanup(s.Close)
		return s.URL
	}
	has, hasNot := server(http.StatusOK), server(http.StatusNotFound)
	l := &look{Reconciler: &Reconciler{}, work: &workspace{dir: t.TempDir()}, in: &inputs{}, record: &record{Realms: []string{"one"}}}
	require.Nil(t, l.askAhead(t.Context()), "nothing is known yet")
	saw := func(url, realm string) bool {
		t.Helper()
		found, err := newServer(url, "")
		require.NoError(t, err)
		a := l.askAhead(t.Context())
		require.NotNil(t, a)
		defer a.end()
		return a.saw(found, realm)
	}

	l.memory.doors.put(l.work.dir, door{url: has})
	require.True(t, saw(has, "one"))
	require.Equal(t, "/realms/one", <-asked)
	require.False(t, saw(has, "another"), "which nobody asked for")
	require.False(t, saw(hasNot, "one"), "the server is elsewhere now")
	l.memory.doors.put(l.work.dir, door{url: hasNot})
	require.False(t, saw(hasNot, "one"))

	l.in.url = has
	require.Nil(t, l.askAhead(t.Context()), "the manifest names another server")
	l.in.url, l.in.ca = "", "another authority"
	require.Nil(t, l.askAhead(t.Context()))
}
