package source_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/gitremote"
	"dive-agent/source"
	"dive-agent/testbed/gitserver"
	"dive-agent/testbed/heap"
)

// TestServerFaultsLeaveTheLastGoodRevision: whatever the server does to the poll or to the fetch, it is an error, soon and in
// little memory, and what was accepted stays.
func TestServerFaultsLeaveTheLastGoodRevision(t *testing.T) {
	for name, test := range map[string]struct {
		fault   gitserver.Fault
		problem []source.Problem
	}{
		"silence":              {gitserver.Fault{Kind: gitserver.Silence}, []source.Problem{source.Unreachable}},
		"hang":                 {gitserver.Fault{Kind: gitserver.Hang}, []source.Problem{source.Unreachable}},
		"trickle":              {gitserver.Fault{Kind: gitserver.Trickle}, []source.Problem{source.Unreachable, source.BadAnswer}},
		"cut":                  {gitserver.Fault{Kind: gitserver.Cut, Bytes: 30}, []source.Problem{source.Unreachable}},
		"clean cut":            {gitserver.Fault{Kind: gitserver.CutClean, Bytes: 30}, []source.Problem{source.Unreachable, source.BadAnswer}},
		"cut in the pack":      {gitserver.Fault{Kind: gitserver.Cut, Bytes: 200}, []source.Problem{source.Unreachable}},
		"clean cut in pack":    {gitserver.Fault{Kind: gitserver.CutClean, Bytes: 200}, []source.Problem{source.Unreachable, source.BadAnswer}},
		"200 with nothing":     {gitserver.Fault{Kind: gitserver.Empty}, []source.Problem{source.BadAnswer}},
		"error page of 300 MB": {gitserver.Fault{Kind: gitserver.Page}, []source.Problem{source.Unreachable}},
		"garbage":              {gitserver.Fault{Kind: gitserver.Garbage}, []source.Problem{source.BadAnswer}},
		"503":                  {gitserver.Fault{Kind: gitserver.Status, Status: 503}, []source.Problem{source.Unreachable}},
		"401":                  {gitserver.Fault{Kind: gitserver.Status, Status: 401}, []source.Problem{source.Unauthorized}},
		"404":                  {gitserver.Fault{Kind: gitserver.Status, Status: 404}, []source.Problem{source.NotFound}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			b.commit("Good", gitserver.Files{"fleet.yaml": "a: 1\n", "dir/b": "2\n"})
			remote, err := gitremote.New(gitremote.Config{
				URL: b.server.URL("fleet"), CAFile: b.server.CAFile(), Timeout: 2 * time.Second,
				Username: b.server.Reader().Name, Password: b.server.Reader().Password,
			})
			require.NoError(t, err)
			defer remote.Close()
			clock := newFakeClock()
			s := b.open(func(o *source.Options) { o.Remote, o.Clock = remote, clock })
			good := b.accepted(s)
			want := content(t, good.Dir)
			next := b.commit("Next", gitserver.Files{"dir/c": "3\n"})
			for range 2 {
				remote.Close() // the next poll connects anew, which is what silence meets
				b.server.SetFault(test.fault)
				grew, took := heap.Peak(func() { err = b.staysWith(s, good) })
				require.Error(t, err)
				require.Contains(t, test.problem, s.State().Problem, "%v", err)
				require.Less(t, grew, uint64(8<<20))
				require.Less(t, took, 5*time.Second)
				require.Equal(t, want, content(t, good.Dir))
				b.server.ClearFault()
			}
			require.Equal(t, next, b.accepted(s).Commit, "it goes on by itself")
		})
	}
}

// TestFaultInTheFetchAlone: the poll is answered, the fetch is not.
func TestFaultInTheFetchAlone(t *testing.T) {
	b := newBed(t)
	b.commit("Good", gitserver.Files{"fleet.yaml": "a: 1\n"})
	s := b.open()
	good := b.accepted(s)
	next := b.commit("Next", gitserver.Files{"fleet.yaml": "a: 2\n"})
	for _, bytes := range []int64{70, 100, 150, 200} { // the answer to a poll has 65 bytes
		for _, kind := range []gitserver.Kind{gitserver.Cut, gitserver.CutClean} {
			b.server.SetFault(gitserver.Fault{Kind: kind, Bytes: bytes})
			require.Error(t, b.staysWith(s, good), "%s after %d bytes", kind, bytes)
			require.Equal(t, next, s.State().Head, "the poll itself was answered")
		}
	}
	b.server.ClearFault()
	require.Equal(t, next, b.accepted(s).Commit)
}

func TestStorageThatFails(t *testing.T) {
	b := newBed(t)
	b.commit("Good", gitserver.Files{"fleet.yaml": "a: 1\n"})
	s := b.open(func(o *source.Options) { o.Dir = "/proc/no/such/folder" })
	_, changed, err := s.Poll(t.Context())
	require.Error(t, err)
	require.False(t, changed)
	require.Equal(t, source.Storage, s.State().Problem)
}
