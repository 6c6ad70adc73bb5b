package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"dive-agent/desired"
	"dive-agent/report"
	"dive-agent/testbed"
	"dive-agent/testbed/agenttest"
)

// keyring is the members' key file as the agent keeps it.
type keyring struct {
	t   *testing.T
	dir string // of the instance's secrets
}

func (s *small) keyring(h *agenttest.Host) keyring {
	return keyring{s.t, filepath.Join(h.Dir, "state", "instances", "one", "secrets")}
}

// keys are those of the file that members are started with.
func (k keyring) keys() []string {
	k.t.Helper()
	text, err := os.ReadFile(filepath.Join(k.dir, "mongo-keyfile"))
	require.NoError(k.t, err)
	keys := desired.KeysOf(string(text))
	require.NoError(k.t, desired.CheckKeys(keys))
	return keys
}

// over waits until nothing is rotated any more.
func (k keyring) over(limit time.Duration) {
	k.t.Helper()
	testbed.Eventually(k.t, limit, "a former key that is forgotten", func() error {
		if _, err := os.Stat(filepath.Join(k.dir, ".store", "former", "MONGO_KEYFILE")); err == nil {
			return errors.New("it is there")
		}
		return nil
	})
}

// asFellow logs in to one member as the members do among themselves. The error is nil, or one of the server.
func (s *small) asFellow(ctx context.Context, service, key string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	c, err := mongo.Connect(options.Client().SetHosts([]string{service + ":27017"}).SetDirect(true).SetDialer(s.dialer()).
		SetAuth(options.Credential{AuthMechanism: "SCRAM-SHA-256", AuthSource: "local", Username: "__system", Password: key}))
	if err != nil {
		return err
	}
	defer func() { _ = c.Disconnect(context.Background()) }()
	return c.Database("admin").RunCommand(ctx, bson.D{{Key: "ping", Value: 1}}).Err()
}

// requireKey holds that every member takes one key and refuses the other.
func (s *small) requireKey(takes, refuses string) {
	s.t.Helper()
	for _, service := range trioServices {
		require.NoError(s.t, s.asFellow(s.t.Context(), service, takes), service)
		err := s.asFellow(s.t.Context(), service, refuses)
		require.True(s.t, isRefused(err), "%s: %v", service, err)
	}
}

var trioServices = []string{"mongodb-1", "mongodb-2", "mongodb-3"}

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
			for _, service := range trioServices {
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
	db := s.connect(t, s.rootPassword(h))
	term := s.term(t, db)
	w, containers := startWriter(t, db), s.watchContainers(t)

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
		_, err := os.Stat(filepath.Join(ring.dir, ".store", "former", "MONGO_KEYFILE"))
		return st.Phase == report.Ready && err != nil
	})
	acknowledged, stall := w.stop()
	require.Contains(t, strings.Join(told, "\n"), "of 3 members know the new key")
	require.Contains(t, strings.Join(told, "\n"), "of 3 members let go of the former key")

	keys := ring.keys()
	require.Len(t, keys, 1)
	require.NotEqual(t, old, keys[0])
	s.requireKey(keys[0], old)
	for _, service := range trioServices {
		require.Equal(t, 3, containers.of(service), "%s was made anew once in each roll", service)
	}
	require.Equal(t, term+2, s.term(t, db), "one step-down for each of the two rolls, and no election beside")
	have, err := db.Collection("writes").CountDocuments(t.Context(), bson.D{{Key: "_id", Value: bson.D{{Key: "$in", Value: acknowledged}}}})
	require.NoError(t, err)
	require.Len(t, acknowledged, int(have), "acknowledged writes were lost")
	require.Less(t, stall, 10*time.Second)
	require.NotContains(t, h.Do("secrets", "list", "one"), "rotated")
	log := h.Log() + h.Do("events", "one")
	require.NotContains(t, log, old)
	require.NotContains(t, log, keys[0])
	require.Contains(t, log, "MONGO_KEYFILE: all servers that share it know the new key; the former one is taken away")
	t.Logf("%d writes acknowledged, none lost; longest stall %s; told: %s", len(acknowledged), stall.Round(time.Millisecond), strings.Join(told, " | "))
}

// TestAKeyfileOfASingleMemberIsRotated: who waits for it waits until both steps are over.
func TestAKeyfileOfASingleMemberIsRotated(t *testing.T) {
	t.Parallel()
	s := newSmall(t)
	h, _ := s.readyWith(s.members(1, testbed.Image(t, testbed.Mongod605), "6.0"), 3*soon, agenttest.HostOptions{})
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
	files := s.trio(testbed.Image(t, testbed.Mongod605), "6.0")
	files["blueprints/trio/blueprint.yaml"] = strings.Replace(files["blueprints/trio/blueprint.yaml"],
		"MONGO_KEYFILE: {generate: {kind: mongodb-keyfile}", "MONGO_KEYFILE: {provide: true", 1)
	commit := s.Merge("Begin", files)
	h := agenttest.NewHost(t, s.Fleet, agenttest.HostOptions{})
	const old, next = "FormerKeyOfTheSet0123456789", "NextKeyOfTheSet0123456789AB"
	setSecret(t, h, "MONGO_KEYFILE", old)
	h.Start()
	h.AwaitPhase(3*soon, "one", report.Ready, commit)
	ring := s.keyring(h)
	db := s.connect(t, s.rootPassword(h))
	w := startWriter(t, db)
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
			for _, service := range trioServices {
				if id := now[service]; id != "" && id != before[service] && len(ring.keys()) == keys {
					return nil
				}
			}
			return errors.New("none was")
		})
		again()
		if keys == 2 {
			s.Merge("Add a member", withFourth(files))
			testbed.Eventually(t, 6*soon, "a file without the former key", func() error {
				value, err := os.ReadFile(filepath.Join(ring.dir, ".store", "values", "MONGO_KEYFILE"))
				if err == nil && len(desired.KeysOf(string(value))) == 2 {
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
	acknowledged, stall := w.stop()
	require.Equal(t, []string{next}, ring.keys())
	s.requireKey(next, old)
	require.NoError(t, s.asFellow(t.Context(), "mongodb-4", next))
	require.True(t, isRefused(s.asFellow(t.Context(), "mongodb-4", old)))
	have, err := db.Collection("writes").CountDocuments(t.Context(), bson.D{{Key: "_id", Value: bson.D{{Key: "$in", Value: acknowledged}}}})
	require.NoError(t, err)
	require.Len(t, acknowledged, int(have), "acknowledged writes were lost")
	t.Logf("%d writes acknowledged, none lost; longest stall %s", len(acknowledged), stall.Round(time.Millisecond))
}

// withFourth adds a member to the three, without a vote: an even number of those helps nobody.
func withFourth(files map[string]string) map[string]string {
	more := maps.Clone(files)
	edit := func(name, old, added string) { more[name] = strings.Replace(more[name], old, added, 1) }
	edit("blueprints/trio/compose.yaml", "volumes:\n  data-1", fmt.Sprintf(trioMember, 4)+"volumes:\n  data-4: {}\n  data-1")
	edit("blueprints/trio/blueprint.yaml", "{service: mongodb-3}]", "{service: mongodb-3}, {service: mongodb-4, votes: 0}]")
	return more
}

// isRefused says whether a server answered that it does not know the login.
func isRefused(err error) bool {
	var server mongo.ServerError
	return errors.As(err, &server) && server.HasErrorCode(18)
}

func (s *small) rootPassword(h *agenttest.Host) string {
	s.t.Helper()
	password, err := os.ReadFile(filepath.Join(s.keyring(h).dir, ".store", "values", "MONGO_PASSWORD"))
	require.NoError(s.t, err)
	return string(password)
}
