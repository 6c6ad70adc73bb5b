package source_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"dive-agent/gitremote"
	"dive-agent/source"
	"dive-agent/testbed/gitserver"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		followForEver(dir, os.Getenv(crashRemote))
		return
	}
	goleak.VerifyTestMain(m)
}

// bed is a repository behind HTTPS and a folder for a source.
type bed struct {
	*testing.T
	server *gitserver.Server
	repo   *gitserver.Repository
	remote *gitremote.Remote
	dir    string
}

func newBed(t *testing.T) *bed {
	t.Helper()
	server := gitserver.Start(t, gitserver.Options{})
	b := &bed{T: t, server: server, repo: server.NewRepository(t, "fleet"), dir: filepath.Join(t.TempDir(), "state")}
	var err error
	b.remote, err = gitremote.New(gitremote.Config{
		URL: server.URL("fleet"), CAFile: server.CAFile(), Username: server.Reader().Name, Password: server.Reader().Password,
	})
	require.NoError(t, err)
	t.Cleanup(b.remote.Close)
	t.Cleanup(func() { makeWritable(b.dir) })
	return b
}

// makeWritable lets the test's folder be removed by others than root too.
func makeWritable(dir string) {
	_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			_ = os.Chmod(p, 0o700)
		}
		return nil
	})
}

func (b *bed) open(change ...func(*source.Options)) *source.Source {
	b.Helper()
	opts := source.Options{Remote: b.remote, Branch: "main", Dir: b.dir}
	for _, f := range change {
		f(&opts)
	}
	s, err := source.New(opts)
	require.NoError(b, err)
	return s
}

func (b *bed) commit(message string, files gitserver.Files) string {
	b.Helper()
	return b.repo.Commit(b, "main", message, files)
}

// accepted polls a new revision and accepts it.
func (b *bed) accepted(s *source.Source) source.Revision {
	b.Helper()
	rev, changed, err := s.Poll(b.Context())
	require.NoError(b, err)
	require.True(b, changed)
	require.NoError(b, s.Accept(rev))
	return rev
}

// content is a folder as path to content; links are written "-> target", executable files end with "*".
func content(t testing.TB, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		if d.Type()&fs.ModeSymlink != 0 {
			target, err := os.Readlink(p)
			out[rel] = "-> " + target
			return err
		}
		raw, err := os.ReadFile(p)
		if st, _ := d.Info(); st.Mode()&0o100 != 0 {
			rel += "*"
		}
		out[rel] = string(raw)
		return err
	}))
	return out
}
