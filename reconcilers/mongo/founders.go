package mongo

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"

	"dive-agent/reconcilers"
)

// A set whose members are all new is initiated with all of them at once: one command and one initial sync side by side,
// instead of two reconfigurations and a heartbeat for each (seen: 1.3 s against 10 s for three).

// fellowLimit is how long the other founders may take to accept connections after the first one was seen to be new.
const fellowLimit = 10 * time.Second

// founders are the members that a new set begins with: the initial one, and of the others those that blank names. A
// delayed member joins later: how its delay is called depends on the server, which has no configuration yet.
func (w want) founders(blank func(wantMember) bool) []wantMember {
	first := w.initial()
	list := []wantMember{first}
	for _, m := range w.members {
		if m.host != first.host && m.delay == 0 && blank(m) {
			list = append(list, m)
		}
	}
	return list
}

// seeBlank asks each of the members but the initial one whether it was never in a replica set and has nobody's data. One
// that has just been started gets some seconds to answer. Whoever cannot say so is not blank: it joins later by itself,
// and is judged then.
func (s *session) seeBlank(ctx context.Context, seen []sighting) map[string]bool {
	var mu sync.Mutex
	blank := map[string]bool{}
	var all sync.WaitGroup
	for _, one := range seen {
		if one.member.host == s.want.initial().host || !one.found {
			continue
		}
		all.Go(func() {
			if !one.answers() || !usable(one.hello) {
				if !s.isYoung(one) {
					return
				}
				if _, err := s.await(ctx, fellowLimit, []wantMember{one.member}, usable); err != nil {
					return
				}
			}
			if s.isBlank(ctx, one.member) {
				mu.Lock()
				defer mu.Unlock()
				blank[one.member.host] = true
			}
		})
	}
	all.Wait()
	return blank
}

func (s *session) isBlank(ctx context.Context, m wantMember) bool {
	client, _, err := s.enter(ctx, m)
	if err != nil {
		return false
	}
	if fresh, err := s.neverInSet(ctx, client, m); err != nil || !fresh {
		return false
	}
	collections, known, err := countCollections(ctx, client)
	return err == nil && known && collections == 0
}

// countCollections says how many collections of users the server has. A server before 5.1 does not tell.
func countCollections(ctx context.Context, client *driver.Client) (n int, known bool, err error) {
	var answer struct {
		Catalog *struct {
			Collections int `bson:"collections"`
		} `bson:"catalogStats"`
	}
	err = run(ctx, client, adminDatabase, bson.D{{Key: "serverStatus", Value: 1}, {Key: "repl", Value: 0}, {Key: "metrics", Value: 0}}, &answer)
	if err != nil || answer.Catalog == nil {
		return 0, false, err
	}
	return answer.Catalog.Collections, true, nil
}

// stillBlank makes sure that the other founders, which answer by now, are as new as they were when they were planned.
func (s *session) stillBlank(ctx context.Context, fellows []string) error {
	errs := make([]error, len(fellows))
	var all sync.WaitGroup
	for i, host := range fellows {
		all.Go(func() {
			m, err := s.declared(host)
			if err == nil && !s.isBlank(ctx, m) {
				err = &reconcilers.WaitError{For: "another look at " + host + ", which is not as new as the others", Again: retryEvery}
			}
			errs[i] = err
		})
	}
	all.Wait()
	return errors.Join(ctx.Err(), errors.Join(errs...))
}

// stepUp makes the initial member of a new set of several primary: by itself it would wait for a whole election timeout
// first. The set elects one in any case, so an error is no trouble.
func (s *session) stepUp(ctx context.Context, client *driver.Client) {
	limited, cancel := context.WithTimeout(ctx, electLimit)
	defer cancel()
	for {
		err := run(limited, client, adminDatabase, bson.D{{Key: "replSetStepUp", Value: 1}}, nil)
		if err == nil || pause(limited, stepUpEvery) != nil {
			return
		}
	}
}

// stepUpEvery is the time between two tries: the others must have heard of the set first.
const stepUpEvery = 20 * time.Millisecond

// hostList names the founders for people.
func hostList(members []wantMember) string {
	var hosts []string
	for _, m := range members {
		hosts = append(hosts, m.host)
	}
	if len(hosts) < 2 {
		return strings.Join(hosts, "")
	}
	return strings.Join(hosts[:len(hosts)-1], ", ") + " and " + hosts[len(hosts)-1]
}

// founding is the configuration that a set begins with, in the order of the manifest.
func (w want) founding(founders []wantMember) bson.A {
	var members bson.A
	for _, m := range w.members {
		if !slices.ContainsFunc(founders, func(f wantMember) bool { return f.host == m.host }) {
			continue
		}
		one := bson.D{
			{Key: "_id", Value: len(members)},
			{Key: "host", Value: m.host},
			{Key: "arbiterOnly", Value: m.arbiter},
			{Key: "hidden", Value: m.hidden},
			{Key: "priority", Value: m.priority},
			{Key: "votes", Value: m.votes},
		}
		if len(m.tags) > 0 {
			one = append(one, bson.E{Key: "tags", Value: m.tags})
		}
		members = append(members, one)
	}
	return members
}
