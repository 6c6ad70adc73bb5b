package source_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/source"
	"dive-agent/testbed/gitserver"
)

func TestDamageOnDiskIsRepaired(t *testing.T) {
	for name, damage := range map[string]func(*testing.T, *bed, source.Revision){
		"altered file": func(t *testing.T, _ *bed, rev source.Revision) {
			p := filepath.Join(rev.Dir, "a")
			require.NoError(t, os.Chmod(p, 0o600))
			require.NoError(t, os.WriteFile(p, []byte("X"), 0o600))
		},
		"file too many": func(t *testing.T, _ *bed, rev source.Revision) {
			require.NoError(t, os.Chmod(rev.Dir, 0o700))
			require.NoError(t, os.WriteFile(filepath.Join(rev.Dir, "more"), nil, 0o600))
		},
		"snapshot gone": func(t *testing.T, _ *bed, rev source.Revision) {
			makeWritable(rev.Dir)
			require.NoError(t, os.RemoveAll(rev.Dir))
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			b.commit("First", gitserver.Files{"a": "1", "dir/b": "2"})
			rev := b.accepted(b.open())
			damage(t, b, rev)
			s := b.open()
			_, ok := s.Current()
			require.False(t, ok, "what is not what was accepted is not handed out")
			require.Len(t, s.Notices(), 1)
			again, changed, err := s.Poll(t.Context())
			require.NoError(t, err)
			require.True(t, changed)
			require.Equal(t, rev, again)
			require.Equal(t, map[string]string{"a": "1", "dir/b": "2"}, content(t, again.Dir))
			_, ok = s.Current()
			require.True(t, ok)
			next := b.commit("Second", gitserver.Files{"a": "3"})
			require.Equal(t, next, b.accepted(s).Commit)
		})
	}
}

func TestFileAlteredWhileRunning(t *testing.T) {
	b := newBed(t)
	b.commit("First", gitserver.Files{"a": "1", "dir/b": "2"})
	s := b.open()
	rev := b.accepted(s)
	p := filepath.Join(rev.Dir, "a")
	require.NoError(t, os.Chmod(p, 0o600))
	require.NoError(t, os.WriteFile(p, []byte("altered"), 0o600))
	b.commit("Second", gitserver.Files{"dir/b": "3"})
	next := b.accepted(s)
	require.Equal(t, map[string]string{"a": "1", "dir/b": "3"}, content(t, next.Dir), "an altered file is not carried over")
}

func TestDamagedRecordIsSetAside(t *testing.T) {
	b := newBed(t)
	b.commit("First", gitserver.Files{"a": "1"})
	b.accepted(b.open())
	record := filepath.Join(b.dir, "source.json")
	require.NoError(t, os.WriteFile(record, []byte("{half"), 0o600))
	s := b.open()
	_, ok := s.Current()
	require.False(t, ok)
	require.Len(t, s.Notices(), 1)
	aside, err := filepath.Glob(record + ".damaged-*")
	require.NoError(t, err)
	require.Len(t, aside, 1)
	raw, err := os.ReadFile(aside[0])
	require.NoError(t, err)
	require.Equal(t, "{half", string(raw))
	b.accepted(s)
}
