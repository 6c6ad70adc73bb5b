package report

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"dive-agent/state"
)

// Clock is time as it comes in from outside.
type Clock interface {
	Now() time.Time
	// After gives a channel that fires once, after d.
	After(d time.Duration) <-chan time.Time
}

// Options are what a Reporter is made of.
type Options struct {
	Host   string
	Store  state.Store
	Clock  Clock
	Random io.Reader // for the ids of events, and to spread retries
	Log    *slog.Logger

	// Redact takes secrets out of what leaves the host, once more after those
	// who made the status; nil changes nothing.
	Redact func(string) string

	// Branches is where statuses are pushed; nil pushes none.
	Branches *Branches
	Webhooks []Webhook
}

// Reporter brings statuses out of the host. Publish puts them into the outbox
// of the state, Run delivers from there, at least once.
type Reporter struct {
	Options
	ids      *state.IDs
	hooks    map[string]*hook
	couriers []*courier
	away     atomic.Bool // the Git remote did not answer
}

// New checks the options. It opens no connection and starts nothing.
func New(opts Options) (*Reporter, error) {
	if opts.Redact == nil {
		opts.Redact = func(text string) string { return text }
	}
	r := &Reporter{Options: opts, ids: state.NewIDs(opts.Clock.Now, opts.Random), hooks: map[string]*hook{}}
	for _, w := range opts.Webhooks {
		h, err := newHook(w, opts.Clock.Now)
		if err != nil {
			return nil, err
		}
		if r.hooks[w.Name] != nil {
			return nil, fmt.Errorf("webhook %q is configured twice", w.Name)
		}
		r.hooks[w.Name] = h
	}
	if b := opts.Branches; b != nil {
		branches := *b
		branches.setDefaults()
		r.Branches = &branches
		r.couriers = append(r.couriers, &courier{
			kind: state.KindStatus, store: opts.Store, clock: opts.Clock, log: opts.Log,
			deliver: r.push, pause: r.backoff(750 * time.Millisecond),
		})
	}
	r.couriers = append(r.couriers, &courier{
		kind: state.KindWebhook, store: opts.Store, clock: opts.Clock, log: opts.Log,
		deliver: r.call, pause: r.backoff(2 * time.Second), lifetime: webhookLifetime,
	})
	return r, nil
}

// Publish puts a status into the outbox, and the events that follow from it for
// each webhook, in the transaction that records what happened: either both are
// kept or none. A status that is still in the outbox is replaced; of two, only
// the newest matters.
func (r *Reporter) Publish(_ context.Context, tx state.Tx, s *Status, event state.Event) error {
	if r.Branches != nil {
		if err := r.enqueueStatus(tx, s, event); err != nil {
			return err
		}
	}
	if len(r.hooks) == 0 {
		return nil
	}
	return r.enqueueEvents(tx, s, event)
}

// Run delivers until ctx ends, and returns when nothing is on its way any more.
// Deliveries that the end of ctx cut short are made again later.
func (r *Reporter) Run(ctx context.Context) {
	var all sync.WaitGroup
	for _, c := range r.couriers {
		all.Go(func() { c.run(ctx) })
	}
	all.Wait()
}

// Flush tries to deliver everything that is in the outbox now, also what waits
// for its next attempt, and returns what failed. Not to be called while Run
// runs. What fails stays in the outbox.
func (r *Reporter) Flush(ctx context.Context) error {
	var problems []error
	for _, c := range r.couriers {
		problems = append(problems, c.flush(ctx))
	}
	return errors.Join(problems...)
}

// GitAnswers tells whether the Git remote answered the last poll. When it does
// again, statuses that wait for their next attempt are tried at once.
func (r *Reporter) GitAnswers(ctx context.Context, answers bool) error {
	if !answers {
		r.away.Store(true)
		return nil
	}
	if !r.away.Load() {
		return nil
	}
	if err := r.Wake(ctx); err != nil {
		return err
	}
	r.away.Store(false)
	return nil
}

// Wake makes statuses that wait for their next attempt due now.
func (r *Reporter) Wake(ctx context.Context) error {
	now := r.Clock.Now()
	return r.Store.Update(ctx, func(tx state.Tx) error { return tx.Wake(state.KindStatus, "", now) })
}

// longestPause is how long a delivery waits at most for its next attempt.
const longestPause = 15 * time.Minute

// backoff doubles from a first pause up to 15 min, each up to 10 % longer so
// that many hosts do not come at once.
func (r *Reporter) backoff(first time.Duration) func(attempts int) time.Duration {
	return func(attempts int) time.Duration {
		pause := longestPause
		if attempts < 20 {
			pause = min(longestPause, first<<attempts)
		}
		var b [1]byte
		if _, err := io.ReadFull(r.Random, b[:]); err != nil {
			return pause
		}
		return pause + pause/10*time.Duration(b[0])/255
	}
}

// conditionDelivered is the type of the condition that Delivered gives.
const conditionDelivered = "ReportsDelivered"

// Delivered is the condition of an instance's reports: it does not hold while
// the forge refuses the status branch, or an event for a webhook was given up
// within the last three days. Its words change only with that.
func Delivered(r state.Reader, instance string, now time.Time) (Condition, error) {
	c := Condition{Type: conditionDelivered, Status: true}
	dead, err := r.DeadEntries(instance)
	if err != nil {
		return c, err
	}
	for _, e := range dead {
		if e.Kind == state.KindWebhook && now.Sub(e.Died) < webhookLifetime {
			c.Status, c.Reason, c.Since = false, "WebhookGivenUp", e.Died
			c.Message = fmt.Sprintf("events for webhook %s were given up: %s", e.Target, clean(e.Reason))
		}
	}
	waiting, err := r.Outbox(instance)
	if err != nil {
		return c, err
	}
	for _, e := range waiting {
		if e.Kind == state.KindStatus && strings.HasPrefix(e.Reason, refused) {
			c.Status, c.Reason, c.Since = false, "StatusBranchRefused", time.Time{}
			c.Message = clean(e.Reason) + "; allow this agent to write it (branch protection, hooks). It goes on trying"
		}
	}
	return c, nil
}
