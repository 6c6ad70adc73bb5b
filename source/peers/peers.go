package peers

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"dive-agent/gitremote"
)

// Peer is an instance whose outputs are read, as the merged fleet has it.
type Peer struct {
	Instance    string
	Host        string
	SigningKeys []string // of the host, each "type base64"
}

// Taken is what counts of a peer: what was read last and passed all checks.
type Taken struct {
	Instance string
	Host     string
	Commit   string
	// Committed is the time of the newest commit; the instance's agent writes one every 15 minutes.
	Committed time.Time
	// Generation and Content are of the document (package published); zero and nil when the branch held none.
	Generation int64
	Content    []byte
	// Revision is what the instance says to have applied; empty: it does not say.
	Revision string
}

// Answer is what was found out of one peer.
type Answer struct {
	Peer Peer
	// Taken is what counts from now on, nil when there never was anything; Fresh says that it is not what was given in.
	Taken *Taken
	Fresh bool
	// Refused says why what the branch holds does not count.
	Refused *Refusal
	// Missing says that the peer has no status branch.
	Missing bool
	// Err is why the branch could not be read, although the remote answers.
	Err error
}

// Options of a reader.
type Options struct {
	// Remote that holds the status branches. The caller closes it; its limits bound what one branch may bring.
	Remote *gitremote.Remote
	// Prefix of the branches' names; default "status/".
	Prefix string
	Now    func() time.Time
}

// Limits are enough for any status branch, and small enough for an agent with many peers.
var Limits = gitremote.Limits{Wire: 16 << 20, Inflated: 32 << 20, Object: 8 << 20, Objects: 2000}

const (
	// prefixes is up to how many peers are asked for by name. Beyond, all status branches are listed, some 60 bytes each.
	prefixes = 32
	// fetches is how many branches are fetched at a time.
	fetches = 4
)

// Reader reads the status branches of peers. It is safe for concurrent use.
type Reader struct {
	Options
	mu     sync.Mutex
	judged map[string]verdict // by instance; of heads that were refused
}

// verdict is remembered so that what was refused is not fetched at each poll.
type verdict struct {
	head    plumbing.Hash
	host    string
	keys    string
	refusal *Refusal
}

// New makes a reader; it asks nothing yet.
func New(o Options) *Reader {
	if o.Prefix == "" {
		o.Prefix = "status/"
	}
	return &Reader{Options: o, judged: map[string]verdict{}}
}

// Read asks once where all branches are, and fetches those that moved. taken gives what was taken of an instance before, nil
// when nothing was. The answers are in the order of the peers. An error means that the remote could not be asked, and that
// nothing was found out.
func (r *Reader) Read(ctx context.Context, list []Peer, taken func(instance string) *Taken) ([]Answer, error) {
	if len(list) == 0 {
		return nil, nil
	}
	heads, err := r.Remote.Refs(ctx, r.asked(list)...)
	if err != nil {
		return nil, err
	}
	answers := make([]Answer, len(list))
	slots := make(chan struct{}, fetches)
	var all sync.WaitGroup
	for i, p := range list {
		answer, moved := r.known(p, heads[r.ref(p)], taken(p.Instance))
		if answers[i] = answer; !moved {
			continue
		}
		all.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			answers[i] = r.fetch(ctx, p, heads[r.ref(p)], answers[i].Taken)
		})
	}
	all.Wait()
	return answers, ctx.Err()
}

func (r *Reader) ref(p Peer) plumbing.ReferenceName {
	return plumbing.NewBranchReferenceName(r.Prefix + p.Instance)
}

// asked are the prefixes of the one question.
func (r *Reader) asked(list []Peer) (names []string) {
	if len(list) > prefixes {
		return []string{plumbing.NewBranchReferenceName(r.Prefix).String()}
	}
	for _, p := range list {
		names = append(names, r.ref(p).String())
	}
	return names
}

// known answers without a fetch where it can; else the branch has moved.
func (r *Reader) known(p Peer, head plumbing.Hash, taken *Taken) (a Answer, moved bool) {
	a = Answer{Peer: p, Taken: taken}
	r.mu.Lock()
	before, judged := r.judged[p.Instance]
	r.mu.Unlock()
	switch {
	case len(p.SigningKeys) == 0:
		a.Refused = noKey(p)
	case head.IsZero():
		a.Missing = true
	case taken != nil && taken.Commit == head.String() && taken.Host == p.Host: // whatever became of the key since
	case judged && before.head == head && before.host == p.Host && before.keys == keysOf(p):
		a.Refused = before.refusal
	default:
		return a, true
	}
	return a, false
}

// keysOf tells one list of keys from another.
func keysOf(p Peer) string { return strings.Join(p.SigningKeys, "\n") }

// fetch reads the commit that a branch points to, and judges it.
func (r *Reader) fetch(ctx context.Context, p Peer, head plumbing.Hash, taken *Taken) Answer {
	a := Answer{Peer: p, Taken: taken}
	objects, err := r.Remote.Fetch(ctx, head, nil, 1)
	if err != nil {
		a.Err = err
		if kind, _ := gitremote.KindOf(err); kind != gitremote.TooLarge {
			return a
		}
		a.Err, err = nil, refuse(head, TooLarge, "it is larger than a status branch may be", wayOfForgery(p))
	} else {
		a.Taken, err = judge(objects, p, head, taken, r.Now())
	}
	if errors.As(err, &a.Refused) {
		a.Taken = taken
		if a.Refused.Reason != FromTheFuture { // it may be of the present at the next look
			r.mu.Lock()
			r.judged[p.Instance] = verdict{head, p.Host, keysOf(p), a.Refused}
			r.mu.Unlock()
		}
		return a
	}
	a.Fresh = true
	return a
}

// Refusal says why what a branch holds does not count.
type Refusal struct {
	Commit  string
	Reason  Reason
	Message string
	Do      string // the way out
}

func (e *Refusal) Error() string { return e.Message }

// Reason is a refusal in a word.
type Reason string

// The reasons.
const (
	NoSigningKey  Reason = "NoSigningKey"  // the merged fleet knows no key of the host
	NotSigned     Reason = "NotSigned"     // not signed, or not by a key of the host
	FromTheFuture Reason = "FromTheFuture" // its time is ahead of this host's clock
	WrongPlace    Reason = "WrongPlace"    // it is of another instance or host
	Replayed      Reason = "Replayed"      // older than what was taken
	Forked        Reason = "Forked"        // another content under a generation that was taken
	Malformed     Reason = "Malformed"     // not a document
	TooLarge      Reason = "TooLarge"
)

func refuse(commit plumbing.Hash, reason Reason, message, do string) *Refusal {
	return &Refusal{Commit: commit.String(), Reason: reason, Message: message, Do: do}
}

func noKey(p Peer) *Refusal {
	return refuse(plumbing.ZeroHash, NoSigningKey, fmt.Sprintf("hosts/%s.yaml has no signing key, so nothing that %s publishes can be trusted", p.Host, p.Instance),
		fmt.Sprintf("run dive-agent enroll on %s and merge what it prints as hosts/%s.yaml", p.Host, p.Host))
}

func wayOfForgery(p Peer) string {
	return fmt.Sprintf("find out who else than the agent of %s writes to the status branch of %s; that agent's next status, within 15 min, takes its place", p.Host, p.Instance)
}
