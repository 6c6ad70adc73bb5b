package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"dive-agent/testbed/replicaset"
)

// replicas is what the manifests say of a replica set, which can grow, shrink, be renamed and upgraded.
type replicas struct {
	members []string // host names: mongodb-N, or db-N, another name of the same container
	image   string
	fcv     string // feature compatibility version that is asked for; empty: none is
	users   bool   // beside the administrator app and writer, with heartbeats that notice soon
}

// The files of the fleet that tests edit.
const (
	trioFile  = "blueprints/trio/blueprint.yaml"
	stackFile = "blueprints/trio/compose.yaml"
)

const replicasBlueprint = `apiVersion: dive/v1alpha1
kind: Blueprint
metadata: {name: trio}
spec:
  role: spoke
  values:
    project: {required: true}
    image: {required: true}
%s  secrets:
%s    MONGO_PASSWORD: {generate: {length: 24}}
    MONGO_KEYFILE: {generate: {kind: mongodb-keyfile}, file: {path: mongo-keyfile, mode: "0400", owner: 999}}
  components:
    stack:
      kind: ComposeStack
      project: ${project}
      healthTimeout: 60s
      environment:
        IMAGE: ${image}
        MONGO_PASSWORD: ${MONGO_PASSWORD}
    database:
      kind: MongoReplicaSet
      members: [%s]
      root: {username: admin, password: "${MONGO_PASSWORD}"}
      keyfile: ${MONGO_KEYFILE}
%s`

const replicasSecrets = `    APP_PASSWORD: {generate: {length: 24}}
    WRITER_PASSWORD: {generate: {length: 24}}
`

const replicasUsers = `      users:
        - {name: app, password: "${APP_PASSWORD}", roles: [readWrite@dive]}
        - {name: writer, password: "${WRITER_PASSWORD}", roles: [readWrite@dive]}
      settings: {heartbeatIntervalMillis: 500}
`

const replicasCompose = `x-mongod: &mongod
  image: ${IMAGE}
  command: [mongod, --replSet, rs0, --keyFile, /etc/mongo-keyfile, --bind_ip_all, --oplogSize, "16", --wiredTigerCacheSizeGB, "0.25",
    --wiredTigerEngineConfigString, "log=(prealloc=false,file_max=4MB)", --setParameter, diagnosticDataCollectionEnabled=false]
  environment: {MONGO_INITDB_ROOT_USERNAME: admin, MONGO_INITDB_ROOT_PASSWORD: "${MONGO_PASSWORD}"}
  stop_grace_period: 60s
services:
`

const replicasMember = `  mongodb-%[1]d:
    <<: *mongod
    volumes: ["data-%[1]d:/data/db", "${SECRETS_DIR}/mongo-keyfile:/etc/mongo-keyfile:ro"]
    networks: {default: {aliases: [db-%[1]d]}}
`

// replicas is the fleet with a replica set instead of two services.
func (s *small) replicas(r replicas) map[string]string {
	var members []string
	var services, volumes strings.Builder
	for i, host := range r.members {
		member := fmt.Sprintf("{service: mongodb-%d}", i+1)
		if service := serviceOf(host); service != host {
			member = fmt.Sprintf("{service: %s, host: %s}", service, host)
		}
		members = append(members, member)
		fmt.Fprintf(&services, replicasMember, i+1)
		fmt.Fprintf(&volumes, "  data-%d: {}\n", i+1)
	}
	var values, secrets, more string
	instance := ", image: " + r.image
	if r.fcv != "" {
		values, more = "    fcv: {required: true}\n", "      featureCompatibilityVersion: ${fcv}\n"
		instance += fmt.Sprintf(", fcv: %q", r.fcv)
	}
	if r.users {
		secrets, more = replicasSecrets, more+replicasUsers
	}
	files := s.files("")
	files["blueprints/small/blueprint.yaml"], files["blueprints/small/compose.yaml"] = "", ""
	files[trioFile] = fmt.Sprintf(replicasBlueprint, values, secrets, strings.Join(members, ", "), more)
	files[stackFile] = replicasCompose + services.String() + "volumes:\n" + volumes.String()
	files["instances/one.yaml"] = strings.Replace(s.instance(instance, ""), "blueprint: small", "blueprint: trio", 1)
	return files
}

// trio is the fleet with a set of three that has an administrator only.
func (s *small) trio(image, fcv string) map[string]string {
	return s.replicas(replicas{members: numbered(3), image: image, fcv: fcv})
}

// numbered gives the hosts mongodb-1 to mongodb-n.
func numbered(n int) (hosts []string) {
	for i := range n {
		hosts = append(hosts, fmt.Sprintf("mongodb-%d", i+1))
	}
	return hosts
}

// serviceOf is the service that runs the member of a host name.
func serviceOf(host string) string {
	host, _, _ = strings.Cut(host, ":")
	if number, other := strings.CutPrefix(host, "db-"); other {
		return "mongodb-" + number
	}
	return host
}

// set is where the replica set runs, for a client that logs in as a user.
func (s *small) set(user, password string) replicaset.Set {
	return replicaset.Set{Engine: s.engine, Project: s.project, Name: "rs0", User: user, Password: password}
}

// connect gives the database of the set of three as its administrator has it.
func (s *small) connect(t *testing.T, password string) *mongo.Database {
	t.Helper()
	return open(t, s.set("admin", password).Options(numbered(3)...))
}

// open gives the database of a client that lives as long as the test.
func open(t *testing.T, o *options.ClientOptions) *mongo.Database {
	t.Helper()
	c, err := mongo.Connect(o)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Disconnect(context.Background()) })
	return c.Database("dive")
}

// logIn makes a connection of its own to a member that takes logins.
func (s *small) logIn(ctx context.Context, user, password string) error {
	return ping(ctx, 10*time.Second, s.set(user, password).Options(numbered(3)...))
}

// ping makes a connection of its own. The error is nil, or one of the server, or says that the limit has passed.
func ping(ctx context.Context, limit time.Duration, o *options.ClientOptions) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	c, err := mongo.Connect(o)
	if err != nil {
		return err
	}
	defer func() { _ = c.Disconnect(context.Background()) }()
	return c.Database("dive").RunCommand(ctx, bson.D{{Key: "ping", Value: 1}}).Err()
}

// isRefused says whether a server answered that it does not know the login.
func isRefused(err error) bool {
	var server mongo.ServerError
	return errors.As(err, &server) && server.HasErrorCode(18)
}

// term counts the elections.
func term(t *testing.T, db *mongo.Database) int64 {
	t.Helper()
	term, err := replicaset.Term(t.Context(), db.Client())
	require.NoError(t, err)
	return term
}

// lostNothing ends a writer, of which no write may have failed, and holds the database to what was acknowledged. It gives
// the longest time without an acknowledgment since it was asked last.
func lostNothing(t *testing.T, w *replicaset.Writer, db *mongo.Database) (stall time.Duration) {
	t.Helper()
	stall = w.Stall()
	acknowledged, err := w.Stop()
	require.NoError(t, err)
	require.NotEmpty(t, acknowledged)
	lost, err := replicaset.Lost(t.Context(), db, acknowledged)
	require.NoError(t, err)
	require.Empty(t, lost, "acknowledged writes were lost")
	t.Logf("%d writes acknowledged, none lost; longest stall %s", len(acknowledged), stall.Round(time.Millisecond))
	return stall
}
