package mongo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"

	"dive-agent/reconcilers"
)

// stepDownSeconds is how long a stepped-down primary does not stand again; catchUpSeconds how long it waits for an
// electable secondary before it gives up. The first must be the longer one.
const (
	stepDownSeconds = 60
	catchUpSeconds  = 10
)

// addMember adds a member in the step's shape. It must be a mongod of this set's key, without a set of its own.
func (s *session) addMember(ctx context.Context, what step, progress reconcilers.Progress) error {
	host := what.host
	m, err := s.declared(host)
	if err != nil {
		return err
	}
	h, err := s.waitUsable(ctx, m, progress)
	if err != nil {
		return err
	}
	for _, other := range s.want.members { // a server that cannot start is told of before anybody joins
		if _, err := find(ctx, s.target.Services, other); err != nil && ctx.Err() == nil {
			return &reconcilers.WaitError{For: other.host + " to run before " + host + " joins", Again: time.Second, Err: err}
		}
	}
	return s.reconfigure(ctx, func(c *config) (bool, error) {
		if _, there := c.member(host); there {
			return false, nil
		}
		if err := s.mayJoin(ctx, m, h, *c); err != nil {
			return false, err
		}
		added := memberConfig{ID: max(s.memory.LastMemberID, c.highestID()) + 1, Host: host}
		c.Members = append(c.Members, added.shaped(what.to, c.saysSlave()))
		return true, nil
	})
}

// mayJoin refuses a candidate that the server would take to everybody's harm: an alias of a member, a member of another
// set, data of another set, or one that does not know the key. A former member of this very set is welcome.
func (s *session) mayJoin(ctx context.Context, m wantMember, h hello, c config) error {
	if h.SetName != "" && h.SetName != s.want.set {
		return s.foreignSet(m.host, h.SetName)
	}
	if _, there := c.member(h.Me); there && h.SetName != "" {
		if _, wanted := s.want.member(h.Me); !wanted { // it was silent when the plan was made: it is to be renamed
			return &reconcilers.WaitError{For: "another look at " + m.host + ", which the set knows as " + h.Me, Again: retryEvery}
		}
		return &reconcilers.BlockedError{
			Reason: "AliasOfMember", Message: fmt.Sprintf("%s is the member that the set knows as %s", m.host, h.Me),
			Do: "Name each mongod once",
		}
	}
	if err := s.checkKey(ctx, m); err != nil {
		return err
	}
	client, err := s.logInRoot(ctx, m)
	defer s.r.pool.forget(clientKey{s.component, m.host, s.want.root.id()}) // its users are replaced when it joins
	if isCredentials(err) {
		if name := s.foreignNameInLog(ctx, m); name != "" {
			return s.foreignSet(m.host, name)
		}
		if h.SetName != "" {
			return s.foreignSet(m.host, h.SetName+" (another set of that name)")
		}
		return nil // an empty member without users, or with users that the initial sync replaces
	}
	if err != nil {
		return err
	}
	own, _, err := getConfig(ctx, client, false)
	if hasCode(err, codeNotYetInitialized) {
		return s.mayBeginAnew(ctx, client, m)
	}
	switch {
	case err != nil:
		return fmt.Errorf("read the configuration of %s: %w", m.host, err)
	case own.Name != c.Name:
		return s.foreignSet(m.host, own.Name)
	case own.setID() != c.setID():
		return s.foreignSet(m.host, own.Name+" (another set of that name)")
	}
	hasData, err := hasOplog(ctx, client)
	if err == nil && hasData == m.arbiter {
		err = arbiterInPlace(m.host, m.arbiter)
	}
	return err
}

// hasOplog tells a member with data, or what is left of one, from an arbiter.
func hasOplog(ctx context.Context, client *driver.Client) (bool, error) {
	names, err := client.Database("local").ListCollectionNames(undated{ctx}, bson.D{{Key: "name", Value: "oplog.rs"}})
	if err != nil {
		return false, fmt.Errorf("list the collections of database local: %w", err)
	}
	return len(names) > 0, nil
}

// mayBeginAnew judges a candidate that says that it is in no set. One that has just started may not have read yet what it
// has on its disk.
func (s *session) mayBeginAnew(ctx context.Context, client *driver.Client, m wantMember) error {
	written, known, err := hasConfig(ctx, client)
	if err != nil {
		return fmt.Errorf("look for a configuration on the disk of %s: %w", m.host, err)
	}
	if written {
		return &reconcilers.WaitError{For: m.host + " to read its configuration", Again: time.Second}
	}
	refused := s.mayBeEmptied(ctx, client, m)
	if known || !isBlocked(refused) {
		return refused
	}
	isMember := func(h hello) bool { return h.SetName != "" }
	if _, err := s.await(ctx, secondLook, []wantMember{m}, isMember); err == nil {
		return &reconcilers.WaitError{For: "another look at " + m.host + ", which had not read its configuration", Again: retryEvery}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return refused
}

// mayBeEmptied refuses a member that was never in a set and has somebody's data: the initial sync would wipe it.
func (s *session) mayBeEmptied(ctx context.Context, client *driver.Client, m wantMember) error {
	collections, _, err := countCollections(ctx, client)
	if err != nil || collections == 0 {
		return err
	}
	return &reconcilers.BlockedError{
		Reason:  "DataWouldBeLost",
		Message: fmt.Sprintf("%s has %d collections of its own, which joining %s would wipe", m.host, collections, s.want.set),
		Do:      "Save what is in its volume, if it is worth anything, and give the member an empty one",
	}
}

// checkKey finds out whether the candidate takes one of the keys that the manifest names, if it names any.
func (s *session) checkKey(ctx context.Context, m wantMember) error {
	key := clientKey{s.component, m.host, "join"}
	_, err := s.logInAny(ctx, m, key.user, keyLogins(s.want.keys.file)...)
	s.r.pool.forget(key)
	if !isCredentials(err) {
		return err
	}
	if client, err := s.logInX509(ctx, m); client == nil {
		return errors.Join(err, s.wrongKey(m.host))
	}
	return nil
}

// changeMember gives a member the step's shape; a vote or the right to be elected once it has caught up.
func (s *session) changeMember(ctx context.Context, what step, progress reconcilers.Progress) error {
	host := what.host
	m, err := s.declared(host)
	if err != nil {
		return err
	}
	if what.to.votes > 0 || what.to.priority > 0 {
		if err := s.waitSynced(ctx, m, progress); err != nil {
			return err
		}
	}
	if what.to.votes > what.from.votes {
		if err := s.waitLevel(ctx, m, max(what.from.delay, what.to.delay), progress); err != nil {
			return err
		}
	}
	if what.to.priority == 0 {
		if err := s.stepDown(ctx, host); err != nil {
			return err
		}
	}
	if what.to.votes < what.from.votes {
		if err := s.waitRemaining(ctx, host, progress); err != nil {
			return err
		}
	}
	return s.reconfigure(ctx, func(c *config) (bool, error) {
		i, there := c.member(host)
		if !there {
			return false, fmt.Errorf("member %s was removed by another client", host)
		}
		if c.Members[i].shape().equal(what.to) {
			return false, nil
		}
		c.Members[i] = c.Members[i].shaped(what.to, c.saysSlave())
		return true, nil
	})
}

// waitSynced waits until the member is SECONDARY or PRIMARY by its own word.
func (s *session) waitSynced(ctx context.Context, m wantMember, progress reconcilers.Progress) error {
	limited, cancel := context.WithTimeout(ctx, syncLimit)
	defer cancel()
	began := s.r.deps.Clock.Now()
	serves := func(h hello) bool { return h.SetName == s.want.set && (h.Secondary || h.IsWritablePrimary) }
	for {
		seen, err := s.await(limited, syncSlice, []wantMember{m}, serves)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		state, err := s.seenByPrimary(limited, m)
		if isBlocked(err) {
			return err
		}
		if err := s.staleNow(limited, m); err != nil {
			return err
		}
		waited := s.r.deps.Clock.Now().Sub(began)
		if limited.Err() != nil || seen.hello.SetName == "" && waited > strangerLimit {
			return &reconcilers.WaitError{For: fmt.Sprintf("member %s to become SECONDARY (is %s)", m.host, state), Again: syncSlice, Err: seen.err}
		}
		progress.Say("member %s is %s for %.0f s", m.host, state, waited.Seconds())
	}
}

// waitLevel waits until the member has what the primary had when it was first asked, its delay in seconds granted. A former
// member is SECONDARY at once, however far behind: with a vote it would hold up every write that asks for a majority.
func (s *session) waitLevel(ctx context.Context, m wantMember, delay int, progress reconcilers.Progress) error {
	limited, cancel := context.WithTimeout(ctx, syncLimit)
	defer cancel()
	told := s.r.deps.Clock.Now()
	var stale error
	seen, err := s.awaitData(limited, m, func(has, goal bson.Timestamp) bool {
		behind := int64(goal.T) - int64(has.T) - int64(delay)
		if now := s.r.deps.Clock.Now(); behind > 0 && now.Sub(told) > syncSlice {
			progress.Say("member %s is %d s behind what the primary had", m.host, behind)
			told = now
			if stale = s.staleNow(limited, m); stale != nil {
				cancel()
			}
		}
		return isLevel(has, goal, delay)
	})
	switch {
	case ctx.Err() != nil && err != nil:
		return ctx.Err()
	case stale != nil && err != nil:
		return stale
	case err != nil:
		return &reconcilers.WaitError{For: "member " + m.host + " to catch up before it votes", Again: syncSlice, Err: seen.err}
	}
	return nil
}

// awaitData waits until the member says that it has enough of what the primary had when it was first asked; a primary and
// an arbiter have all that they need. The error is the context's.
func (s *session) awaitData(ctx context.Context, m wantMember, enough func(has, goal bson.Timestamp) bool) (sighting, error) {
	var goal bson.Timestamp
	for {
		if goal.IsZero() {
			if primary, err := s.primary(ctx); err == nil {
				goal = s.ask(ctx, primary).hello.LastWrite.Optime.Time
			}
		}
		seen := s.ask(ctx, m)
		if h := seen.hello; seen.answers() && !goal.IsZero() && (h.IsWritablePrimary || h.Arbiter || enough(h.LastWrite.Optime.Time, goal)) {
			return seen, nil
		}
		if err := pause(ctx, retryEvery); err != nil {
			return seen, err
		}
	}
}

// seenByPrimary gives the member's state as the primary has it. A member that does not know the key is an error of its own.
func (s *session) seenByPrimary(ctx context.Context, m wantMember) (state string, err error) {
	state = "not reached"
	err = s.onPrimary(ctx, func(client *driver.Client) error {
		st, err := getStatus(ctx, client)
		if err != nil {
			return err
		}
		if one, there := st.member(m.host); there && one.refusesKey() {
			return s.wrongKey(m.host)
		} else if there {
			state = one.StateName
		}
		return nil
	})
	return state, err
}

// removeMember takes a member out. A primary steps down first, and those that remain catch up. Its container and volume are not touched.
func (s *session) removeMember(ctx context.Context, host string, progress reconcilers.Progress) error {
	if err := s.stepDown(ctx, host); err != nil {
		return err
	}
	if err := s.waitRemaining(ctx, host, progress); err != nil {
		return err
	}
	return s.reconfigure(ctx, func(c *config) (bool, error) {
		i, there := c.member(host)
		if !there {
			return false, nil
		}
		c.Members = append(c.Members[:i], c.Members[i+1:]...)
		return true, nil
	})
}

// rename gives a member its new host name; its _id and data stay.
func (s *session) rename(ctx context.Context, what step) error {
	return s.reconfigure(ctx, func(c *config) (bool, error) {
		i, there := c.member(what.was)
		if !there {
			return false, nil
		}
		c.Members[i].Host = what.host
		return true, nil
	})
}

// stepDown makes another member primary when host is it. An answer that does not come is an answer: the server closes
// its connections. Whether it worked shows in who is primary then.
func (s *session) stepDown(ctx context.Context, host string) error {
	m, err := s.ownPrimary(ctx)
	if err != nil || m.host != host {
		return err
	}
	client, err := s.logInRoot(ctx, m)
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	s.thaw(ctx, host)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	s.memory.SteppedDown = s.r.deps.Clock.Now()
	if err := s.memory.save(); err != nil {
		return err
	}
	command := bson.D{
		{Key: "replSetStepDown", Value: stepDownSeconds}, {Key: "secondaryCatchUpPeriodSecs", Value: catchUpSeconds},
	}
	err = runFor(context.WithoutCancel(ctx), reconfigLimit, client, adminDatabase, command, nil)
	if err != nil && !isNetwork(err) {
		return fmt.Errorf("step down %s: %w", host, err)
	}
	others := func(h hello) bool { return h.IsWritablePrimary && h.Me != host }
	if _, err := s.await(ctx, primaryLimit, s.want.members, others); err != nil {
		return errors.Join(ctx.Err(), &reconcilers.WaitError{For: "another primary than " + host, Err: err})
	}
	return nil
}

// thaw lets members stand for election that were asked to step down here less than stepDownSeconds ago: there may be no other
// heir. What somebody else froze stays so. One that does not take it is not waited for: the step-down tells whether it is
// missed.
func (s *session) thaw(ctx context.Context, but string) {
	if s.r.deps.Clock.Now().Sub(s.memory.SteppedDown) >= settledTime {
		return
	}
	limited, cancel := context.WithTimeout(ctx, ownLimit)
	defer cancel()
	for _, m := range s.want.members {
		if m.host == but || !m.electable() {
			continue
		}
		if client, err := s.logInRoot(limited, m); err == nil {
			_ = run(limited, client, adminDatabase, bson.D{{Key: "replSetFreeze", Value: 0}}, nil)
		}
	}
}
