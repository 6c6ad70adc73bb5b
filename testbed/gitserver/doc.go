// Package gitserver is a real Git server for tests and the demo: git's own http-backend behind HTTPS with a
// private authority, and git over SSH, both over bare repositories in one folder. It can be stopped and
// started on the same ports, and misbehave on demand (see Fault). It must not know what is kept in the
// repositories.
//
//	server := gitserver.Start(t, gitserver.Options{})
//	repo := server.NewRepository(t, "fleet")
//	first := repo.Commit(t, "main", "Start", gitserver.Files{"fleet.yaml": "..."})
//	... server.URL("fleet"), server.CAFile(), server.Reader ...
package gitserver
