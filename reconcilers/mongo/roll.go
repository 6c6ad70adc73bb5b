package mongo

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"

	"dive-agent/reconcilers"
)

// How a member takes its turn to be restarted.
const (
	rollAgain   = 250 * time.Millisecond // between two looks at members that must be ready first
	backLimit   = 10 * time.Minute       // for a restarted member to serve and catch up; the next pass goes on waiting
	backSlice   = 2 * time.Second        // between two looks at why it does not
	ownLimit    = 2 * time.Second        // for a member to answer: one that is slower is slow
	lagLimit    = 10 * time.Second       // more than a heartbeat tells late
	quiesceTime = 500 * time.Millisecond // a member from 5.0 on goes on serving so long after SIGTERM; its default, 15 s, is longer than most containers are given
)

var _ reconcilers.Roller = (*Reconciler)(nil)

// Turn lets members be restarted one at a time, as long as all the others serve and have caught up, secondaries first. A
// primary is asked to step down when only it is left. A member that does not serve has nothing to lose and may go at once.
// Where members are on several hosts it is theirs in turn too (turns.go).
func (r *Reconciler) Turn(ctx context.Context, t reconcilers.Target, turn reconcilers.Turn, progress reconcilers.Progress) error {
	s, err := r.open(t)
	if err != nil {
		return err
	}
	m, ok := s.want.runBy(turn.Part)
	if !ok {
		return nil
	}
	return awaited(ctx, s.giveTurn(ctx, m, turn, progress))
}

func (s *session) giveTurn(ctx context.Context, m wantMember, turn reconcilers.Turn, progress reconcilers.Progress) error {
	own := s.ask(ctx, m)
	if !own.answers() || !own.hello.serves(s.want.set) {
		return s.turnOfIdle(ctx, m)
	}
	if s.want.unknown != "" {
		return &reconcilers.WaitError{For: s.want.unknown}
	}
	primary, err := s.primary(ctx)
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, primaryLimit)
	defer cancel()
	client, isRoot, err := s.enter(limited, primary)
	if err != nil {
		return err
	}
	if err := s.mayRunAll(limited, client, m, turn.Changes); err != nil {
		return err
	}
	if err := s.mayConnectAll(limited, m, turn.Changes); err != nil {
		return err
	}
	others, err := s.othersReady(limited, client, m)
	if err != nil {
		return err
	}
	if err := s.keepsKey(limited, m); err != nil {
		return err
	}
	leads := primary.host == m.host && others > 0
	if leads {
		if waiting := s.serving(limited, turn.Others); len(waiting) > 0 {
			return &reconcilers.WaitError{For: strings.Join(waiting, ", ") + " to go first: " + m.host + " is the primary", Again: rollAgain}
		}
	}
	if isRoot {
		if err := s.proveRoot(limited, primary); err != nil {
			return err
		}
	}
	if err := s.turnAmongHosts(limited, client, m, leads); err != nil {
		return err
	}
	if leads {
		if err := s.yield(limited, m, progress); err != nil {
			return err
		}
	}
	if err := s.shortenQuiesce(limited, m); err != nil {
		return err
	}
	if others > 1 {
		s.refeed(ctx, m, progress)
	}
	return ctx.Err()
}

// mayRunAll judges the images that the part is to run, before anything is touched.
func (s *session) mayRunAll(ctx context.Context, client *driver.Client, m wantMember, changes []reconcilers.Change) error {
	fcv, err := getFCV(ctx, client)
	if err != nil {
		return err
	}
	for _, change := range changes {
		if err := s.mayRun(m, change.Image, fcv); err != nil {
			return err
		}
	}
	return nil
}

// Back waits until the member serves again and has all that the primary had when it came back.
func (r *Reconciler) Back(ctx context.Context, t reconcilers.Target, turn reconcilers.Turn, progress reconcilers.Progress) error {
	s, err := r.open(t)
	if err != nil {
		return err
	}
	m, ok := s.want.runBy(turn.Part)
	if !ok || s.memory.ReplicaSetID == "" {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, backLimit)
	defer cancel()
	began := r.deps.Clock.Now()
	serves := func(h hello) bool { return h.serves(s.want.set) }
	for {
		seen, err := s.await(limited, backSlice, []wantMember{m}, serves)
		if err == nil {
			if err := s.settled(limited, m, progress); err != nil {
				return err
			}
			return awaited(ctx, s.endTurn(limited, m))
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if limited.Err() != nil || seen.hello.OK == 1 && seen.hello.SetName == "" && r.deps.Clock.Now().Sub(began) > strangerLimit {
			return &reconcilers.WaitError{For: m.host + " to serve again", Again: syncSlice, Err: err}
		}
		state, err := s.seenByPrimary(limited, m)
		if isBlocked(err) {
			return err
		}
		progress.Say("%s is back for %.0f s and does not serve yet (the primary says %s)", m.host, r.deps.Clock.Now().Sub(began).Seconds(), state)
	}
}

// settled waits until a member that serves again has caught up, and tells of what its restart was for.
func (s *session) settled(ctx context.Context, m wantMember, progress reconcilers.Progress) error {
	if err := s.caughtUp(ctx, m); err != nil {
		return err
	}
	if shared := s.share(ctx); shared.words != "" {
		progress.Say("%s", shared.words)
	}
	return nil
}

func (s *session) delay(host string) int {
	m, _ := s.want.member(host)
	return m.delay
}

// runBy finds the member that a service runs.
func (w want) runBy(service string) (wantMember, bool) {
	for _, m := range w.members {
		if m.service == service {
			return m, true
		}
	}
	return wantMember{}, false
}

// othersReady counts the members beside m. The error is a WaitError when one of them does not serve, or is behind by
// more than a heartbeat tells.
func (s *session) othersReady(ctx context.Context, client *driver.Client, m wantMember) (int, error) {
	st, err := getStatus(ctx, client)
	if err != nil {
		return 0, fmt.Errorf("read the replica set's status: %w", err)
	}
	var newest time.Time
	for _, one := range st.Members {
		if one.State == statePrimary {
			newest = one.Optime
		}
	}
	others := 0
	var waits []string
	own := s.askOthers(ctx, m)
	clocks := clocksOff(slices.Collect(maps.Values(own)))
	for _, one := range st.Members {
		if one.Host == m.host {
			continue
		}
		others++
		word, asked := own[one.Host]
		switch {
		case asked && (!word.answers() || !word.hello.serves(s.want.set)):
			waits = append(waits, one.Host+" to serve (it does not say so itself within "+ownLimit.String()+")")
		case !one.serves():
			waits = append(waits, fmt.Sprintf("%s to serve (is %s)", one.Host, strings.ToLower(one.StateName)))
		case one.State == stateSecondary && newest.Sub(one.Optime) > lagLimit && s.delay(one.Host) == 0:
			waits = append(waits, fmt.Sprintf("%s to catch up (is %.0f s behind)", one.Host, newest.Sub(one.Optime).Seconds()))
		default:
			if words := s.ails(one, newest, clocks[one.Host]); words != "" {
				waits = append(waits, one.Host+" to do well (it "+words+")")
			}
		}
	}
	if len(waits) > 0 {
		return others, &reconcilers.WaitError{For: strings.Join(waits, ", ") + " before " + m.host + " is restarted", Again: rollAgain}
	}
	return others, nil
}

// askOthers asks each other member itself: the primary takes a frozen or slow one for a good one until a heartbeat is
// overdue, ten seconds by default.
func (s *session) askOthers(ctx context.Context, m wantMember) map[string]sighting {
	limited, cancel := context.WithTimeout(ctx, ownLimit)
	defer cancel()
	words := map[string]sighting{}
	for _, one := range s.look(limited) {
		if one.member.host != m.host {
			words[one.member.host] = one
		}
	}
	return words
}

// serving picks the services whose members serve.
func (s *session) serving(ctx context.Context, services []string) []string {
	var list []string
	for _, service := range services {
		m, ok := s.want.runBy(service)
		if !ok {
			continue
		}
		if seen := s.ask(ctx, m); seen.answers() && seen.hello.serves(s.want.set) && !seen.hello.IsWritablePrimary {
			list = append(list, m.host)
		}
	}
	return list
}

// yield makes another member primary, as a recorded change. A set in which no other may become primary goes without.
func (s *session) yield(ctx context.Context, m wantMember, progress reconcilers.Progress) error {
	heirs := false
	for _, one := range s.want.members {
		heirs = heirs || one.host != m.host && one.electable()
	}
	if !heirs {
		return nil
	}
	change := reconcilers.Change{Action: reconcilers.Run, Address: "member " + m.host, Reason: "step down before it is restarted"}
	if err := progress.Begin(ctx, change); err != nil {
		return err
	}
	err := s.stepDown(ctx, m.host)
	progress.End(change, err)
	return err
}

// shortenQuiesce lets the member end soon after SIGTERM. Servers before 5.0 do not know the parameter, and need it not.
func (s *session) shortenQuiesce(ctx context.Context, m wantMember) error {
	client, err := s.logInRoot(ctx, m)
	if isCredentials(err) && m.delay > 0 {
		return nil // it learns of a changed password when its delay is over
	}
	if isCredentials(err) {
		return s.refusedRoot(ctx, m)
	}
	if err != nil {
		return err
	}
	err = run(ctx, client, adminDatabase, bson.D{
		{Key: "setParameter", Value: 1}, {Key: "shutdownTimeoutMillisForSignaledShutdown", Value: quiesceTime.Milliseconds()},
	}, nil)
	if isRefusal(err) { // 4.4 knows no such time, and needs none
		return nil
	}
	return err
}

// caughtUp waits until the member has what the primary has now.
func (s *session) caughtUp(ctx context.Context, m wantMember) error {
	_, err := s.awaitData(ctx, m, func(has, goal bson.Timestamp) bool { return m.delay > 0 || !has.Before(goal) })
	if err != nil {
		return errors.Join(context.Cause(ctx), &reconcilers.WaitError{For: m.host + " to catch up", Again: time.Second})
	}
	return nil
}
