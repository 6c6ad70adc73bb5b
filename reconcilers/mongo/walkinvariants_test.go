package mongo_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readconcern"
	"go.mongodb.org/mongo-driver/v2/mongo/readpref"

	"dive-agent/reconcilers/mongo"
	"dive-agent/testbed"
)

// walkConfig is what the random walk compares of a configuration. Members go by their services.
type walkConfig struct {
	set           string // its replicaSetId
	chaining      bool
	version, term int64
	voters        map[string]bool
	ids           map[int]string
	services      []string
	electable     []string
	arbiters      []string
	members       string
	primary       string // that gave it
}

// majority says whether the members without some others have one.
func (c walkConfig) majority(without ...string) bool {
	all, alive := 0, 0
	for service, votes := range c.voters {
		if votes {
			all++
		}
		if votes && !slices.Contains(without, service) {
			alive++
		}
	}
	return 2*alive > all
}

// survives says whether the members without some others have a majority, and one that may be primary.
func (c walkConfig) survives(without ...string) bool {
	return c.majority(without...) && slices.ContainsFunc(c.electable, func(service string) bool { return !slices.Contains(without, service) })
}

func (c walkConfig) hasData(service string) bool { return !slices.Contains(c.arbiters, service) }

// rawConfig is a configuration as the server has it, in an answer and in its log.
type rawConfig struct {
	Version int64 `bson:"version"`
	Term    int64 `bson:"term"`
	Members []struct {
		ID         int               `bson:"_id"`
		Host       string            `bson:"host"`
		Votes      int               `bson:"votes"`
		Priority   float64           `bson:"priority"`
		Hidden     bool              `bson:"hidden"`
		Arbiter    bool              `bson:"arbiterOnly"`
		Delay      int               `bson:"secondaryDelaySecs"`
		Tags       map[string]string `bson:"tags"`
		NewlyAdded bool              `bson:"newlyAdded"` // its vote does not count yet
	} `bson:"members"`
	Settings struct {
		ID       bson.ObjectID `bson:"replicaSetId"`
		Chaining bool          `bson:"chainingAllowed"`
	} `bson:"settings"`
}

func (raw rawConfig) read() walkConfig {
	c := walkConfig{set: raw.Settings.ID.Hex(), chaining: raw.Settings.Chaining, version: raw.Version, term: raw.Term, voters: map[string]bool{}, ids: map[int]string{}}
	var lines []string
	for _, m := range raw.Members {
		service := serviceOf(m.Host)
		c.services = append(c.services, service)
		c.voters[service], c.ids[m.ID] = m.Votes > 0 && !m.NewlyAdded, service
		if m.Votes > 0 && m.Priority > 0 {
			c.electable = append(c.electable, service)
		}
		if m.Arbiter {
			c.arbiters = append(c.arbiters, service)
		}
		lines = append(lines, memberText(m.Host, m.Votes, m.Priority, m.Hidden, m.Arbiter, m.Delay, m.Tags))
	}
	slices.Sort(lines)
	slices.Sort(c.services)
	slices.Sort(c.electable)
	c.members = strings.Join(lines, "; ")
	return c
}

func memberText(host string, votes int, priority float64, hidden, arbiter bool, delay int, tags map[string]string) string {
	text := fmt.Sprintf("%s votes %d priority %v", host, votes, priority)
	for word, is := range map[string]bool{" hidden": hidden, " arbiter": arbiter} {
		if is {
			text += word
		}
	}
	if delay > 0 {
		text += fmt.Sprintf(" delay %d", delay)
	}
	if tags["place"] != "" {
		text += " in " + tags["place"]
	}
	return text
}

// membersText is what the manifest says, as rawConfig.read has it.
func membersText(members []mongo.Member) string {
	var lines []string
	for _, m := range members {
		host, votes, priority := m.Service+":27017", 1, 0.0
		if !m.Host.IsZero() {
			host = m.Host.Source()
		}
		if m.Votes != nil {
			votes = *m.Votes
		}
		switch {
		case m.Priority != nil:
			priority = *m.Priority
		case votes == 1 && !m.Hidden && !m.Arbiter:
			priority = 1
		}
		lines = append(lines, memberText(host, votes, priority, m.Hidden, m.Arbiter, int(time.Duration(m.Delay).Seconds()), m.Tags))
	}
	slices.Sort(lines)
	return strings.Join(lines, "; ")
}

// serviceOf is the service of a member's host, which is its name or ends with it.
func serviceOf(host string) string {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = host
	}
	return name[max(0, len(name)-len("mongodb-1")):]
}

// DialContext reaches a member by any of its host names, where its container is now, on either side of a split.
func (s *walk) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := s.lab.Where(ctx, serviceOf(address))
	if err != nil {
		return nil, err
	}
	return (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, network, net.JoinHostPort(c.Addr().String(), "27017"))
}

// writable is the service of the member that takes writes.
func (s *walk) writable() (string, error) {
	ctx, cancel := context.WithTimeout(s.t.Context(), 3*time.Second)
	defer cancel()
	var hello struct {
		Me      string `bson:"me"`
		Primary bool   `bson:"isWritablePrimary"`
	}
	err := s.client.Database("admin").RunCommand(ctx, bson.D{{Key: "hello", Value: 1}}).Decode(&hello)
	if err == nil && !hello.Primary {
		err = fmt.Errorf("%s is no primary", hello.Me)
	}
	return serviceOf(hello.Me), err
}

// committed is the configuration of the member that is primary now; an error when it is not committed.
func (s *walk) committed() (walkConfig, error) {
	c, committed, err := s.readConfig()
	if err == nil && !committed {
		err = errors.New("not committed yet")
	}
	return c, err
}

func (s *walk) readConfig() (c walkConfig, committed bool, err error) {
	at, err := s.writable()
	if err != nil {
		return c, false, err
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), 5*time.Second)
	defer cancel()
	var answer struct {
		Config    rawConfig `bson:"config"`
		Committed bool      `bson:"commitmentStatus"`
	}
	command := bson.D{{Key: "replSetGetConfig", Value: 1}, {Key: "commitmentStatus", Value: true}}
	if err := s.client.Database("admin").RunCommand(ctx, command).Decode(&answer); err != nil {
		return c, false, err
	}
	c = answer.Config.read()
	c.primary = at
	return c, answer.Committed, nil
}

// look compares the configuration with the one before, when there is a primary that has it committed.
func (s *walk) look() {
	s.t.Helper()
	if now, err := s.committed(); err == nil {
		s.follow(now)
	}
}

// follow holds what must hold between two committed configurations. checkJournals looks at those between them.
func (s *walk) follow(now walkConfig) {
	s.t.Helper()
	before := s.config
	s.config = now
	if before.set == "" {
		return
	}
	if now.primary != before.primary {
		s.stepped = time.Now()
	}
	require.Equal(s.t, before.set, now.set, "it is the same set for ever")
	require.GreaterOrEqual(s.t, now.version, before.version)
	require.GreaterOrEqual(s.t, now.term, before.term)
	require.Positive(s.t, now.term, "nothing was forced")
	require.Less(s.t, now.version-before.version, int64(forcedBy), "nothing was forced")
	require.LessOrEqual(s.t, int64(votesBetween(before, now)), now.version-before.version, "one vote for each version: %+v to %+v", before, now)
}

func votesBetween(before, now walkConfig) (changed int) {
	for _, service := range append(slices.Clone(three), "mongodb-4") {
		if before.voters[service] != now.voters[service] {
			changed++
		}
	}
	return changed
}

// nothingLost looks for all that was acknowledged so far.
func (s *walk) nothingLost() {
	s.t.Helper()
	s.calm()
	s.writer.mu.Lock()
	written, failed := slices.Clone(s.writer.written), s.writer.failed
	s.writer.mu.Unlock()
	require.NotEmpty(s.t, written)
	there, err := s.documents(s.config.primary)
	require.NoError(s.t, err)
	lost := slices.DeleteFunc(slices.Clone(written), func(n int) bool { return there[n] })
	s.t.Logf("  %d writes were acknowledged; the last error: %v", len(written), failed)
	require.Empty(s.t, lost, "acknowledged, and not there")
}

// everywhere ends the writer and waits until each member has all that was acknowledged.
func (s *walk) everywhere() {
	s.t.Helper()
	s.writer.stop()
	<-s.writer.ended
	for _, m := range s.spec.Members {
		if !m.Arbiter {
			s.catchesUp(m.Service)
		}
	}
}

// catchesUp waits until a member has all that is acknowledged now.
func (s *walk) catchesUp(service string) {
	s.t.Helper()
	s.writer.mu.Lock()
	written := slices.Clone(s.writer.written)
	s.writer.mu.Unlock()
	err := testbed.Until(s.t.Context(), time.Minute, 100*time.Millisecond, service+" has all that was acknowledged", func() error {
		there, err := s.documents(service)
		if err != nil {
			return err
		}
		for _, n := range written {
			if !there[n] {
				return fmt.Errorf("%d of %d is not there", n, len(written))
			}
		}
		return nil
	})
	if err != nil {
		s.tellOfFailure(true)
		s.nothingLost() // that would be worse than a member that lags
		s.t.Fatal(err)
	}
}

// documents are what a member has of the writer's, by its own word.
func (s *walk) documents(service string) (map[int]bool, error) {
	s.t.Helper()
	client := s.walker(s, service)
	defer func() { _ = client.Disconnect(context.Background()) }()
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer cancel()
	collection := client.Database("walk").Collection("written", options.Collection().
		SetReadConcern(readconcern.Local()).SetReadPreference(readpref.Nearest()))
	found, err := collection.Find(ctx, bson.D{}, options.Find().SetBatchSize(50_000))
	if err != nil {
		return nil, err
	}
	var documents []struct {
		ID int `bson:"_id"`
	}
	if err := found.All(ctx, &documents); err != nil {
		return nil, err
	}
	there := map[int]bool{}
	for _, d := range documents {
		there[d.ID] = true
	}
	return there, nil
}

// eventually waits, and tells of the members as they are when the wait was in vain: some are gone when the test ends.
func (s *walk) eventually(limit time.Duration, what string, ask func() error) {
	s.t.Helper()
	if err := testbed.Until(s.t.Context(), limit, 20*time.Millisecond, what, ask); err != nil {
		s.tellOfFailure(true)
		s.t.Fatal(err)
	}
}

// tellOfFailure writes into the log of a test that failed how each member sees the set, and what it told last.
func (s *walk) tellOfFailure(failed bool) {
	if !failed || s.told {
		return
	}
	s.told = true
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, service := range s.services {
		client := s.walker(s, service)
		for _, command := range []string{"replSetGetStatus", "replSetGetConfig"} {
			raw, err := client.Database("admin").RunCommand(ctx, bson.D{{Key: command, Value: 1}}).Raw()
			s.t.Logf("%s of %s: %v %v", command, service, raw, err)
		}
		_ = client.Disconnect(ctx)
		log, err := s.lab.Logs(ctx, service, time.Now().Add(-2*time.Minute), 0)
		if err != nil {
			continue
		}
		raw, _ := io.ReadAll(log)
		_ = log.Close()
		var kept []string
		for line := range strings.Lines(string(raw)) {
			if strings.Contains(line, heartbeatFailed) {
				continue // four a second
			}
			if strings.Contains(line, `"c":"REPL`) || strings.Contains(line, `"c":"ELECTION`) || !strings.Contains(line, `"s":"I"`) {
				kept = append(kept, line)
			}
		}
		s.t.Logf("log of %s:\n%s", service, strings.Join(kept[max(0, len(kept)-150):], ""))
	}
}
