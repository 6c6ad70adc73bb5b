package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"

	"dive-agent/report"
	"dive-agent/testbed"
	"dive-agent/testbed/agenttest"
)

// namedWithin is how soon a mistake in a member must be told of.
const namedWithin = 15 * time.Second

// starts gives each running container of the project by service, with the time of its start.
func (s *small) starts() map[string]string {
	s.t.Helper()
	found := map[string]string{}
	for service, id := range s.running() {
		c, err := s.engine.ContainerInspect(s.t.Context(), id, client.ContainerInspectOptions{})
		require.NoError(s.t, err)
		found[service] = id + " " + c.Container.State.StartedAt
	}
	return found
}

// mistaken is a fleet of three members whose manifests get mistakes.
type mistaken struct {
	*small
	host *agenttest.Host
	good map[string]string
}

func newMistaken(t *testing.T) *mistaken {
	s := newSmall(t)
	good := s.replicas(replicas{members: numbered(3), image: testbed.Image(t, testbed.Mongod605), users: true})
	m := &mistaken{small: s, good: edited(t, good, trioFile, "    MONGO_KEYFILE:",
		"    OTHER_KEYFILE: {generate: {kind: mongodb-keyfile}, file: {path: other-keyfile, mode: \"0400\", owner: 999}}\n    MONGO_KEYFILE:")}
	m.host, _ = s.readyWith(m.good, 3*soon, agenttest.HostOptions{})
	return m
}

// named waits until the status has the words, and gives how long that took.
func (m *mistaken) named(began time.Time, words ...string) time.Duration {
	m.t.Helper()
	m.host.Await(soon, "one", "names the mistake", func(st *report.Status) bool {
		said := why(st)
		for _, word := range words {
			if !strings.Contains(said, word) {
				return false
			}
		}
		return true
	})
	took := time.Since(began)
	m.t.Logf("named after %.1f s: %q", took.Seconds(), words)
	require.Less(m.t, took, stretched(m.t, namedWithin))
	return took
}

// untouched holds all members but one to running as they did.
func (m *mistaken) untouched(before map[string]string, but string) {
	m.t.Helper()
	require.Subset(m.t, []string{but}, m.touched(before), "touched")
}

// touched names the members that do not run as they did.
func (m *mistaken) touched(before map[string]string) (list []string) {
	m.t.Helper()
	now := m.starts()
	for service, start := range before {
		if now[service] != start {
			list = append(list, service)
		}
	}
	return list
}

// TestAMistakeInAllMembersStopsAtTheFirst: a roll with a server that cannot start is named soon, by the first member that it
// reaches; that one is put back, and no other one is touched.
func TestAMistakeInAllMembersStopsAtTheFirst(t *testing.T) {
	t.Parallel()
	m := newMistaken(t)
	before := m.starts()
	for _, mistake := range []struct{ name, from, to, words string }{
		{"unknown flag", "[mongod, --replSet", "[mongod, --noSuchFlag, --replSet", "exited with 2"},
		{"wrong image", "image: ${IMAGE}", "image: " + testbed.Image(t, testbed.Services), "mongod"},
	} {
		merged := time.Now()
		commit := m.Merge(mistake.name, edited(t, m.good, stackFile, mistake.from, mistake.to))
		testbed.Eventually(t, 2*soon, "the roll to reach a member", func() error {
			if len(m.touched(before)) == 0 {
				return errNotYet
			}
			return nil
		})
		t.Logf("%s: its first member is made anew %.1f s after the merge", mistake.name, time.Since(merged).Seconds())
		m.named(time.Now(), "service mongodb-", mistake.words)
		status := m.host.AwaitPhase(soon, "one", report.Degraded, commit)
		require.Contains(t, why(status), mistake.words)
		require.LessOrEqual(t, len(m.touched(before)), 1, "%s: %v", mistake.name, m.touched(before))
		commit = m.Merge("Mend it", m.good)
		m.host.AwaitPhase(soon, "one", report.Ready, commit)
		require.LessOrEqual(t, len(m.touched(before)), 1, "%s, mended: %v", mistake.name, m.touched(before))
		before = m.starts()
	}
}

// TestAWrongKeyfileOfOneMemberIsNamed soon after it serves, and no other member is restarted as long as it is there.
func TestAWrongKeyfileOfOneMemberIsNamed(t *testing.T) {
	t.Parallel()
	m := newMistaken(t)
	before := m.starts()
	file := "volumes: [\"data-2:/data/db\", \"${SECRETS_DIR}/"
	m.Merge("Another key for one", edited(t, m.good, stackFile, file+"mongo-keyfile", file+"other-keyfile"))
	testbed.Eventually(t, soon, "the member with the other key to serve", func() error {
		if m.starts()["mongodb-2"] == before["mongodb-2"] {
			return errNotYet
		}
		conn, err := m.set("", "").DialContext(t.Context(), "tcp", "mongodb-2:27017")
		if err == nil {
			_ = conn.Close()
		}
		return err
	})
	m.named(time.Now(), "mongodb-2:27017", "do not accept each other's key")
	m.untouched(before, "mongodb-2")

	commit := m.Merge("And a change of all", withLabel(t, edited(t, m.good, stackFile, file+"mongo-keyfile", file+"other-keyfile")))
	m.host.AwaitPhase(5*soon, "one", report.Blocked, commit) // members that wait for it give up after three minutes
	m.untouched(before, "mongodb-2")

	commit = m.Merge("Mend it", m.good)
	m.host.AwaitPhase(2*soon, "one", report.Ready, commit)
	m.untouched(before, "mongodb-2")
}

// TestAWrongPasswordIsNamedBeforeAMemberIsTouched: somebody gave the administrator another one by hand, and a change of all
// members is merged.
func TestAWrongPasswordIsNamedBeforeAMemberIsTouched(t *testing.T) {
	t.Parallel()
	m := newMistaken(t)
	w := &crashWalk{small: m.small, host: m.host, wants: replicas{members: numbered(3)}}
	before := m.starts()
	secret := secretOf(t, m.host, "MONGO_PASSWORD")
	c := w.client("admin", "MONGO_PASSWORD", numbered(3)...)
	t.Cleanup(func() { _ = c.Disconnect(context.Background()) })
	set := func(password string) {
		t.Helper()
		require.NoError(t, c.Database("admin").RunCommand(t.Context(), bson.D{{Key: "updateUser", Value: "admin"}, {Key: "pwd", Value: password}}).Err())
	}
	set("by-hand")
	began := time.Now()
	commit := m.Merge("A change of all", withLabel(t, m.good))
	m.named(began, "refuses the password of user admin")
	status := m.host.AwaitPhase(soon, "one", report.Blocked, commit)
	require.Contains(t, why(status), "updateUser", "the way out")
	require.NotContains(t, fmt.Sprint(status), secret)
	m.untouched(before, "")

	set(secret)
	m.host.AwaitPhase(3*soon, "one", report.Ready, commit)
	require.Len(t, m.touched(before), 3, "the change that had waited")
}
