package mongo_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"

	"dive-agent/desired"
	"dive-agent/reconcilers/mongo"
)

// anyStep is one change of the manifest, of the set by somebody else, or a fault.
func (s *walk) anyStep() (name string, do func(step int)) {
	switch at := s.random.IntN(100); {
	case at < 34:
		return "manifest", func(int) {
			s.anyManifest()
			s.passes()
		}
	case at < 42:
		return "manifest, a fault amid it", s.faultAmidChanges
	case at < 48:
		return "passwords", func(int) { s.rotate() }
	case at < 51:
		return "a user dropped by hand", func(int) { s.byHand(bson.D{{Key: "dropUser", Value: "app"}}) }
	case at < 55:
		return "a member removed by hand and started again", func(int) { s.removeByHand() }
	case at < 84:
		return "a fault", s.fault
	case at < 88:
		return "all members killed", func(int) { s.killAll() }
	case at < 92:
		return "a member wiped", func(int) { s.wipe() }
	case at < 96:
		return "the agent on the minority's side", func(int) { s.split() }
	}
	return "the majority lost", func(int) { s.loseMajority() }
}

// anyManifest draws members, of which one stays that may be primary now, and settings.
func (s *walk) anyManifest() {
	for _, service := range s.services {
		if s.random.IntN(8) == 0 {
			s.rename(service)
		}
	}
	s.look()
	s.spec.Members = s.anyMembers()
	st := s.spec.Settings
	st.HeartbeatIntervalMillis = 250 + 50*s.random.IntN(3)
	st.ElectionTimeoutMillis = 2000 + 1000*s.random.IntN(2)
	st.DefaultWriteConcern = []string{"", "majority", "1"}[s.random.IntN(3)]
	chaining := s.random.IntN(2) == 0
	st.ChainingAllowed = &chaining
	s.t.Logf("  manifest %s", membersText(s.spec.Members))
}

// rename gives a service's member its other host name: that of its container, or that of the service again.
func (s *walk) rename(service string) {
	if s.names[service] != "" {
		delete(s.names, service)
		return
	}
	c, err := s.lab.Where(s.t.Context(), service)
	if err == nil {
		s.names[service] = strings.TrimPrefix(c.Name, "/")
	}
}

// anyMembers are one to four members, of which the last may be an arbiter.
func (s *walk) anyMembers() []mongo.Member {
	var list []mongo.Member
	stays := s.random.IntN(len(s.config.electable))
	for i, at := range s.random.Perm(len(s.services)) {
		service := s.services[at]
		m := mongo.Member{Service: service, Port: 27017}
		if name := s.names[service]; name != "" {
			m.Host = desired.Literal(name + ":27017")
		}
		if s.random.IntN(2) == 0 {
			m.Tags = map[string]string{"place": strconv.Itoa(s.random.IntN(3))}
		}
		arbiter := s.arbiters[service]
		if service == "mongodb-4" && s.random.IntN(3) == 0 {
			arbiter = s.becomes(service, !arbiter)
		}
		none, priority := 0, float64(1+s.random.IntN(2))
		switch kind := s.random.IntN(10); {
		case arbiter && kind < 6:
			m.Arbiter, m.Tags = true, nil
		case arbiter:
			continue
		case service == s.config.electable[stays], kind < 4, i == 0 && kind < 8:
			m.Priority = &priority
		case kind == 4:
			m.Hidden = true
		case kind == 5:
			m.Hidden, m.Delay = true, desired.Duration(2*time.Second)
		case kind == 6:
			m.Votes = &none
		default:
			continue
		}
		list = append(list, m)
	}
	return list
}

// becomes makes a service's member an arbiter, or one with data: with an empty volume, and only while it is outside the
// set. It says whether it is an arbiter then.
func (s *walk) becomes(service string, arbiter bool) bool {
	s.t.Helper()
	now, err := s.committed()
	if err != nil || slices.Contains(now.services, service) || slices.ContainsFunc(s.outages, func(o outage) bool { return o.service == service }) {
		return !arbiter
	}
	s.keepJournal(service)
	s.runMember(service)
	s.arbiters[service] = arbiter
	return arbiter
}

// rotate changes the passwords of the administrator and of the user.
func (s *walk) rotate() {
	s.former = append([]desired.Value{desired.Secret(s.root)}, s.former...)
	s.former = s.former[:min(len(s.former), 3)]
	s.root, s.app = fmt.Sprintf("r00t-Secret-%d", s.random.Uint64()), fmt.Sprintf("app-Secret-%d", s.random.Uint64())
	s.secrets()
	s.passes()
	s.calm()
	require.NoError(s.t, s.logsIn("admin", s.root))
	require.NoError(s.t, s.logsIn("app", s.app))
	require.Error(s.t, s.logsIn("admin", s.former[0].Text()))
}

// byHand sends a command to the primary, as somebody else does, and lets the agent see what is to be done about it.
func (s *walk) byHand(command bson.D) {
	s.calm()
	s.onceDone(func(ctx context.Context) error { return s.client.Database("admin").RunCommand(ctx, command).Err() })
	s.passes()
}

// onceDone tries what somebody does by hand until the set takes it: a member that has just come back may be missed still.
func (s *walk) onceDone(do func(ctx context.Context) error) {
	s.t.Helper()
	s.eventually(primaryTime, "a command that is sent by hand", func() error {
		ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
		defer cancel()
		return do(ctx)
	})
}

// removeByHand takes a member that is not primary out of the configuration, and starts it again.
func (s *walk) removeByHand() {
	s.calm()
	victim := s.secondary()
	if victim == "" {
		return
	}
	s.t.Logf("  %s is removed", victim)
	s.onceDone(func(ctx context.Context) error {
		var answer struct {
			Config bson.M `bson:"config"`
		}
		admin := s.client.Database("admin")
		if err := admin.RunCommand(ctx, bson.D{{Key: "replSetGetConfig", Value: 1}}).Decode(&answer); err != nil {
			return err
		}
		answer.Config["members"] = slices.DeleteFunc(answer.Config["members"].(bson.A), func(m any) bool {
			return serviceOf(m.(bson.D)[1].Value.(string)) == victim
		})
		answer.Config["version"] = answer.Config["version"].(int32) + 1
		return admin.RunCommand(ctx, bson.D{{Key: "replSetReconfig", Value: answer.Config}}).Err()
	})
	s.lab.Kill(victim)
	s.lab.Start(victim)
	s.passes()
}

// secondary draws a member of the configuration that is not primary; empty when there is none.
func (s *walk) secondary() string {
	primary := s.config.primary
	var list []string
	for _, service := range s.config.services {
		if service != primary {
			list = append(list, service)
		}
	}
	if len(list) == 0 {
		return ""
	}
	return list[s.random.IntN(len(list))]
}
