// Package gitremote talks to one Git remote over HTTPS, SSH or a file path.
//
// It can read a ref ([Remote.Ref]), fetch the objects between two commits into memory ([Remote.Fetch])
// and move one ref with a true lease ([Remote.Push], [Remote.Commit]). Each operation is bounded: in time by
// [Config.Timeout], in bytes on the wire and in bytes after inflation by [Limits]. What it costs does not
// depend on the length of the history: polling a ref is one request with an answer of some 65 bytes,
// and a fetch carries what lies between two commits.
//
// The package speaks protocol version 2 where the server does and falls back to version 0 where it does not.
// It uses no global state: no installed protocols, no default HTTP client, no proxy or SSH settings
// taken from the environment.
//
// It knows nothing of manifests, snapshots, branches that are followed or status: it moves objects and refs.
package gitremote
