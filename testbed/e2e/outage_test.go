package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"dive-agent/report"
	"dive-agent/testbed"
	"dive-agent/testbed/agenttest"
)

// primaryWithin is how soon a set must have a primary after all its members accept connections.
const primaryWithin = 5 * time.Second

// TestAReplicaSetOutlivesItsEngineAndItsHost: the engine is killed and started, the whole host is (with the agent, and other
// addresses afterwards), and all members are killed at once. Each time the agent starts the members, and the set has a
// primary long before an election's timeout, which is 40 s here; nothing that was acknowledged is lost.
func TestAReplicaSetOutlivesItsEngineAndItsHost(t *testing.T) {
	t.Parallel()
	s := newSmall(t)
	private := s.ownEngine(testbed.Mongod6027)
	wants := replicas{members: numbered(3), image: string(testbed.Mongod6027), users: true}
	files := edited(t, s.replicas(wants), trioFile, "settings: {", "settings: {electionTimeoutMillis: 40000, ")
	files[stackFile] += "networks: {default: {driver_opts: {com.docker.network.bridge.name: " + private.OpenBridge() + "}}}\n"
	h, commit := s.readyWith(files, 3*soon, agenttest.HostOptions{Engine: private.Host()})
	w := &crashWalk{small: s, host: h, wants: wants, commit: commit}
	w.holds()
	acknowledged := 0
	for _, outage := range []struct {
		name string
		do   func()
	}{
		{"all members are killed", func() {
			for _, id := range s.running() {
				_, err := s.engine.ContainerKill(t.Context(), id, client.ContainerKillOptions{Signal: "KILL"})
				require.NoError(t, err)
			}
		}},
		{"the engine is killed and started", func() {
			private.Kill()
			private.StartKeeping()
		}},
		{"the host is started anew", func() {
			addresses := len(s.addresses())
			h.Kill()
			private.Kill()
			private.StartKeeping()
			require.Empty(t, s.running())
			s.squat(addresses)
			h.Start()
		}},
	} {
		acknowledged = w.write(acknowledged)
		before := s.addresses()
		outage.do()
		took := s.primaryAfterAccepting(t)
		t.Logf("%s: a primary %.1f s after all accept; addresses %v, then %v", outage.name, took.Seconds(), before, s.addresses())
		require.Less(t, took, stretched(t, primaryWithin), outage.name)
		if outage.name == "the host is started anew" {
			for service, address := range s.addresses() {
				require.NotEqual(t, before[service], address, "another address than before")
			}
		}
		h.AwaitPhase(2*soon, "one", report.Ready, commit)
		w.holds()
		w.has(acknowledged)
	}
}

// write adds documents with majority concern and gives how many there are now.
func (w *crashWalk) write(already int) int {
	w.t.Helper()
	c := w.client("writer", "WRITER_PASSWORD", w.wants.members...)
	defer func() { _ = c.Disconnect(context.Background()) }()
	const more = 100
	for n := range more {
		_, err := c.Database("dive").Collection("writes").InsertOne(w.t.Context(), bson.D{{Key: "_id", Value: already + n}})
		require.NoError(w.t, err)
	}
	return already + more
}

// has holds the set to what it acknowledged.
func (w *crashWalk) has(acknowledged int) {
	w.t.Helper()
	c := w.client("admin", "MONGO_PASSWORD", w.wants.members...)
	defer func() { _ = c.Disconnect(context.Background()) }()
	n, err := c.Database("dive").Collection("writes").CountDocuments(w.t.Context(), bson.D{})
	require.NoError(w.t, err)
	require.Equal(w.t, int64(acknowledged), n, "acknowledged writes")
}

// addresses are those of the running members.
func (s *small) addresses() map[string]string {
	s.t.Helper()
	found := map[string]string{}
	for service, c := range s.containers() {
		found[service] = testbed.Address(c)
	}
	return found
}

// squat takes the first n addresses of the project's network, so that its services get others.
func (s *small) squat(n int) {
	s.t.Helper()
	for i := range n {
		made, err := s.engine.ContainerCreate(s.t.Context(), client.ContainerCreateOptions{
			Name:       fmt.Sprintf("%s-squatter-%d", s.project, i),
			Config:     &container.Config{Image: string(testbed.Mongod6027), Entrypoint: []string{"sleep", "600"}},
			HostConfig: &container.HostConfig{},
			NetworkingConfig: &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{
				s.project + "_default": {},
			}},
		})
		require.NoError(s.t, err)
		_, err = s.engine.ContainerStart(s.t.Context(), made.ID, client.ContainerStartOptions{})
		require.NoError(s.t, err)
	}
}

// primaryAfterAccepting waits until all three members accept connections, then for a primary, and gives the time between.
func (s *small) primaryAfterAccepting(t *testing.T) time.Duration {
	t.Helper()
	members := s.set("", "")
	for _, host := range numbered(3) {
		testbed.Eventually(t, 2*soon, host+" accepts connections", func() error {
			conn, err := members.DialContext(t.Context(), "tcp", host+":27017")
			if err == nil {
				_ = conn.Close()
			}
			return err
		})
	}
	began := time.Now()
	var clients []*mongo.Client
	for _, host := range numbered(3) {
		c, err := mongo.Connect(options.Client().SetHosts([]string{host + ":27017"}).SetDirect(true).SetDialer(members).SetServerSelectionTimeout(5 * time.Second))
		require.NoError(t, err)
		defer func() { _ = c.Disconnect(context.Background()) }()
		clients = append(clients, c)
	}
	testbed.Eventually(t, 2*soon, "a primary", func() error {
		for _, c := range clients {
			var hello struct {
				Primary bool `bson:"isWritablePrimary"`
			}
			if err := c.Database("admin").RunCommand(t.Context(), bson.D{{Key: "hello", Value: 1}}).Decode(&hello); err != nil {
				return err
			}
			if hello.Primary {
				return nil
			}
		}
		return errNotYet
	})
	return time.Since(began)
}
