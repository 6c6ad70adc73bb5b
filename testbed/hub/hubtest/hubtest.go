// Package hubtest runs the test bed's hub in a test's own process, over TLS with a private authority and with its
// records in a real MongoDB.
package hubtest

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"dive-agent/testbed"
	"dive-agent/testbed/hub"
	"dive-agent/testbed/pki"
)

// AdminKey of every hub made here.
const AdminKey = "admin-key-of-the-test-hub-5d1c9e"

// Server is a running hub.
type Server struct {
	URL   string // https://127.0.0.1:port
	CA    *pki.CA
	Hub   *hub.Hub
	Store hub.Store

	config *tls.Config
	mu     sync.Mutex
	server *httptest.Server
	front  func(next http.Handler) http.Handler
	calls  map[string]int
}

// Start runs a hub with its records in the database until the end of the test. Store and AdminKey of the
// configuration are set here.
func Start(tb testing.TB, db *mongo.Database, config hub.Config) *Server {
	tb.Helper()
	now := config.Now
	if now == nil {
		now = time.Now
	}
	store, err := hub.NewMongoStore(tb.Context(), db, now)
	if err != nil {
		tb.Fatalf("hub: %v", err)
	}
	return StartWithStore(tb, store, config)
}

// StartWithStore is Start with a store of the caller's.
func StartWithStore(tb testing.TB, store hub.Store, config hub.Config) *Server {
	tb.Helper()
	config.Store, config.AdminKey = store, AdminKey
	h, err := hub.New(tb.Context(), config)
	if err != nil {
		tb.Fatalf("hub: %v", err)
	}
	s := &Server{Hub: h, Store: store, calls: map[string]int{}}
	if s.CA, err = pki.New("hub"); err == nil {
		s.config, err = s.CA.Server("127.0.0.1", "localhost")
	}
	if err != nil {
		tb.Fatalf("hub: %v", err)
	}
	s.listen(tb, "127.0.0.1:0")
	tb.Cleanup(s.Stop)
	return s
}

func (s *Server) listen(tb testing.TB, address string) {
	tb.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		tb.Fatalf("hub: %v", err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	server.Listener.Close()
	server.Listener, server.TLS = listener, s.config.Clone()
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.server, s.URL = server, server.URL
}

// Stop takes the hub away: connecting is refused.
func (s *Server) Stop() {
	s.mu.Lock()
	server := s.server
	s.server = nil
	s.mu.Unlock()
	if server != nil {
		server.CloseClientConnections()
		server.Close()
	}
}

// Again brings a stopped hub back at the same address.
func (s *Server) Again(tb testing.TB) {
	tb.Helper()
	s.listen(tb, s.URL[len("https://"):])
}

// Front puts a handler in front of the hub, to answer in its place; nil takes it away.
func (s *Server) Front(front func(next http.Handler) http.Handler) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.front = front
}

// Calls is how many requests of "METHOD path" came in so far.
func (s *Server) Calls(call string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[call]
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.calls[r.Method+" "+r.URL.Path]++
	front := s.front
	s.mu.Unlock()
	if front != nil {
		front(s.Hub).ServeHTTP(w, r)
		return
	}
	s.Hub.ServeHTTP(w, r)
}

// Mongo is a MongoDB container: a replica set of one member without authentication, reachable from the host.
type Mongo struct {
	Address string // host:port
	Client  *mongo.Client
	ID      string // of the container
	Engine  *client.Client
}

// URI connects to the member alone.
func (m *Mongo) URI() string { return "mongodb://" + m.Address + "/?directConnection=true" }

// Database is a new empty database of the test's own.
func (m *Mongo) Database(tb testing.TB) *mongo.Database {
	tb.Helper()
	return m.Client.Database(testbed.Prefix(tb))
}

// StartMongo starts a container that is removed at the end of the test, and waits for its primary unless initiate is
// false: then the member has no set and takes no writes.
func StartMongo(tb testing.TB, initiate bool) *Mongo {
	tb.Helper()
	m := &Mongo{Engine: testbed.Engine(tb)}
	image := testbed.Image(tb, testbed.Mongod605)
	ctx, cancel := context.WithTimeout(tb.Context(), 2*time.Minute)
	defer cancel()
	if err := m.run(tb, ctx, image); err != nil {
		tb.Fatalf("mongod: %v", err)
	}
	var err error
	m.Client, err = mongo.Connect(options.Client().ApplyURI(m.URI()).SetServerSelectionTimeout(time.Second))
	if err != nil {
		tb.Fatalf("mongod: %v", err)
	}
	tb.Cleanup(func() { _ = m.Client.Disconnect(context.Background()) })
	testbed.Eventually(tb, time.Minute, "mongod accepts connections", func() error { return m.Client.Ping(ctx, nil) })
	if initiate {
		m.initiate(tb, ctx)
	}
	return m
}

// run starts a mongod that has no replica set yet. It is removed with the test, also when the start fails.
func (m *Mongo) run(tb testing.TB, ctx context.Context, image string) error {
	created, err := m.Engine.ContainerCreate(ctx, client.ContainerCreateOptions{
		Name:   testbed.Prefix(tb) + "-mongod",
		Config: &container.Config{Image: image, Cmd: []string{"mongod", "--replSet", "rs0", "--bind_ip_all"}},
	})
	if err != nil {
		return err
	}
	m.ID = created.ID
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if _, err := m.Engine.ContainerRemove(ctx, m.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true}); err != nil {
			tb.Errorf("remove mongod: %v", err)
		}
	})
	if _, err := m.Engine.ContainerStart(ctx, m.ID, client.ContainerStartOptions{}); err != nil {
		return err
	}
	shown, err := m.Engine.ContainerInspect(ctx, m.ID, client.ContainerInspectOptions{})
	if err != nil {
		return err
	}
	for _, network := range shown.Container.NetworkSettings.Networks {
		m.Address = net.JoinHostPort(network.IPAddress.String(), "27017")
	}
	return nil
}

func (m *Mongo) initiate(tb testing.TB, ctx context.Context) {
	admin := m.Client.Database("admin")
	member := bson.D{{Key: "_id", Value: 0}, {Key: "host", Value: m.Address}}
	config := bson.D{{Key: "_id", Value: "rs0"}, {Key: "members", Value: bson.A{member}}}
	if err := admin.RunCommand(ctx, bson.D{{Key: "replSetInitiate", Value: config}}).Err(); err != nil {
		tb.Fatalf("initiate rs0: %v", err)
	}
	testbed.Eventually(tb, time.Minute, "rs0 has a primary", func() error {
		var hello struct {
			Primary bool `bson:"isWritablePrimary"`
		}
		if err := admin.RunCommand(ctx, bson.D{{Key: "hello", Value: 1}}).Decode(&hello); err != nil {
			return err
		}
		if !hello.Primary {
			return fmt.Errorf("%s is no primary yet", m.Address)
		}
		return nil
	})
}
