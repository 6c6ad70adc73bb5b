package gitremote

import "context"

// service is the program at the other side.
type service string

const (
	uploadPack  service = "git-upload-pack"
	receivePack service = "git-receive-pack"
)

// wire is one way to reach a remote. Two shapes exist: HTTPS sends whole requests, SSH and files hold
// a conversation that the server opens with an advertisement.
type wire interface {
	// list asks for refs. request is a whole ls-refs request of version 2.
	list(ctx context.Context, request []byte, prefixes []string) (*advertisement, error)
	// fetch asks for a pack and reads it whole, not yet looked into.
	fetch(ctx context.Context, req fetchRequest) (*packAnswer, error)
	// push sends commands and a pack and returns the server's report.
	push(ctx context.Context, req pushRequest) (*pushReport, error)
	close()
}

// localRefs is implemented by a wire that can look a ref up without asking a server. False means: ask.
type localRefs interface {
	localRef(name string) (string, bool)
}
