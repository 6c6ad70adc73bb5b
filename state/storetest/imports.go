package storetest

import (
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/state"
)

func importsOfOthers(t *testing.T, f *fixture) {
	none := func(r state.Reader) error {
		all, err := r.Imports()
		require.Empty(t, all)
		return err
	}
	f.view(none)
	usa := state.Import{Instance: "usa", Host: "usa-01", Commit: "abc", Committed: at(1), Generation: 7, Content: []byte("kind: Outputs\n"), Revision: "1a2b3c4"}
	fra := state.Import{Instance: "fra", Host: "fra-01", Commit: "def"}
	f.update(func(tx state.Tx) error {
		require.NoError(t, tx.PutImport(state.Import{Instance: "usa", Generation: 6, Content: []byte("older")}))
		require.NoError(t, tx.PutImport(fra))
		return tx.PutImport(usa)
	})
	f.view(func(r state.Reader) error {
		all, err := r.Imports()
		require.Equal(t, []state.Import{fra, usa}, all)
		return err
	})
}
