package mongo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

// A key file is rotated in two rolls over the members: at first every file has the former key and the new one, then the
// new one alone (manual, "Rotate Keys for Replica Sets"). The agent changes the file, its Roller lets members be restarted
// one at a time, and the members themselves are asked how far it is: each logs in whoever has one of the keys with which
// its server was started.

// keyLookLimit is for all members to say which keys they take, side by side.
const keyLookLimit = 10 * time.Second

// keyring are the keys of the members, without white space.
type keyring struct {
	file   []string // of the key file as it is to be
	former []string // of files before it, which it has not
	next   string   // the one that its members are to learn while the file has the former one too; empty: none
}

func keyringOf(x desired.Expr, text string, scope *desired.Scope) keyring {
	k := keyring{file: desired.KeysOf(text)}
	if len(k.file) == 0 {
		return k
	}
	newest := k.file[len(k.file)-1]
	for _, before := range scope.Former() {
		value, err := x.Eval(before)
		if err != nil || !value.Known() || value.Text() == text {
			continue
		}
		keys := desired.KeysOf(value.Text())
		if len(k.file) > 1 && !slices.Contains(keys, newest) {
			k.next = newest
		}
		for _, key := range keys {
			if !slices.Contains(k.all(), key) {
				k.former = append(k.former, key)
			}
		}
	}
	return k
}

// all are the keys of which a member may have any, those of the file first.
func (k keyring) all() []string { return slices.Concat(k.file, k.former) }

// rotates says whether members may run with another file than the one that is to be.
func (k keyring) rotates() bool { return k.next != "" || len(k.former) > 0 }

// sharing is how far a rotation is. The zero sharing is that of a file that every member has.
type sharing struct {
	words   string   // for people; empty: nothing is rotated
	pending []string // hosts that are yet to follow, or do not answer
	task    string   // what they are yet to do
}

// share asks every member which keys it takes. It asks nobody while nothing is rotated.
func (s *session) share(ctx context.Context) sharing {
	k := s.want.keys
	if !k.rotates() {
		return sharing{}
	}
	limited, cancel := context.WithTimeout(ctx, keyLookLimit)
	defer cancel()
	followed := make([]bool, len(s.want.members))
	var all sync.WaitGroup
	for i, m := range s.want.members {
		all.Go(func() { followed[i] = s.follows(limited, m) })
	}
	all.Wait()
	out := sharing{task: "restarted without the former key"}
	for i, m := range s.want.members {
		if !followed[i] {
			out.pending = append(out.pending, m.host)
		}
	}
	word := "let go of the former key"
	if k.next != "" {
		word, out.task = "know the new key", "restarted with the new key"
	}
	total := len(s.want.members)
	out.words = fmt.Sprintf("keyfile: %d of %d members %s", total-len(out.pending), total, word)
	return out
}

// follows says whether a member was seen to be where the rotation wants it: to take the new key, or to take none of
// the former ones.
func (s *session) follows(ctx context.Context, m wantMember) bool {
	if next := s.want.keys.next; next != "" {
		takes, err := s.takesAny(ctx, m, next)
		if err == nil && !takes {
			takes, err = s.ignoresKeys(ctx, m)
		}
		return err == nil && takes
	}
	takes, err := s.takesAny(ctx, m, s.want.keys.former...)
	return err == nil && !takes
}

// takesAny asks the member's server by logging in as one of its fellows. The error is that of a server that did not answer.
func (s *session) takesAny(ctx context.Context, m wantMember, keys ...string) (bool, error) {
	look := clientKey{s.component, m.host, "look"}
	defer s.r.pool.forget(look)
	client, err := s.logInAny(ctx, m, look.user, keyLogins(keys)...)
	if isCredentials(err) {
		return false, nil
	}
	return client != nil, err
}

// notes tell of a rotation that is going on.
func (h sharing) notes() []string {
	switch {
	case h.words == "":
		return nil
	case len(h.pending) == 0:
		return []string{h.words}
	}
	return []string{h.words + "; not yet: " + strings.Join(h.pending, ", ")}
}

// trouble is what a rotation waits for: members that nobody has restarted yet.
func (h sharing) trouble() error {
	if len(h.pending) == 0 {
		return nil
	}
	return &reconcilers.WaitError{For: fmt.Sprintf("%s to be %s (%s)", strings.Join(h.pending, ", "), h.task, h.words), Again: 2 * time.Second}
}

// keepsKey refuses to have a member restarted with a key file of which another member takes no key: neither would accept
// the other any more. A set whose servers ask for no key is none of its business.
func (s *session) keepsKey(ctx context.Context, m wantMember) error {
	for _, other := range s.want.members {
		if other.host == m.host || len(s.want.keys.file) == 0 {
			continue
		}
		shared, err := s.sharesKey(ctx, other)
		if err != nil {
			return err
		}
		if !shared {
			return s.keyNotShared(m.host, other.host)
		}
	}
	return nil
}

func (s *session) sharesKey(ctx context.Context, other wantMember) (bool, error) {
	takes, err := s.takesAny(ctx, other, s.want.keys.file...)
	var wait *reconcilers.WaitError
	switch {
	case errors.As(err, &wait):
		return true, nil // its service runs elsewhere, or is not there: whether all others serve was asked before
	case err != nil || takes:
		return takes, err
	}
	return s.ignoresKeys(ctx, other)
}

// ignoresKeys says whether a member's server lets nobody in by a key: it asks for none, or for certificates alone.
func (s *session) ignoresKeys(ctx context.Context, m wantMember) (bool, error) {
	client, err := s.logIn(ctx, m, login{})
	if err != nil {
		return false, err
	}
	if _, err = countUsers(ctx, client); err == nil {
		return true, nil
	}
	if client, err = s.anyLogin(ctx, m); isCredentials(err) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	have, err := getModes(ctx, client)
	return have.auth == authModes[len(authModes)-1], err
}

func (s *session) keyNotShared(host, other string) error {
	name := "the secret"
	if keys := s.spec().SharedKeys(); len(keys) > 0 {
		name = keys[0]
	}
	return &reconcilers.BlockedError{
		Reason: "KeyfileNotShared",
		Message: fmt.Sprintf("%s is to be restarted with a key file of which %s takes no key: they would not accept each other any more. It was left as it is",
			host, other),
		Do: fmt.Sprintf("Put the key back that the members run with (%s), and give them another one with dive-agent secrets rotate, or secrets set where it is provided: they learn it beside the former one", name),
	}
}

// SharedKeys is desired.KeySharer.
func (s *Spec) SharedKeys() []string {
	if name := s.Keyfile.Name(); name != "" {
		return []string{name}
	}
	return nil
}
