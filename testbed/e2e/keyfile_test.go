package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"dive-agent/desired"
	"dive-agent/report"
	"dive-agent/testbed"
	"dive-agent/testbed/agenttest"
	"dive-agent/testbed/replicaset"
)

// keyring is the members' key file as the agent keeps it.
type keyring struct {
	t    *testing.T
	host *agenttest.Host
}

func (s *small) keyring(h *agenttest.Host) keyring {
	return keyring{s.t, h}
}

// keys are those of the file that members are started with.
func (k keyring) keys() []string {
	k.t.Helper()
	keys := desired.KeysOf(read(k.t, filepath.Join(secretsOf(k.host), "mongo-keyfile")))
	require.NoError(k.t, desired.CheckKeys(keys))
	return keys
}

// over waits until nothing is rotated any more.
func (k keyring) over(limit time.Duration) {
	k.t.Helper()
	testbed.Eventually(k.t, limit, "a former key that is forgotten", func() error {
		if _, err := os.Stat(formerOf(k.host, "MONGO_KEYFILE")); err == nil {
			return errors.New("it is there")
		}
		return nil
	})
}

// asFellow logs in to one member as the members do among themselves. The error is nil, or one of the server.
func (s *small) asFellow(ctx context.Context, service, key string) error {
	return ping(ctx, 20*time.Second, options.Client().SetHosts([]string{service + ":27017"}).SetDirect(true).SetDialer(s.set("", "")).
		SetAuth(options.Credential{AuthMechanism: "SCRAM-SHA-256", AuthSource: "local", Username: "__system", Password: key}))
}

// requireKey holds that every member takes one key and refuses the other.
func (s *small) requireKey(takes, refuses string) {
	s.t.Helper()
	for _, service := range numbered(3) {
		require.NoError(s.t, s.asFellow(s.t.Context(), service, takes), service)
		err := s.asFellow(s.t.Context(), service, refuses)
		require.True(s.t, isRefused(err), "%s: %v", service, err)
	}
}

// sightings are all containers that services were seen to have.
type sightings struct {
	mu   sync.Mutex
	seen map[string][]string // service -> containers, in their order
}

// watchContainers looks at the running containers every 100 ms until the test ends.
func (s *small) watchContainers(t *testing.T) *sightings {
	w := &sightings{seen: map[string][]string{}}
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	t.Cleanup(func() { cancel(); done.Wait() })
	done.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			for _, service := range numbered(3) {
				id, _ := s.environment(ctx, service, "MONGO_INITDB_ROOT_USERNAME")
				w.mu.Lock()
				if known := w.seen[service]; id != "" && (len(known) == 0 || known[len(known)-1] != id) {
					w.seen[service] = append(known, id)
				}
				w.mu.Unlock()
			}
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	})
	return w
}

func (w *sightings) of(service string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.seen[service])
}

// TestAKeyfileIsRotatedMemberByMember: an order, and all else follows: two rolls, each with one election, under a writer
// that loses nothing.
func TestAKeyfileIsRotatedMemberByMember(t *testing.T) {
	t.Parallel()
	s := newSmall(t)
	h, _ := s.readyWith(s.trio(testbed.Image(t, testbed.Mongod605), "6.0"), 3*soon, agenttest.HostOptions{})
	ring := s.keyring(h)
	old := ring.keys()[0]
	db := s.connect(t, secretOf(t, h, "MONGO_PASSWORD"))
	elections := term(t, db)
	w, containers := replicaset.StartWriter(t.Context(), db), s.watchContainers(t)

	out := h.Do("secrets", "rotate", "one", "MONGO_KEYFILE")
	require.Contains(t, out, "its servers get it beside the former one, then the former one is taken away")
	_, err := h.Try("secrets", "rotate", "one", "MONGO_KEYFILE")
	require.ErrorContains(t, err, "MONGO_KEYFILE of one is being rotated: its servers get the new key beside the former one (1 of 2)")
	require.Contains(t, h.Do("secrets", "list", "one"), "rotated: its servers get the new key beside the former one (1 of 2)")

	var told []string
	h.Await(6*soon, "one", "tells how far both rolls are", func(st *report.Status) bool {
		for _, c := range st.Components {
			if _, words, ok := strings.Cut(c.Message, "keyfile: "); ok && (len(told) == 0 || told[len(told)-1] != words) {
				told = append(told, words)
			}
		}
		_, err := os.Stat(formerOf(h, "MONGO_KEYFILE"))
		return st.Phase == report.Ready && err != nil
	})
	stall := lostNothing(t, w, db)
	require.Contains(t, strings.Join(told, "\n"), "of 3 members know the new key")
	require.Contains(t, strings.Join(told, "\n"), "of 3 members let go of the former key")

	keys := ring.keys()
	require.Len(t, keys, 1)
	require.NotEqual(t, old, keys[0])
	s.requireKey(keys[0], old)
	for _, service := range numbered(3) {
		require.Equal(t, 3, containers.of(service), "%s was made anew once in each roll", service)
	}
	require.Equal(t, elections+2, term(t, db), "one step-down for each of the two rolls, and no election beside")
	require.Less(t, stall, 10*time.Second)
	require.NotContains(t, h.Do("secrets", "list", "one"), "rotated")
	log := h.Log() + h.Do("events", "one")
	require.NotContains(t, log, old)
	require.NotContains(t, log, keys[0])
	require.Contains(t, log, "MONGO_KEYFILE: all servers that share it know the new key; the former one is taken away")
	t.Logf("told: %s", strings.Join(told, " | "))
}

// TestAKeyfileOfASingleMemberIsRotated: who waits for it waits until both steps are over.
func TestAKeyfileOfASingleMemberIsRotated(t *testing.T) {
	t.Parallel()
	s := newSmall(t)
	h, _ := s.readyWith(s.replicas(replicas{members: numbered(1), image: testbed.Image(t, testbed.Mongod605), fcv: "6.0"}), 3*soon, agenttest.HostOptions{})
	ring := s.keyring(h)
	old := ring.keys()[0]
	h.Do("secrets", "rotate", "one", "MONGO_KEYFILE")
	h.Do("sync", "one", "--wait")
	ring.over(time.Second)
	keys := ring.keys()
	require.Len(t, keys, 1)
	require.NoError(t, s.asFellow(t.Context(), "mongodb-1", keys[0]))
	require.True(t, isRefused(s.asFellow(t.Context(), "mongodb-1", old)))
}

// TestTheRotationOfAKeyfileGoesOnAfterKills: of one that is provided. The agent is killed before it sees the order, within each roll and between
// them, and a member joins on the way.
func TestTheRotationOfAKeyfileGoesOnAfterKills(t *testing.T) {
	t.Parallel()
	s := newSmall(t)
	files := edited(t, s.trio(testbed.Image(t, testbed.Mongod605), "6.0"), trioFile,
		"MONGO_KEYFILE: {generate: {kind: mongodb-keyfile}", "MONGO_KEYFILE: {provide: true")
	commit := s.Merge("Begin", files)
	h := agenttest.NewHost(t, s.Fleet, agenttest.HostOptions{})
	const old, next = "FormerKeyOfTheSet0123456789", "NextKeyOfTheSet0123456789AB"
	setSecret(t, h, "MONGO_KEYFILE", old)
	h.Start()
	h.AwaitPhase(3*soon, "one", report.Ready, commit)
	ring := s.keyring(h)
	db := s.connect(t, secretOf(t, h, "MONGO_PASSWORD"))
	w := replicaset.StartWriter(t.Context(), db)
	again := func() { h.Kill(); h.Start() }

	h.Kill()
	setSecret(t, h, "MONGO_KEYFILE", next)
	require.Equal(t, []string{old}, ring.keys(), "nobody has the new one yet")
	plan, _ := h.Try("plan") // its exit code tells whether there are changes
	require.Contains(t, plan, "to be restarted with the new key (keyfile: 0 of 3 members know the new key)")
	before := s.running()
	h.Start()
	for _, keys := range []int{2, 1} {
		testbed.Eventually(t, 6*soon, fmt.Sprintf("a member made anew with a file of %d keys", keys), func() error {
			now := s.running()
			for _, service := range numbered(3) {
				if id := now[service]; id != "" && id != before[service] && len(ring.keys()) == keys {
					return nil
				}
			}
			return errors.New("none was")
		})
		again()
		if keys == 2 {
			s.Merge("Add a member", withFourth(t, files))
			testbed.Eventually(t, 6*soon, "a file without the former key", func() error {
				value, err := storedValue(h, "MONGO_KEYFILE")
				if err == nil && len(desired.KeysOf(value)) == 2 {
					return errors.New("it has both")
				}
				return err
			})
			for service := range s.running() { // one that is being made anew does not answer, and does not refuse
				require.False(t, isRefused(s.asFellow(t.Context(), service, next)), "%s knows the new key before the former one goes", service)
			}
			h.Kill()
			before = s.running()
			h.Start()
		}
	}
	ring.over(6 * soon)
	h.AwaitPhase(soon, "one", report.Ready, "")
	lostNothing(t, w, db)
	require.Equal(t, []string{next}, ring.keys())
	s.requireKey(next, old)
	require.NoError(t, s.asFellow(t.Context(), "mongodb-4", next))
	require.True(t, isRefused(s.asFellow(t.Context(), "mongodb-4", old)))
}

// withFourth adds a member to the three, without a vote: an even number of those helps nobody.
func withFourth(t *testing.T, files map[string]string) map[string]string {
	t.Helper()
	files = edited(t, files, stackFile, "volumes:\n  data-1", fmt.Sprintf(replicasMember, 4)+"volumes:\n  data-4: {}\n  data-1")
	return edited(t, files, trioFile, "{service: mongodb-3}]", "{service: mongodb-3}, {service: mongodb-4, votes: 0}]")
}
