package mongo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"

	"dive-agent/reconcilers"
)

// Limits of the waits of an apply. They end at once when the context does.
const (
	firstBootLimit = time.Minute // for a port behind which the image still makes its first user
	primaryLimit   = 30 * time.Second
	syncSlice      = 5 * time.Second
	syncLimit      = 10 * time.Minute // for an initial sync; the next run goes on waiting
	strangerLimit  = time.Minute      // for an added member to hear of it
	retryEvery     = 200 * time.Millisecond
)

// do carries out one step. Each looks first at what is, so that a step that was done before a crash is done at once.
func (s *session) do(ctx context.Context, what step, progress reconcilers.Progress) error {
	var err error
	switch what.action {
	case initiate:
		err = s.initiate(ctx, what.fellows, progress)
	case makeRoot:
		err = s.makeRoot(ctx)
	case putRole:
		err = s.onPrimary(ctx, func(client *driver.Client) error {
			return s.putRole(context.WithoutCancel(ctx), client, s.want.roles[what.index])
		})
	case putUser:
		err = s.onPrimary(ctx, func(client *driver.Client) error {
			return s.putUser(context.WithoutCancel(ctx), client, s.want.users[what.index])
		})
	case putIndex:
		err = s.onPrimary(ctx, func(client *driver.Client) error { return s.putIndex(ctx, client, s.want.indexes[what.index]) })
	case rotateRoot:
		err = s.rotateRoot(ctx)
	case seedCollection:
		err = s.onPrimary(ctx, func(client *driver.Client) error { return plant(ctx, client, s.want.seeds[what.index]) })
	case changeSettings:
		err = s.reconfigure(ctx, s.changeSettings)
	case setWriteConcern:
		err = s.onPrimary(ctx, func(client *driver.Client) error { return s.setWriteConcern(context.WithoutCancel(ctx), client) })
	case runBackup:
		err = s.backup(ctx)
	case setFCV:
		err = s.onPrimary(ctx, func(client *driver.Client) error { return s.setFCV(context.WithoutCancel(ctx), client) })
	case renameMember:
		err = s.rename(ctx, what)
	case addMember:
		err = s.addMember(ctx, what, progress)
	case changeMember:
		err = s.changeMember(ctx, what, progress)
	case removeMember:
		err = s.removeMember(ctx, what.host, progress)
	case forceMajority:
		err = s.forceMajority(ctx)
	case giveTurnBack:
		err = s.giveTurnBack(ctx, what.host)
	case renewConnections:
		err = s.renewConnections(ctx, what.host)
	case copyFrom:
		err = s.copyFrom(ctx, what.host, what.was)
	case standUp:
		err = s.standForElection(ctx, what.host)
	default:
		err = fmt.Errorf("unknown step %d", what.action)
	}
	return awaited(ctx, err)
}

// awaited makes a wait of what goes away by itself.
func awaited(ctx context.Context, err error) error {
	var wait *reconcilers.WaitError
	if isPassing(err) && !isBlocked(err) && ctx.Err() == nil && !errors.As(err, &wait) {
		return &reconcilers.WaitError{For: "the replica set's servers", Again: time.Second, Err: err}
	}
	return err
}

// waitUsable waits until the member's real mongod answers, past the temporary one of the image's first boot.
func (s *session) waitUsable(ctx context.Context, m wantMember, progress reconcilers.Progress) (hello, error) {
	limited, cancel := context.WithTimeout(ctx, firstBootLimit)
	defer cancel()
	seen, err := s.await(limited, syncSlice, []wantMember{m}, usable)
	for err != nil && limited.Err() == nil && seen.found { // one whose service does not run is told of soon
		progress.Say("%s does not answer as a member of a set yet", m.host)
		seen, err = s.await(limited, syncSlice, []wantMember{m}, usable)
	}
	if ctx.Err() != nil {
		return hello{}, ctx.Err()
	}
	if err != nil && seen.hello.OK == 1 && !s.isYoung(seen) {
		return hello{}, s.noReplSet(m.host)
	}
	if err != nil {
		return hello{}, &reconcilers.WaitError{For: m.host + " to accept connections", Again: time.Second, Err: err}
	}
	progress.Started()
	return seen.hello, nil
}

// initiate makes the set and waits for its primary.
func (s *session) initiate(ctx context.Context, fellows []string, progress reconcilers.Progress) error {
	m := s.want.initial()
	h, err := s.waitUsable(ctx, m, progress)
	if err != nil {
		return err
	}
	if err := s.checkHello(sighting{member: m, hello: h}); err != nil {
		return err
	}
	if h.SetName == "" {
		fresh, _, err := s.isFresh(ctx, m)
		if err == nil && fresh {
			if err = s.awaitOthers(ctx, m, progress); err == nil {
				blank := map[string]bool{}
				for _, host := range fellows { // looked at next
					blank[host] = true
				}
				fresh, err = s.othersFresh(ctx, s.look(ctx), blank)
			}
		}
		if err != nil {
			return err
		}
		if fresh {
			if err := s.stillBlank(ctx, fellows); err != nil {
				return err
			}
			if err := s.sendInitiate(ctx, m, fellows); err != nil {
				return err
			}
		}
	}
	if m, err = s.primary(ctx); err != nil {
		return err
	}
	client, _, err := s.enter(ctx, m)
	if err != nil {
		return err
	}
	c, _, err := getConfig(ctx, client, false)
	if err != nil {
		return fmt.Errorf("read the new configuration: %w", err)
	}
	return s.recognise(m.host, c)
}

func (s *session) sendInitiate(ctx context.Context, m wantMember, fellows []string) error {
	client, _, err := s.enter(ctx, m)
	if err != nil {
		return err
	}
	settings := bson.D{}
	for _, one := range s.want.settings.list() {
		settings = append(settings, bson.E{Key: one.name, Value: one.value})
	}
	founders := s.want.founders(func(m wantMember) bool { return slices.Contains(fellows, m.host) })
	configuration := bson.D{
		{Key: "_id", Value: s.want.set}, {Key: "members", Value: s.want.founding(founders)}, {Key: "settings", Value: settings},
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	err = runFor(context.WithoutCancel(ctx), reconfigLimit, client, adminDatabase, bson.D{{Key: "replSetInitiate", Value: configuration}}, nil)
	switch {
	case err == nil:
		if len(fellows) > 0 {
			s.stepUp(ctx, client)
		}
		return nil
	case hasCode(err, codeAlreadyInitialized): // the primary that follows tells whether it is ours
		return nil
	case hasCode(err, codeNodeNotFound):
		return &reconcilers.BlockedError{
			Reason: "UnknownHost", Message: unreachable(m, fellows), Err: err,
			Do: wayToMembers(fellows),
		}
	case hasCode(err, codeInvalidReplicaSetConfig):
		return &reconcilers.BlockedError{
			Reason: "ConfigurationRefused", Message: fmt.Sprintf("%s does not take the configuration of %s", m.host, s.want.set), Err: err,
			Do: "See whether --replSet and the member's host are those of the manifest",
		}
	}
	return fmt.Errorf("initiate %s with %s: %w", s.want.set, m.host, err)
}

// unreachable says who may not have been reached: the server tells it in words alone.
func unreachable(m wantMember, fellows []string) string {
	if len(fellows) == 0 {
		return "the member cannot reach itself as " + m.host
	}
	return fmt.Sprintf("%s does not reach all of itself, %s by their names, or with its key", m.host, strings.Join(fellows, ", "))
}

func wayToMembers(fellows []string) string {
	if len(fellows) == 0 {
		return "Use the service's name on a network that all members share as the member's host"
	}
	return "See that each member's host leads to it from all members' containers, its own too, and that all have one key file"
}

// makeRoot makes the administrator where the server has no user at all.
func (s *session) makeRoot(ctx context.Context) error {
	m, err := s.ownPrimary(ctx)
	if err != nil {
		return err
	}
	client, isRoot, err := s.enter(ctx, m)
	if err != nil || isRoot {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err := s.putUser(context.WithoutCancel(ctx), client, wantUser{login: s.want.root, roles: []role{{"root", adminDatabase}}}); err != nil {
		return err
	}
	_, err = s.logIn(ctx, m, s.want.root)
	return err
}

// primary finds the member that takes writes.
func (s *session) primary(ctx context.Context) (wantMember, error) {
	m, err := s.awaitPrimary(ctx, primaryLimit, s.want.members)
	if err != nil && ctx.Err() == nil {
		return m, &reconcilers.WaitError{For: "a primary of " + s.want.set, Again: time.Second, Err: err}
	}
	return m, err
}

// onPrimary does something with the administrator's client of the primary; again when the primary has changed. One on
// another host is left to the agent there.
func (s *session) onPrimary(ctx context.Context, do func(client *driver.Client) error) error {
	limited, cancel := context.WithTimeout(ctx, primaryLimit)
	defer cancel()
	for {
		m, err := s.ownPrimary(limited)
		if err != nil {
			return err
		}
		client, err := s.logInRoot(limited, m)
		if isCredentials(err) {
			return s.refusedRoot(ctx, m)
		}
		if err == nil {
			err = do(client)
		}
		if err == nil || !isPassing(err) || limited.Err() != nil {
			return err
		}
		if pause(limited, retryEvery) != nil {
			return err
		}
	}
}

// pause waits, or not, when the context ends before.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
