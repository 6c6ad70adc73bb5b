package registration

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"dive-agent/reconcilers"
)

// quietPoll is how often a spoke asks the hub once it is approved and has a token. A suspension is seen within it, and what is
// wrong with the token is found and mended within the 30 s between two heartbeats.
const quietPoll = 20 * time.Second

// Watch asks the hub for the spoke's status and wakes the component when it changes: often while the approval is awaited,
// seldom afterwards, and right when the token ends. A hub that goes away and comes back wakes it as well, and one that does not
// know the token any more.
func (r *Spoke) Watch(ctx context.Context, t reconcilers.Target, wake func(part string)) error {
	spec := t.Component.Spec.(*SpokeSpec)
	client, want, err := r.watched(t, spec)
	if err != nil {
		return err
	}
	return follow(ctx, r.deps.Clock, wake, func() (string, time.Duration) {
		live, err := client.status(ctx, want.code)
		word := wordOf(live, err)
		if k, err := readKept(t.Dir); err == nil && client.dead(ctx, live, r.deps.Clock.Now(), k.issued()) != nil {
			word += " unknown token"
		}
		return word, r.pause(spec, live)
	})
}

// follow asks, pauses and asks again until the context ends, and wakes the component at each answer that differs from the
// one before it. The first one wakes nobody: a round is what started the watch.
func follow(ctx context.Context, clock reconcilers.Clock, wake func(part string), ask func() (word string, pause time.Duration)) error {
	for last := ""; ; {
		word, pause := ask()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if word != last && last != "" {
			wake("")
		}
		last = word
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-clock.After(pause):
		}
	}
}

func (r *Spoke) watched(t reconcilers.Target, spec *SpokeSpec) (*hubClient, declared, error) {
	want, err := spec.declare(t.Instance, t.Scope)
	var wait *reconcilers.WaitError
	if err != nil && (!errors.As(err, &wait) || want.code == "") {
		return nil, want, err
	}
	client, err := spec.Hub.open(t, &r.clients, "")
	return client, want, err
}

// pause is the time until the next question. The status of an approved spoke hands out a token; asking for it seldom is
// a matter of manners, too. Before the token's end the hub gives no other one.
func (r *Spoke) pause(spec *SpokeSpec, live *registered) time.Duration {
	poll := pollOf(spec.Poll)
	switch {
	case live == nil:
		return poll
	case live.Status != approved:
		return live.poll(spec, r.deps.Clock.Now())
	}
	next := max(poll, quietPoll)
	if live.Token != nil {
		if left := live.Token.ExpiresAt.Sub(r.deps.Clock.Now()); left > 0 {
			return min(next, left+minPoll)
		}
		return poll // the hub's clock is behind ours
	}
	return next
}

// wordOf is what matters of an answer.
func wordOf(live *registered, err error) string {
	switch {
	case err != nil:
		return "away"
	case live == nil:
		return "unknown"
	case live.Token == nil:
		return live.SpokeID + " " + live.Status
	}
	sum := sha256.Sum256([]byte(live.Token.Token))
	return live.SpokeID + " " + live.Status + " " + hex.EncodeToString(sum[:8])
}

// Watch asks the hub for its records and wakes the component when one comes, goes or changes in what a verdict rests on;
// heartbeats do when they stop or begin. A hub that goes away and comes back wakes it as well.
func (r *Approvals) Watch(ctx context.Context, t reconcilers.Target, wake func(part string)) error {
	client, err := r.open(t)
	if err != nil {
		return err
	}
	poll := pollOf(t.Component.Spec.(*ApprovalsSpec).Poll)
	return follow(ctx, r.deps.Clock, wake, func() (string, time.Duration) {
		records, err := client.spokes(ctx)
		return wordOfAll(records, err, r.deps.Clock.Now()) + r.due(t.Dir), r.pause(t.Dir, poll)
	})
}

// absence is which spokes are declared and not registered, and since when it is these.
type absence struct {
	codes string
	since time.Time
}

// awaits remembers which declared spokes are not registered yet.
func (r *Approvals) awaits(dir string, codes []string) {
	next := absence{strings.Join(codes, " "), r.deps.Clock.Now()}
	if last, ok := r.absences.Load(dir); !ok || last.(absence).codes != next.codes {
		r.absences.Store(dir, next)
	}
}

// pause is the time until the next question: short right after a merge that declares a spoke, which registers any moment.
func (r *Approvals) pause(dir string, poll time.Duration) time.Duration {
	if last, ok := r.absences.Load(dir); ok && last.(absence).codes != "" {
		if age := r.deps.Clock.Now().Sub(last.(absence).since); age >= 0 && age < freshFor {
			return min(minPoll, poll)
		}
	}
	return poll
}

// due is a word when a token is to be renewed.
func (r *Approvals) due(dir string) string {
	if next, ok := r.renewals.Load(dir); ok && !next.(time.Time).IsZero() && !r.deps.Clock.Now().Before(next.(time.Time)) {
		return "due " + next.(time.Time).String()
	}
	return ""
}

func wordOfAll(records []*record, err error, now time.Time) string {
	if err != nil {
		return "away"
	}
	records = slices.Clone(records)
	slices.SortFunc(records, func(a, b *record) int { return cmp.Compare(a.SpokeID, b.SpokeID) })
	var word strings.Builder
	for _, r := range records {
		fmt.Fprintf(&word, "%s %s %s %s\n", r.SpokeID, r.Status, r.grant(), r.alive(now))
	}
	return "records\n" + word.String()
}
