package storetest

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/state"
)

func full() state.Instance {
	return state.Instance{
		Name: "deu", Host: "deu-01", MachineID: "m1", Attempted: "5d6e7f8", Applied: "1a2b3c4",
		AppliedTree: "tree", AppliedDigest: "sha256:aa", Phase: "Degraded",
		Rejected:   &state.Rejection{Revision: "5d6e7f8", Reason: "kas exits with 1", Since: at(1)},
		Suspended:  &state.Suspension{By: "root", Reason: "maintenance", Since: at(2)},
		Generation: 7, Updated: at(3),
	}
}

func instanceRoundTrip(t *testing.T, f *fixture) {
	want := full()
	local := want
	local.Updated = clock.Add(3 * time.Second) // another zone, the same moment
	f.update(func(tx state.Tx) error { return tx.PutInstance(local) })
	f.update(func(tx state.Tx) error { return tx.PutInstance(state.Instance{Name: "bare"}) })
	f.view(func(r state.Reader) error {
		got, err := r.Instance("deu")
		require.NoError(t, err)
		require.Equal(t, want, got)
		all, err := r.Instances()
		require.Equal(t, []state.Instance{{Name: "bare"}, want}, all)
		return err
	})
	want.Rejected, want.Suspended = nil, nil
	f.update(func(tx state.Tx) error { return tx.PutInstance(want) })
	f.view(func(r state.Reader) error {
		got, err := r.Instance("deu")
		require.Equal(t, want, got)
		return err
	})
}

func machineStaysBound(t *testing.T, f *fixture) {
	f.update(func(tx state.Tx) error { return tx.PutInstance(state.Instance{Name: "deu"}) })
	f.update(func(tx state.Tx) error { return tx.PutInstance(full()) })
	moved := full()
	moved.MachineID, moved.Phase = "m2", "Ready"
	err := f.Update(f.ctx, func(tx state.Tx) error { return tx.PutInstance(moved) })
	var other *state.MachineError
	require.ErrorAs(t, err, &other)
	require.Equal(t, &state.MachineError{Instance: "deu", Bound: "m1", Found: "m2"}, other)
	moved.MachineID = ""
	f.update(func(tx state.Tx) error { return tx.PutInstance(moved) })
	f.view(func(r state.Reader) error {
		got, err := r.Instance("deu")
		require.Equal(t, "m1", got.MachineID)
		require.Equal(t, "Ready", got.Phase)
		return err
	})
}

func nodeKeepsSince(t *testing.T, f *fixture) {
	put := func(n state.Node) state.Node {
		n.Instance, n.ID = "deu", "stack/mongodb"
		f.update(func(tx state.Tx) error { return tx.PutNode(n) })
		var got []state.Node
		f.view(func(r state.Reader) (err error) {
			got, err = r.Nodes("deu")
			return err
		})
		require.Len(t, got, 1)
		return got[0]
	}
	got := put(state.Node{
		State: "starting", Updated: at(0), Message: "m", Plan: "1 to create",
		Facts: json.RawMessage(`{"image": "mongo"}`), LastDuration: 3 * time.Second,
	})
	require.Equal(t, state.Node{
		Instance: "deu", ID: "stack/mongodb", State: "starting", Updated: at(0), Since: at(0),
		Message: "m", Plan: "1 to create", Facts: json.RawMessage(`{"image": "mongo"}`), LastDuration: 3 * time.Second,
	}, got)

	got = put(state.Node{State: "starting", Updated: at(5)})
	require.Equal(t, at(0), got.Since, "same state")
	require.Equal(t, at(5), got.Updated)
	require.Equal(t, 3*time.Second, got.LastDuration)
	require.Nil(t, got.Facts)

	got = put(state.Node{State: "healthy", Updated: at(9)})
	require.Equal(t, at(9), got.Since, "another state")
	got = put(state.Node{State: "healthy", Updated: at(10), Since: at(4)})
	require.Equal(t, at(4), got.Since, "said by the caller")

	f.update(func(tx state.Tx) error {
		require.NoError(t, tx.PutNode(state.Node{Instance: "deu", ID: "database"}))
		return tx.PutNode(state.Node{Instance: "deu-2", ID: "cache"})
	})
	f.view(func(r state.Reader) error {
		nodes, err := r.Nodes("deu")
		require.Equal(t, []state.Node{{Instance: "deu", ID: "database"}, got}, nodes)
		return err
	})
}

func nodeFactsMustBeJSON(t *testing.T, f *fixture) {
	err := f.Update(f.ctx, func(tx state.Tx) error {
		return tx.PutNode(state.Node{Instance: "deu", ID: "a", Facts: json.RawMessage("{")})
	})
	require.ErrorContains(t, err, "not JSON")
}

func pushedStatus(t *testing.T, f *fixture) {
	want := state.Pushed{Instance: "deu", Digest: "sha256:1", Commit: "abc", Time: at(1)}
	f.update(func(tx state.Tx) error { return tx.PutPushed(state.Pushed{Instance: "deu", Digest: "old"}) })
	f.update(func(tx state.Tx) error { return tx.PutPushed(want) })
	f.view(func(r state.Reader) error {
		got, err := r.Pushed("deu")
		require.Equal(t, want, got)
		return err
	})
}

func valuesByKey(t *testing.T, f *fixture) {
	keys := []string{
		state.Key("deu", "stack/mongodb", "drift"),
		state.Key("deu-2", "stack/mongodb", "drift"),
		state.Key("deu/stack", "mongodb", "drift"),
		state.Key("Deu", "stack/mongodb", "drift"),
	}
	f.update(func(tx state.Tx) error {
		for _, k := range keys {
			require.NoError(t, tx.PutValue(k, []byte("older")))
			require.NoError(t, tx.PutValue(k, []byte(k)))
		}
		return nil
	})
	f.view(func(r state.Reader) error {
		for _, k := range keys {
			got, err := r.Value(k)
			require.NoError(t, err)
			require.Equal(t, k, string(got))
		}
		return nil
	})
}
