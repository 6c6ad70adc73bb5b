package peers_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"

	"dive-agent/gitremote"
	"dive-agent/published"
	"dive-agent/source/peers"
	"dive-agent/testbed/gitserver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// keyPair is an SSH key: who signs with it, and its public half.
func keyPair(t testing.TB) (gitremote.Signer, string) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	block, err := ssh.MarshalPrivateKey(private, "")
	require.NoError(t, err)
	signer, err := gitremote.NewSSHSigner(pem.EncodeToMemory(block))
	require.NoError(t, err)
	key, err := ssh.NewPublicKey(public)
	require.NoError(t, err)
	return signer, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
}

var now = time.Date(2026, 11, 22, 17, 0, 0, 0, time.UTC)

// bed is the fleet's Git server, a reader beside it, and the agent of usa-01, which writes status/usa.
type bed struct {
	*testing.T
	server *gitserver.Server
	repo   *gitserver.Repository
	write  *gitremote.Remote
	reader *peers.Reader
	now    time.Time
	signer gitremote.Signer
	usa    peers.Peer
	taken  map[string]*peers.Taken
}

func newBed(t *testing.T) *bed {
	t.Helper()
	server := gitserver.Start(t, gitserver.Options{})
	b := &bed{T: t, server: server, repo: server.NewRepository(t, "fleet"), now: now, taken: map[string]*peers.Taken{}}
	remote := func(user gitserver.User) *gitremote.Remote {
		r, err := gitremote.New(gitremote.Config{
			URL: server.URL("fleet"), CAFile: server.CAFile(), Username: user.Name, Password: user.Password, Limits: peers.Limits,
		})
		require.NoError(t, err)
		t.Cleanup(r.Close)
		return r
	}
	b.write = remote(server.Writer())
	b.reader = peers.New(peers.Options{Remote: remote(server.Reader()), Now: func() time.Time { return b.now }})
	signer, key := keyPair(t)
	b.signer, b.usa = signer, peers.Peer{Instance: "usa", Host: "usa-01", SigningKeys: []string{key}}
	return b
}

func outputs(generation int64, change ...func(*published.Document)) []byte {
	d := &published.Document{APIVersion: published.APIVersion, Kind: published.Kind, Instance: "usa", Host: "usa-01", Generation: generation}
	text := fmt.Sprintf("https://usa/%d", generation)
	d.Outputs = []published.Output{{Component: "identity", Name: "realm_url", Value: &text, Generation: generation, Since: now}}
	for _, f := range change {
		f(d)
	}
	content, err := d.Encode()
	if err != nil {
		panic(err)
	}
	return content
}

// commit is one status commit.
type commit struct {
	branch  string // default usa
	signer  gitremote.Signer
	at      time.Time
	content []byte // nil: no outputs
	more    map[string][]byte
	message string // default without trailers
}

// push puts a commit on a branch, whatever was there.
func (b *bed) push(c commit) plumbing.Hash {
	b.Helper()
	if c.branch == "" {
		c.branch = "usa"
	}
	if c.at.IsZero() {
		c.at = b.now
	}
	files := map[string][]byte{"README.md": []byte("# usa\n"), "status.yaml": []byte("instance: usa\n")}
	maps.Copy(files, c.more)
	if c.content != nil {
		files[published.File] = c.content
	}
	if c.message == "" {
		c.message = "usa: Ready"
	}
	ref := plumbing.ReferenceName("refs/heads/status/" + c.branch)
	old := plumbing.NewHash(b.repo.Head("status/" + c.branch))
	h, err := b.write.Commit(b.Context(), gitremote.CommitRequest{
		Ref: ref, Old: old, Parent: old, Files: files, Message: c.message, Author: gitremote.Person{Name: "a", Email: "a@b"}, When: c.at, Signer: c.signer,
	})
	require.NoError(b, err)
	return h
}

// read asks for peers, and keeps what is taken.
func (b *bed) read(list ...peers.Peer) []peers.Answer {
	b.Helper()
	if len(list) == 0 {
		list = []peers.Peer{b.usa}
	}
	answers, err := b.reader.Read(b.Context(), list, func(name string) *peers.Taken { return b.taken[name] })
	require.NoError(b, err)
	require.Len(b, answers, len(list))
	for _, a := range answers {
		b.taken[a.Peer.Instance] = a.Taken
	}
	return answers
}

func TestWhatAPeerPublishesIsRead(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	a := b.read()[0]
	require.True(t, a.Missing)
	require.Nil(t, a.Taken)

	first := b.push(commit{signer: b.signer})
	a = b.read()[0]
	require.True(t, a.Fresh)
	require.Equal(t, &peers.Taken{Instance: "usa", Host: "usa-01", Commit: first.String(), Committed: now}, a.Taken, "it publishes nothing yet")

	second := b.push(commit{signer: b.signer, content: outputs(7), at: now.Add(time.Second)})
	a = b.read()[0]
	require.True(t, a.Fresh)
	require.Equal(t, &peers.Taken{
		Instance: "usa", Host: "usa-01", Commit: second.String(), Committed: now.Add(time.Second), Generation: 7, Content: outputs(7),
	}, a.Taken)
	require.False(t, b.read()[0].Fresh)

	b.now = now.Add(15 * time.Minute)
	b.push(commit{signer: b.signer, content: outputs(7)}) // the heartbeat
	a = b.read()[0]
	require.True(t, a.Fresh)
	require.Equal(t, b.now, a.Taken.Committed)
	require.Equal(t, outputs(7), a.Taken.Content)
}

// TestWhatAPeerSaysToHaveApplied is read from the trailers, which are the agent's own words, and from nothing else in the message.
func TestWhatAPeerSaysToHaveApplied(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	revision, other := strings.Repeat("1a2b3c4d", 5), strings.Repeat("0", 40)
	for message, applied := range map[string]string{
		"usa: Ready\n\n[skip ci]\n\nDive-Instance: usa\nDive-Applied: " + revision + "\nDive-Phase: Ready\n": revision,
		"usa: Ready\n\nDive-Applied: " + other + "\n\nDive-Phase: Ready\n":                                   "",
		"usa: Ready\n\nDive-Applied: | nonsense\n":                                                           "",
		"usa: Ready\n\n- Dive-Applied: " + other + "\nDive-Phase: Ready":                                     "",
	} {
		b.push(commit{signer: b.signer, message: message})
		require.Equal(t, applied, b.read()[0].Taken.Revision, message)
	}
}

// TestNothingNewIsOneQuestion, however many peers there are; and one that moved is fetched alone.
func TestNothingNewIsOneQuestion(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	list := []peers.Peer{b.usa}
	for i := range 39 {
		name := fmt.Sprintf("p%02d", i)
		list = append(list, peers.Peer{Instance: name, Host: "usa-01", SigningKeys: b.usa.SigningKeys})
		content := outputs(1, func(d *published.Document) { d.Instance = name })
		b.push(commit{branch: name, signer: b.signer, content: content})
	}
	b.push(commit{signer: b.signer, content: outputs(1)})
	for i, a := range b.read(list...) {
		require.True(t, a.Fresh, list[i].Instance)
		require.Equal(t, list[i], a.Peer)
	}
	requests := func(f func()) int {
		b.server.ResetRequests()
		f()
		return len(b.server.Requests())
	}
	require.Equal(t, 1, requests(func() { b.read(list...) }))
	require.Equal(t, 1, requests(func() { b.read(list[:3]...) }))
	b.push(commit{signer: b.signer, content: outputs(2)})
	require.Equal(t, 2, requests(func() { require.True(t, b.read(list...)[0].Fresh) }))
}

func TestWhatDoesNotCountIsRefusedAndNothingChanges(t *testing.T) {
	t.Parallel()
	stranger, strangersKey := keyPair(t)
	cases := map[string]struct {
		reason peers.Reason
		says   string
		push   func(b *bed)
		peer   func(*peers.Peer)
	}{
		"forged, not signed": {peers.NotSigned, "it is not signed", func(b *bed) { b.push(commit{content: outputs(8)}) }, nil},
		"forged, signed by a stranger": {
			peers.NotSigned, "not trusted (SHA256:", func(b *bed) { b.push(commit{signer: stranger, content: outputs(8)}) }, nil,
		},
		"forged, the signature of another commit": {peers.NotSigned, "signature by usa-01 is wrong", func(b *bed) { b.transplant() }, nil},
		"replayed": {
			peers.Replayed, "is of generation 6, and generation 7 was read before", func(b *bed) { b.reset(commit{signer: b.signer, content: outputs(6)}) }, nil,
		},
		"replayed, from before it published": {peers.Replayed, "has no outputs", func(b *bed) { b.reset(commit{signer: b.signer}) }, nil},
		"two of one generation": {
			peers.Forked, "other outputs", func(b *bed) {
				other := "https://elsewhere"
				b.push(commit{signer: b.signer, content: outputs(7, func(d *published.Document) { d.Outputs[0].Value = &other })})
			}, nil,
		},
		"of another instance of the host": {
			peers.WrongPlace, "was published by fra on usa-01", func(b *bed) {
				b.push(commit{signer: b.signer, content: outputs(8, func(d *published.Document) { d.Instance = "fra" })})
			}, nil,
		},
		"of another host": {
			peers.WrongPlace, "and usa runs on usa-01", func(b *bed) {
				b.push(commit{signer: b.signer, content: outputs(8, func(d *published.Document) { d.Host = "usa-02" })})
			}, nil,
		},
		"of a host that it does not run on any more": {
			peers.WrongPlace, "and usa runs on usa-02", func(b *bed) { b.push(commit{signer: b.signer, content: outputs(8)}) }, func(p *peers.Peer) { p.Host = "usa-02" },
		},
		"of a key that was taken out": {
			peers.NotSigned, "not trusted", func(b *bed) { b.push(commit{signer: b.signer, content: outputs(8)}) }, func(p *peers.Peer) { p.SigningKeys = []string{strangersKey} },
		},
		"without a key": {
			peers.NoSigningKey, "hosts/usa-01.yaml has no signing key", func(b *bed) { b.push(commit{signer: b.signer, content: outputs(8)}) }, func(p *peers.Peer) { p.SigningKeys = nil },
		},
		"of the future": {
			peers.FromTheFuture, "it is of 2026-11-22T18:00:00Z", func(b *bed) { b.push(commit{signer: b.signer, content: outputs(8), at: now.Add(time.Hour)}) }, nil,
		},
		"no document": {peers.Malformed, "no valid YAML", func(b *bed) { b.push(commit{signer: b.signer, content: []byte("a: [")}) }, nil},
		"a large document": {
			peers.Malformed, "allowed are 1048576", func(b *bed) { b.push(commit{signer: b.signer, content: make([]byte, published.MaxBytes+1)}) }, nil,
		},
		"a large branch": {
			peers.TooLarge, "larger than a status branch", func(b *bed) {
				b.push(commit{signer: b.signer, content: outputs(8), more: map[string][]byte{"bomb": make([]byte, peers.Limits.Object+1)}})
			}, nil,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			b.push(commit{signer: b.signer, content: outputs(7)})
			before := b.read()[0].Taken
			require.EqualValues(t, 7, before.Generation)
			c.push(b)
			peer := b.usa
			if c.peer != nil {
				c.peer(&peer)
			}
			for range 2 { // also when it is not fetched again
				a := b.read(peer)[0]
				require.NotNil(t, a.Refused)
				require.NoError(t, a.Err)
				require.Equal(t, c.reason, a.Refused.Reason, a.Refused.Message)
				require.Contains(t, a.Refused.Message, c.says)
				require.NotEmpty(t, a.Refused.Do)
				require.Equal(t, before, a.Taken)
				require.False(t, a.Fresh)
			}
			// and the true one counts again
			b.now = b.now.Add(2 * time.Hour)
			b.push(commit{signer: b.signer, content: outputs(9)})
			a := b.read()[0]
			require.Nil(t, a.Refused)
			require.EqualValues(t, 9, a.Taken.Generation)
		})
	}
}

// transplant puts other files under the signature of a commit that counts.
func (b *bed) transplant() {
	b.Helper()
	b.push(commit{signer: b.signer, content: outputs(7)})
	signed, err := b.repo.Git("cat-file", "commit", "status/usa")
	require.NoError(b, err)
	tree, err := b.repo.Git("rev-parse", "status/usa^{tree}")
	require.NoError(b, err)
	b.push(commit{content: outputs(8)})
	other, err := b.repo.Git("rev-parse", "status/usa^{tree}")
	require.NoError(b, err)
	b.raw(strings.Replace(signed, tree, other, 1) + "\n")
}

// raw puts a commit of any bytes on the branch.
func (b *bed) raw(content string) {
	b.Helper()
	objects := gitremote.NewObjects()
	h := objects.Put(plumbing.CommitObject, []byte(content))
	require.NoError(b, b.write.Push(b.Context(), "refs/heads/status/usa", plumbing.NewHash(b.repo.Head("status/usa")), h, objects))
}

// reset deletes the branch and makes it anew, as who replays an old one does.
func (b *bed) reset(c commit) {
	b.Helper()
	_, err := b.repo.Git("update-ref", "-d", "refs/heads/status/usa")
	require.NoError(b, err)
	b.push(c)
}

func TestWhatHappensToARefusedBranchIsNotFetchedAgain(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.push(commit{content: outputs(8)})
	require.Equal(t, peers.NotSigned, b.read()[0].Refused.Reason)
	b.server.ResetRequests()
	require.Equal(t, peers.NotSigned, b.read()[0].Refused.Reason)
	require.Len(t, b.server.Requests(), 1)

	// another key may make it count
	signer, key := keyPair(t)
	b.push(commit{signer: signer, content: outputs(8)})
	require.Equal(t, peers.NotSigned, b.read()[0].Refused.Reason)
	b.usa.SigningKeys = append(b.usa.SigningKeys, key)
	a := b.read()[0]
	require.Nil(t, a.Refused)
	require.EqualValues(t, 8, a.Taken.Generation)
}

func TestAnOlderCommitDoesNotMakeAPeerYounger(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.push(commit{signer: b.signer, content: outputs(7), at: now})
	b.read()
	b.reset(commit{signer: b.signer, content: outputs(7), at: now.Add(-time.Hour)})
	a := b.read()[0]
	require.Nil(t, a.Refused, "it says the same")
	require.Equal(t, now, a.Taken.Committed)
}

func TestAMoveBeginsAnew(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.push(commit{signer: b.signer, content: outputs(7)})
	b.read()
	signer, key := keyPair(t)
	b.usa.Host, b.usa.SigningKeys = "usa-02", []string{key}
	b.push(commit{signer: signer, content: outputs(5, func(d *published.Document) { d.Host = "usa-02" })})
	a := b.read()[0]
	require.Nil(t, a.Refused)
	require.EqualValues(t, 5, a.Taken.Generation)
	require.Equal(t, "usa-02", a.Taken.Host)
}

func TestAServerThatIsAwayChangesNothing(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.push(commit{signer: b.signer, content: outputs(7)})
	b.read()
	b.push(commit{signer: b.signer, content: outputs(8)})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := b.reader.Read(ctx, []peers.Peer{b.usa}, func(string) *peers.Taken { return nil })
	require.Error(t, err)
	require.EqualValues(t, 8, b.read()[0].Taken.Generation)
}
