package mongo_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"

	"dive-agent/reconcilers"
	"dive-agent/testbed"
)

// writer inserts one document after the other with majority concern, as an application does.
type writer struct {
	s       *set
	at      func(ctx context.Context, host string) (reconcilers.Container, error)
	client  *driver.Client
	every   time.Duration // between two inserts
	stop    context.CancelFunc
	ended   chan struct{}
	mu      sync.Mutex
	written []int
	longest time.Duration // between two acknowledged writes
	failed  error         // of the last write that was not
}

// DialContext reaches a member by its host name, where its container is now.
func (w *writer) DialContext(ctx context.Context, _, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	c, err := w.at(ctx, host)
	if err != nil {
		return nil, err
	}
	return w.s.connect(ctx, host, net.JoinHostPort(c.Addr().String(), port))
}

// write starts a writer that goes on until lost is asked, at most until the test ends.
func (s *set) write() *writer {
	s.t.Helper()
	hosts := make([]string, len(three))
	for i, name := range three {
		hosts[i] = name + ":27017"
	}
	return s.writeTo(hosts, s.lab.Find)
}

// writeTo is the same with other host names, each found as at says.
func (s *set) writeTo(hosts []string, at func(ctx context.Context, host string) (reconcilers.Container, error)) *writer {
	s.t.Helper()
	w := &writer{s: s, at: at, every: 20 * time.Millisecond}
	var err error
	w.client, err = driver.Connect(options.Client().SetHosts(hosts).SetReplicaSet("rs0").SetDialer(w).
		SetWriteConcern(writeconcern.Majority()).SetServerSelectionTimeout(5 * time.Second).
		SetHeartbeatInterval(500 * time.Millisecond).
		SetAuth(options.Credential{AuthSource: "admin", Username: "admin", Password: rootPassword}))
	require.NoError(s.t, err)
	w.start()
	return w
}

// start begins to write, and ends with the test.
func (w *writer) start() {
	w.s.t.Helper()
	w.ended = make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	w.stop = cancel
	w.s.t.Cleanup(func() {
		cancel()
		<-w.ended
		_ = w.client.Disconnect(context.Background())
	})
	go w.run(ctx)
	testbed.Eventually(w.s.t, 30*time.Second, "a first write", func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(w.written) == 0 {
			return errors.Join(errors.New("none"), w.failed)
		}
		return nil
	})
}

func (w *writer) run(ctx context.Context) {
	defer close(w.ended)
	tick := time.NewTicker(w.every)
	defer tick.Stop()
	last := time.Now()
	for n := 0; ; n++ {
		one, cancel := context.WithTimeout(ctx, 20*time.Second)
		_, err := w.client.Database("walk").Collection("written").InsertOne(one, bson.D{{Key: "_id", Value: n}})
		cancel()
		w.mu.Lock()
		if now := time.Now(); err == nil {
			w.written = append(w.written, n)
			w.longest, last = max(w.longest, now.Sub(last)), now
		} else if ctx.Err() == nil {
			w.failed = err
		}
		w.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// lost ends the writer and gives the acknowledged documents that are not there.
func (w *writer) lost(service string) []int {
	w.s.t.Helper()
	w.stop()
	<-w.ended
	ctx, cancel := context.WithTimeout(w.s.t.Context(), 30*time.Second)
	defer cancel()
	found, err := w.s.admin(service).Database("walk").Collection("written").Find(ctx, bson.D{})
	require.NoError(w.s.t, err)
	var documents []struct {
		ID int `bson:"_id"`
	}
	require.NoError(w.s.t, found.All(ctx, &documents))
	there := map[int]bool{}
	for _, d := range documents {
		there[d.ID] = true
	}
	lost := []int{}
	for _, n := range w.written {
		if !there[n] {
			lost = append(lost, n)
		}
	}
	w.s.t.Logf("%d writes were acknowledged, %d lost; the longest stall was %s; the last error: %v", len(w.written), len(lost), w.longest, w.failed)
	require.NotEmpty(w.s.t, w.written)
	return lost
}

// primaryOf is the service whose member takes writes now.
func primaryOf(t *testing.T, o reconcilers.Observed) string {
	t.Helper()
	host, _, err := net.SplitHostPort(o.Outputs["primary"].Text())
	require.NoError(t, err)
	return host
}

// beside are the two of three that are not the service.
func beside(service string) []string {
	return slices.DeleteFunc(slices.Clone(three), func(name string) bool { return name == service })
}

// turn asks whether a member may be restarted.
func (s *set) turn(r reconcilers.Reconciler, turn reconcilers.Turn) error {
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
	defer cancel()
	return r.(reconcilers.Roller).Turn(ctx, s.target, turn, &progress{t: s.t})
}

// accepting waits until the services' servers accept connections.
func (s *set) accepting(services ...string) {
	s.t.Helper()
	for _, name := range services {
		testbed.Eventually(s.t, 30*time.Second, name+" accepts connections", func() error {
			c, err := s.lab.Find(s.t.Context(), name)
			if err != nil {
				return err
			}
			conn, err := net.DialTimeout("tcp", c.Addr().String()+":27017", time.Second)
			if err == nil {
				_ = conn.Close()
			}
			return err
		})
	}
}

// Servers are killed with the power of a power cut: no election timeout is waited for when all are back.
func TestKilledMembersFindAPrimarySoon(t *testing.T) {
	t.Parallel()
	s := plainSet(t, three...).run(three...)
	r := reconciler(t)
	s.settle(r)
	s.spec.Settings.ElectionTimeoutMillis = 40_000 // who waits for it is found out
	o := s.settle(r)
	w := s.write()
	stood := 0
	s.ended = func(c reconcilers.Change) {
		if c.Address == "primary of rs0" {
			require.Equal(t, reconcilers.Run, c.Action)
			require.Contains(t, c.Reason, "there is none and all 3 members answer: mongodb-")
			stood++
		}
	}
	for _, killed := range [][]string{{primaryOf(t, o)}, three} {
		before, err := s.lab.Find(t.Context(), three[0])
		require.NoError(t, err)
		for _, name := range killed {
			s.lab.Kill(name)
		}
		for i := range killed { // in another order: most of them get another's address
			s.lab.Start(killed[len(killed)-1-i])
		}
		s.accepting(three...)
		began := time.Now()
		o = s.settle(r)
		t.Logf("%v killed: a primary, and all others serving, %s after they accept; address %s", killed, time.Since(began), before.Addr())
		require.Less(t, time.Since(began), 20*time.Second)
		require.Equal(t, "rs0 PRIMARY, 3 members", o.Facts.Summary)
	}
	require.Equal(t, 2, stood, "once for each")

	secondary := beside(primaryOf(t, o))[0]
	s.lab.Kill(secondary)
	s.lab.Start(secondary)
	o = s.settle(r)
	require.Equal(t, 2, stood, "a set with a primary needs no other one")
	require.Empty(t, w.lost(primaryOf(t, o)))
}

// No member is given to be restarted while another one is frozen (slower than any delay), cut off or killed; afterwards it goes on.
func TestNoTurnWhileAnotherMemberIsAway(t *testing.T) {
	t.Parallel()
	s := plainSet(t, three...).run(three...)
	r := reconciler(t)
	o := s.settle(r)
	primary := primaryOf(t, o)
	one, other := beside(primary)[0], beside(primary)[1]
	turn := func() error { return s.turn(r, reconcilers.Turn{Part: one, Others: []string{primary}}) }
	goesOn := func() {
		t.Helper()
		testbed.Eventually(t, time.Minute, "a turn for "+one, turn)
	}
	goesOn()
	w := s.write()
	for _, fault := range []struct {
		name     string
		do, undo func(service string)
	}{
		{"frozen", s.lab.Pause, s.lab.Unpause},
		{"cut off", s.lab.Disconnect, s.lab.Connect},
		{"killed", s.lab.Kill, s.lab.Start},
	} {
		fault.do(other)
		var wait *reconcilers.WaitError
		err := turn()
		require.ErrorAs(t, err, &wait, fault.name)
		require.Contains(t, wait.For, other+":27017", fault.name)
		require.Contains(t, wait.For, "before "+one+":27017 is restarted", fault.name)
		fault.undo(other)
		goesOn()
	}
	s.settle(r)
	require.Empty(t, w.lost(primary))
}
