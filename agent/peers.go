package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"dive-agent/desired"
	"dive-agent/hostkeys"
	"dive-agent/published"
	"dive-agent/source/peers"
	"dive-agent/state"
)

// stale is after how long without a sign of life of an instance's agent its values count as old: three heartbeats.
const stale = 3 * heartbeat

// Statuses reads the status branches of other instances; *peers.Reader is one.
type Statuses interface {
	Read(ctx context.Context, list []peers.Peer, taken func(instance string) *peers.Taken) ([]peers.Answer, error)
}

// neighbours are the instances that those of this host import from, as far as their status branches were read.
type neighbours struct {
	reading sync.Mutex // held while the branches are read

	mu     sync.Mutex            // guards what follows; no other lock is taken under it
	known  map[string]*neighbour // nil: not read from the state yet
	unread error                 // why the remote could not be asked; nil: it could
	since  time.Time             // since when
	opened map[string]opened     // what was sealed, by the sealed text
}

// neighbour is one of them: a value, replaced as a whole.
type neighbour struct {
	taken    *peers.Taken
	document *published.Document // what it publishes, nil: nothing
	refused  *peers.Refusal
	err      error // why its branch could not be read
	asked    bool  // since this agent began
}

// opened is what was found in a sealed text.
type opened struct{ text, typ string }

// ReadStatuses reads the status branches of the instances that those of this host import from: one question when nothing moved. What
// it takes is kept in the state first. Instances whose imports changed, or of which something is refused now, get a round.
func (a *Agent) ReadStatuses(ctx context.Context) error {
	if a.Statuses == nil {
		return nil
	}
	a.peers.reading.Lock()
	defer a.peers.reading.Unlock()
	if err := a.recallPeers(ctx); err != nil {
		return err
	}
	answers, err := a.Statuses.Read(ctx, a.importedFrom(), func(name string) *peers.Taken { return a.neighbour(name).taken })
	if ctx.Err() != nil {
		return ctx.Err()
	}
	a.peersUnread(err)
	if err != nil {
		return err
	}
	if err := a.keepAnswers(ctx, answers); err != nil {
		return err
	}
	for _, answer := range answers {
		a.takeAnswer(answer)
	}
	return nil
}

// peersUnread remembers since when the status branches cannot be read; instances that import are told of a change.
func (a *Agent) peersUnread(err error) {
	a.peers.mu.Lock()
	changed := (err == nil) != (a.peers.unread == nil)
	if changed {
		a.peers.since = a.Clock.Now()
	}
	a.peers.unread = err
	a.peers.mu.Unlock()
	if !changed {
		return
	}
	if err != nil {
		a.Log.Warn("the status branches of other instances cannot be read; what was read before is used on", "error", err)
	}
	for _, w := range a.sorted() {
		if len(w.importing()) > 0 {
			w.rouse("imports")
		}
	}
}

// recallPeers reads what was taken before this agent began, once.
func (a *Agent) recallPeers(ctx context.Context) error {
	a.peers.mu.Lock()
	defer a.peers.mu.Unlock()
	if a.peers.known != nil {
		return nil
	}
	known := map[string]*neighbour{}
	err := a.Store.View(ctx, func(r state.Reader) error {
		all, err := r.Imports()
		for _, i := range all {
			var err error
			n := &neighbour{taken: &peers.Taken{
				Instance: i.Instance, Host: i.Host, Commit: i.Commit, Committed: i.Committed, Generation: i.Generation, Content: i.Content, Revision: i.Revision,
			}}
			if n.document, err = documentOf(n.taken); err != nil { // another version of the agent kept it
				a.Log.Warn("what another instance published is read again", "peer", i.Instance, "error", err)
				n.taken.Commit = ""
			}
			known[i.Instance] = n
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("cannot read what other instances published: %w", err)
	}
	a.peers.known = known
	return nil
}

func documentOf(t *peers.Taken) (*published.Document, error) {
	if t == nil || t.Content == nil {
		return nil, nil
	}
	return published.Decode(t.Content)
}

// neighbour is what is known of an instance; never nil.
func (a *Agent) neighbour(name string) *neighbour {
	a.peers.mu.Lock()
	defer a.peers.mu.Unlock()
	if n := a.peers.known[name]; n != nil {
		return n
	}
	return &neighbour{}
}

// importing names the instances that the worker's instance imports from.
func (w *worker) importing() (names []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.assigned == nil || w.removed {
		return nil
	}
	for _, i := range w.assigned.instance.Imports() {
		if !slices.Contains(names, i.Instance) {
			names = append(names, i.Instance)
		}
	}
	return names
}

// importedFrom are the instances that any of this host imports from or tells of in a table, as the revision in force has them.
func (a *Agent) importedFrom() []peers.Peer {
	found := map[string]peers.Peer{}
	for _, w := range a.sorted() {
		names := slices.AppendSeq(w.importing(), maps.Keys(w.tabled()))
		w.mu.Lock()
		assigned := w.assigned
		w.mu.Unlock()
		for _, name := range names {
			other := assigned.fleet.Instances[name]
			if other == nil {
				continue
			}
			peer := peers.Peer{Instance: name, Host: other.Host}
			if host := assigned.fleet.Hosts[other.Host]; host != nil {
				peer.SigningKeys = host.SigningKeys
			}
			found[name] = peer
		}
	}
	var list []peers.Peer
	for _, name := range slices.Sorted(maps.Keys(found)) {
		list = append(list, found[name])
	}
	return list
}

// keepAnswers writes what was taken to the state, before anything of it is used.
func (a *Agent) keepAnswers(ctx context.Context, answers []peers.Answer) error {
	fresh := slices.DeleteFunc(slices.Clone(answers), func(answer peers.Answer) bool { return !answer.Fresh })
	if len(fresh) == 0 {
		return nil
	}
	err := a.Store.Update(ctx, func(tx state.Tx) error {
		for _, answer := range fresh {
			t := answer.Taken
			if err := tx.PutImport(state.Import{
				Instance: t.Instance, Host: t.Host, Commit: t.Commit, Committed: t.Committed, Generation: t.Generation, Content: t.Content, Revision: t.Revision,
			}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("cannot keep what other instances published: %w", err)
	}
	return nil
}

// takeAnswer puts an answer in the place of what was known, and rouses the instances that it makes a difference to.
func (a *Agent) takeAnswer(answer peers.Answer) {
	next := &neighbour{taken: answer.Taken, refused: answer.Refused, err: answer.Err, asked: true}
	before := a.neighbour(answer.Peer.Instance)
	if next.document = before.document; answer.Fresh {
		next.document, _ = documentOf(answer.Taken) // it was read when it was judged
	}
	a.peers.mu.Lock()
	a.peers.known[answer.Peer.Instance] = next
	a.peers.mu.Unlock()
	a.revisionTold(answer.Peer.Instance, before.taken, next.taken)
	trouble := next.trouble() != before.trouble()
	if trouble {
		a.tellTrouble(answer.Peer, next)
	}
	for _, w := range a.sorted() {
		if !slices.Contains(w.importing(), answer.Peer.Instance) {
			continue
		}
		if trouble || next.isStale(a.Clock.Now()) != before.isStale(a.Clock.Now()) || w.importsDiffer(answer.Peer.Instance, before.document, next.document) {
			w.rouse("imports")
		}
	}
}

// trouble tells one thing that is wrong with a neighbour's branch from another, "" when there is none.
func (n *neighbour) trouble() string {
	switch {
	case n.refused != nil:
		return string(n.refused.Reason) + " " + n.refused.Commit
	case n.err != nil:
		return "Unreadable"
	}
	return ""
}

func (n *neighbour) isStale(now time.Time) bool {
	return n.document != nil && now.Sub(n.taken.Committed) > stale
}

func (a *Agent) tellTrouble(peer peers.Peer, n *neighbour) {
	event := Event{Time: a.Clock.Now(), Kind: "imports", State: "Verified", Message: "the status of " + peer.Instance + " counts again"}
	switch {
	case n.refused != nil:
		event.State, event.Message = string(n.refused.Reason), "the status of "+peer.Instance+" is refused: "+n.refused.Message
		a.Log.Warn("the status of another instance is refused; what was read before is used on", "peer", peer.Instance, "reason", n.refused.Reason, "message", n.refused.Message, "next", n.refused.Do)
	case n.err != nil:
		event.State, event.Message = "Unreadable", "the status of "+peer.Instance+" cannot be read: "+n.err.Error()
		a.Log.Warn("the status of another instance cannot be read; what was read before is used on", "peer", peer.Instance, "error", n.err)
	}
	for _, w := range a.sorted() {
		if slices.Contains(w.importing(), peer.Instance) {
			event.Instance = w.name
			a.bus.emit(event)
		}
	}
}

// importsDiffer says whether two documents of an instance differ in what the worker's instance imports.
func (w *worker) importsDiffer(from string, before, after *published.Document) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, i := range w.assigned.instance.Imports() {
		if i.Instance != from {
			continue
		}
		old, now := before.Find(importKey(w.name, i)), after.Find(importKey(w.name, i))
		if (old == nil) != (now == nil) || old != nil && (old.Generation != now.Generation || before.Host != after.Host) {
			return true
		}
	}
	return false
}

func importKey(instance string, i desired.Import) published.Key {
	key := published.Key{Component: i.Component, Name: i.Output}
	if i.PerInstance {
		key.For = instance
	}
	return key
}

// importedValue gives a value that another instance publishes for one of this host. The error says what is missing.
func (a *Agent) importedValue(instance string, i desired.Import) (desired.Value, error) {
	n := a.neighbour(i.Instance)
	output := n.document.Find(importKey(instance, i))
	if output == nil {
		return desired.Value{}, n.missing(i.Instance)
	}
	if output.Sealed == "" {
		return desired.ParsePortable(*output.Value, output.Type == published.JSON, i.Secret)
	}
	if !slices.Contains(output.Readers, a.Host) {
		return desired.Value{}, fmt.Errorf("%s has not sealed it to %s yet", i.Instance, a.Host)
	}
	text, typ, err := a.open(n.document.Place(output), output.Sealed)
	if err != nil {
		return desired.Value{}, err
	}
	return desired.ParsePortable(text, typ == published.JSON, true)
}

// missing says why a neighbour's value is not there.
func (n *neighbour) missing(name string) error {
	switch {
	case n.refused != nil:
		return fmt.Errorf("the status of %s is refused: %s", name, n.refused.Message)
	case n.err != nil:
		return fmt.Errorf("the status of %s cannot be read: %w", name, n.err)
	}
	return errors.New(name + " has not published it yet")
}

// open decrypts what is sealed to this host, each text once.
func (a *Agent) open(place published.Place, sealed string) (text, typ string, err error) {
	id := fmt.Sprintf("%s\n%d\n%s", place, place.Generation, sealed)
	a.peers.mu.Lock()
	before, ok := a.peers.opened[id]
	a.peers.mu.Unlock()
	if ok {
		return before.text, before.typ, nil
	}
	keys, err := hostkeys.Open(a.HostKeys)
	if err != nil {
		return "", "", fmt.Errorf("what is sealed to this host does not open: %w", err)
	}
	if text, typ, err = published.Open(place, sealed, keys.Identities()...); err != nil {
		return "", "", err
	}
	a.peers.mu.Lock()
	defer a.peers.mu.Unlock()
	if a.peers.opened == nil || len(a.peers.opened) >= maxOpened {
		a.peers.opened = map[string]opened{}
	}
	a.peers.opened[id] = opened{text, typ}
	return text, typ, nil
}

// maxOpened is how many opened values are remembered; more are opened again.
const maxOpened = 10_000
