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
}

// NewFleet makes an empty one.
func NewFleet(tb testing.TB) *Fleet {
	tb.Helper()
	server := gitserver.Start(tb, gitserver.Options{})
	return &Fleet{tb: tb, Server: server, Repo: server.NewRepository(tb, "fleet")}
}

// Merge commits changed files on main and gives the commit; an empty content removes a file.
func (f *Fleet) Merge(message string, files map[string]string) string {
	f.tb.Helper()
	changes := gitserver.Files{}
	for path, content := range files {
		if content == "" {
			content = gitserver.Remove
		}
		changes[path] = content
	}
	return f.Repo.Commit(f.tb, "main", message, changes)
}
