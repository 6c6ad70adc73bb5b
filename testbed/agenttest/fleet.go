package agenttest

import (
	"testing"

	"dive-agent/testbed/gitserver"
)

// Fleet is a fleet repository behind a Git server of its own.
type Fleet struct {
	tb     testing.TB
	Server *gitserver.Server
	Repo   *gitserver.Repository
	files  gitserver.Files
}

// NewFleet makes an empty one.
func NewFleet(tb testing.TB) *Fleet {
	tb.Helper()
	server := gitserver.Start(tb, gitserver.Options{})
	return &Fleet{tb: tb, Server: server, Repo: server.NewRepository(tb, "fleet"), files: gitserver.Files{}}
}

// Set changes files; an empty content removes one.
func (f *Fleet) Set(files map[string]string) *Fleet {
	for path, content := range files {
		if content == "" {
			delete(f.files, path)
		} else {
			f.files[path] = content
		}
	}
	return f
}

// Merge commits all files on main and gives the commit.
func (f *Fleet) Merge(message string) string {
	f.tb.Helper()
	return f.Repo.Commit(f.tb, "main", message, f.files)
}
