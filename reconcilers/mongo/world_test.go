package mongo_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"dive-agent/desired"
	"dive-agent/reconcilers"
	"dive-agent/reconcilers/internal/lab"
	"dive-agent/reconcilers/mongo"
	"dive-agent/testbed"
)

const (
	rootPassword = "r00t-Secret/with?signs&more%"
	appPassword  = "app-Secret-7261"
)

// The tests wait for elections and initial syncs more than they compute: more of them at a time than there are cores.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "4"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// set is a replica set to be: services of its own in a lab, and a target.
type set struct {
	t      *testing.T
	lab    *lab.Lab
	target reconcilers.Target
	spec   *mongo.Spec
	key    string
	tls    *tls.Config              // of the test's own clients; nil: none
	ended  func(reconcilers.Change) // after each change of a pass; nil: nobody asks
	said   func(string)             // with all that a pass says; nil: nobody asks
}

// tell writes what a member of a failed test logged of its replication.
func (s *set) tell(service string) {
	if lines := s.replicationLog(service); lines != "" {
		s.t.Logf("the end of what %s logged of its replication:\n%s", service, lines)
	}
}

// replicationLog is the end of it; empty when its container has gone, as that of a service which was run anew.
func (s *set) replicationLog(service string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second) // the test's own has ended
	defer cancel()
	log, err := s.lab.Logs(ctx, service, time.Time{}, 0)
	if err != nil {
		return ""
	}
	defer func() { _ = log.Close() }()
	var lines []string
	for scan := bufio.NewScanner(log); scan.Scan(); {
		if line := scan.Text(); replicationLine.MatchString(line) && len(line) < 2000 {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines[max(0, len(lines)-80):], "\n")
}

var replicationLine = regexp.MustCompile(`"c":"(REPL|REPL_HB|ROLLBACK|ELECTION|INITSYNC|STORAGE)"`)

// plainSet is a set without services yet.
func plainSet(t *testing.T, members ...string) *set {
	t.Helper()
	return plainSetIn(t, lab.New(t), members...)
}

// plainSetIn is the same in a lab that is there.
func plainSetIn(t *testing.T, in *lab.Lab, members ...string) *set {
	t.Helper()
	raw := make([]byte, 48)
	_, _ = rand.Read(raw)
	s := &set{t: t, lab: in, key: base64.StdEncoding.EncodeToString(raw)}
	in.LastWords = s.tell
	s.spec = &mongo.Spec{
		Name:     "rs0",
		Root:     mongo.Root{Username: desired.Literal("admin"), Password: desired.Literal(rootPassword)},
		Settings: &mongo.Settings{ElectionTimeoutMillis: 2000, HeartbeatIntervalMillis: 300},
		Database: "dive",
	}
	for _, m := range members {
		s.spec.Members = append(s.spec.Members, mongo.Member{Service: m, Port: 27017})
	}
	s.target = reconcilers.Target{
		Instance:  &desired.Instance{Name: "deu"},
		Component: &desired.Component{Name: "database", Kind: mongo.Kind.Name, Spec: s.spec},
		Scope:     desired.NewScope(nil),
		SourceDir: t.TempDir(), Dir: t.TempDir(),
		Services: s.lab,
	}
	return s
}

// withContent gives the set a user and 22 documents to seed.
func (s *set) withContent() *set {
	s.spec.Users = []mongo.User{{
		Name: "app", Password: desired.Literal(appPassword), Database: "admin", Roles: []string{"readWrite@dive"},
	}}
	var documents []map[string]any
	for i := range 22 {
		documents = append(documents, map[string]any{"coiId": fmt.Sprintf("COI-%02d", i), "name": "community", "size": i})
	}
	raw, err := json.Marshal(documents)
	require.NoError(s.t, err)
	require.NoError(s.t, os.WriteFile(filepath.Join(s.target.SourceDir, "coi.json"), raw, 0o600))
	s.spec.Seed = []mongo.Seed{{Collection: "coi_definitions", File: "coi.json", Key: "coiId"}}
	return s
}

// mongod is a server as the examples run it, with little on disk.
func (s *set) mongod(replSet string) lab.Service {
	command := []string{
		"mongod", "--keyFile", "/etc/mongo-keyfile", "--oplogSize", "16",
		"--wiredTigerCacheSizeGB", "0.25", "--wiredTigerEngineConfigString", "log=(prealloc=false,file_max=4MB)",
		"--setParameter", "diagnosticDataCollectionEnabled=false",
		"--setParameter", "shutdownTimeoutMillisForSignaledShutdown=100",
	}
	if replSet != "" {
		command = append(command, "--replSet", replSet)
	}
	return lab.Service{
		Image:   testbed.Image(s.t, testbed.Mongod605),
		Command: command,
		Env:     []string{"MONGO_INITDB_ROOT_USERNAME=admin", "MONGO_INITDB_ROOT_PASSWORD=" + rootPassword},
		Files:   map[string]lab.File{"/etc/mongo-keyfile": {Content: s.key, Mode: 0o400, Owner: 999}},
	}
}

// mongodOf is the same of another version.
func (s *set) mongodOf(image testbed.ImageName) lab.Service {
	service := s.mongod("rs0")
	service.Image = testbed.Image(s.t, image)
	if image == testbed.Mongod442 { // does not know the quiesce of later versions
		at := slices.Index(service.Command, "shutdownTimeoutMillisForSignaledShutdown=100")
		service.Command = slices.Delete(service.Command, at-1, at+1)
	}
	return service
}

func (s *set) run(services ...string) *set {
	s.t.Helper()
	for _, name := range services {
		s.lab.Run(name, s.mongod("rs0"))
	}
	return s
}

func reconciler(t *testing.T) reconcilers.Reconciler {
	t.Helper()
	r := mongo.New(deps())
	t.Cleanup(func() { require.NoError(t, r.(interface{ Close() error }).Close()) })
	return r
}

// progress writes what an apply tells into the test's log.
type progress struct {
	t     *testing.T
	last  time.Time
	ended func(reconcilers.Change)
	said  func(string)
}

func (p *progress) Begin(ctx context.Context, _ ...reconcilers.Change) error {
	p.last = time.Now()
	return ctx.Err()
}

func (p *progress) End(c reconcilers.Change, err error) {
	p.t.Logf("%6.3f s  %s %s (%s) %v", time.Since(p.last).Seconds(), c.Action, c.Address, c.Reason, err)
	if p.ended != nil {
		p.ended(c)
	}
}

func (p *progress) Say(format string, args ...any) {
	p.t.Logf(format, args...)
	if p.said != nil {
		p.said(fmt.Sprintf(format, args...))
	}
}

func (p *progress) Started() {}

// pass is one observe, plan and apply. The error is that of the first that has one, an observation's Err included.
func (s *set) pass(r reconcilers.Reconciler) (reconcilers.Observed, reconcilers.Plan, error) {
	s.t.Helper()
	return s.passWithin(2*time.Minute, r)
}

func (s *set) passWithin(limit time.Duration, r reconcilers.Reconciler) (reconcilers.Observed, reconcilers.Plan, error) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), limit)
	defer cancel()
	o, err := r.Observe(ctx, s.target)
	if err != nil {
		return o, reconcilers.Plan{}, err
	}
	plan, err := r.Plan(s.target, o)
	if err != nil || len(plan.Changes) == 0 {
		return o, plan, errors.Join(err, o.Err)
	}
	applied, err := r.Apply(ctx, s.target, plan, &progress{t: s.t, ended: s.ended, said: s.said})
	o.Outputs, o.Facts = applied.Outputs, applied.Facts
	return o, plan, err
}

// settle passes until nothing is left to do.
func (s *set) settle(r reconcilers.Reconciler) reconcilers.Observed {
	s.t.Helper()
	return s.settleWithin(time.Minute, r)
}

// settleWithin is the same with another limit; a pass that has begun has a minute more.
func (s *set) settleWithin(limit time.Duration, r reconcilers.Reconciler) reconcilers.Observed {
	s.t.Helper()
	var o reconcilers.Observed
	testbed.Eventually(s.t, limit, "the replica set in its desired state", func() error {
		var plan reconcilers.Plan
		var err error
		if o, plan, err = s.passWithin(limit+time.Minute, r); err == nil && len(plan.Changes) > 0 {
			return fmt.Errorf("%d changes were left", len(plan.Changes))
		}
		return err
	})
	return o
}

// blocked passes until the set is blocked, and gives why.
func (s *set) blocked(r reconcilers.Reconciler) *reconcilers.BlockedError {
	s.t.Helper()
	var blocked *reconcilers.BlockedError
	testbed.Eventually(s.t, time.Minute, "a blocked replica set", func() error {
		_, _, err := s.pass(r)
		if errors.As(err, &blocked) {
			return nil
		}
		return fmt.Errorf("not blocked: %w", err)
	})
	require.NotContains(s.t, blocked.Error(), rootPassword)
	return blocked
}

// admin is a client of the test's own for one member.
func (s *set) admin(service string) *driver.Client {
	s.t.Helper()
	return s.login(service, options.Credential{AuthSource: "admin", Username: "admin", Password: rootPassword})
}

func (s *set) login(service string, as options.Credential) *driver.Client {
	s.t.Helper()
	c, err := s.lab.Find(s.t.Context(), service)
	require.NoError(s.t, err)
	client, err := driver.Connect(options.Client().SetHosts([]string{c.Addr().String() + ":27017"}).SetDirect(true).
		SetServerSelectionTimeout(20 * time.Second).SetAuth(as).SetDialer(dialer(func(ctx context.Context, _, address string) (net.Conn, error) {
		return s.connect(ctx, service, address)
	})))
	require.NoError(s.t, err)
	s.t.Cleanup(func() { _ = client.Disconnect(context.Background()) })
	return client
}

type dialer func(ctx context.Context, network, address string) (net.Conn, error)

func (d dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return d(ctx, network, address)
}

// connect is how clients of a test reach a member: by TLS where the set has it and the member speaks it.
func (s *set) connect(ctx context.Context, host, address string) (net.Conn, error) {
	plain := net.Dialer{Timeout: 2 * time.Second}
	conn, err := plain.DialContext(ctx, "tcp", address)
	if err != nil || s.tls == nil {
		return conn, err
	}
	config := s.tls.Clone()
	config.ServerName = host
	secure := tls.Client(conn, config)
	if err := secure.HandshakeContext(ctx); err == nil {
		return secure, nil
	}
	_ = conn.Close()
	return plain.DialContext(ctx, "tcp", address)
}

func (s *set) command(service string, command bson.D) bson.M {
	s.t.Helper()
	answer, err := s.tryCommand(service, command)
	require.NoError(s.t, err, command[0].Key)
	return answer
}

// lock keeps a member from writing, as a disk does that hangs. One that has just begun takes no checkpoint for a moment.
func (s *set) lock(service string) {
	s.t.Helper()
	testbed.Eventually(s.t, 20*time.Second, "a lock of "+service, func() error {
		_, err := s.tryCommand(service, bson.D{{Key: "fsync", Value: 1}, {Key: "lock", Value: true}})
		return err
	})
}

func (s *set) tryCommand(service string, command bson.D) (answer bson.M, err error) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
	defer cancel()
	err = s.admin(service).Database("admin").RunCommand(ctx, command).Decode(&answer)
	return answer, err
}

// picture is the live state as the conformance suite compares it: the configuration's members, users, and documents.
func (s *set) picture(service string) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
	defer cancel()
	admin := s.admin(service)
	var b strings.Builder
	var answer struct {
		Config struct {
			Name    string `bson:"_id"`
			Members []struct {
				Host     string  `bson:"host"`
				Votes    int     `bson:"votes"`
				Priority float64 `bson:"priority"`
				Hidden   bool    `bson:"hidden"`
			} `bson:"members"`
			Settings struct {
				Election  int `bson:"electionTimeoutMillis"`
				Heartbeat int `bson:"heartbeatIntervalMillis"`
			} `bson:"settings"`
		} `bson:"config"`
	}
	if err := admin.Database("admin").RunCommand(ctx, bson.D{{Key: "replSetGetConfig", Value: 1}}).Decode(&answer); err != nil {
		return "no replica set"
	}
	sort.Slice(answer.Config.Members, func(i, j int) bool { return answer.Config.Members[i].Host < answer.Config.Members[j].Host })
	fmt.Fprintf(&b, "%+v\n", answer.Config)
	var users struct {
		Users []struct {
			ID    string `bson:"_id"`
			Roles []struct {
				Role     string `bson:"role"`
				Database string `bson:"db"`
			} `bson:"roles"`
		} `bson:"users"`
	}
	require.NoError(s.t, admin.Database("admin").RunCommand(ctx,
		bson.D{{Key: "usersInfo", Value: bson.D{{Key: "forAllDBs", Value: true}}}}).Decode(&users))
	fmt.Fprintf(&b, "%v\n", users)
	count, err := admin.Database("dive").Collection("coi_definitions").CountDocuments(ctx, bson.D{})
	require.NoError(s.t, err)
	fmt.Fprintf(&b, "%d documents\n", count)
	return b.String()
}

func deps() reconcilers.Deps {
	return reconcilers.Deps{Clock: reconcilers.SystemClock{}, Rand: rand.Reader}
}
