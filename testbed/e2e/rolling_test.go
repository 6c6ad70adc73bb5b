package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"

	"dive-agent/report"
	"dive-agent/testbed"
	"dive-agent/testbed/agenttest"
)

const trioBlueprint = `apiVersion: dive/v1alpha1
kind: Blueprint
metadata: {name: trio}
spec:
  role: spoke
  values:
    project: {required: true}
    image: {required: true}
    fcv: {required: true}
  secrets:
    MONGO_PASSWORD: {generate: {length: 24}}
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
      members: [MEMBERS]
      root: {username: admin, password: "${MONGO_PASSWORD}"}
      keyfile: ${MONGO_KEYFILE}
      featureCompatibilityVersion: ${fcv}
`

const trioCompose = `x-mongod: &mongod
  image: ${IMAGE}
  command: [mongod, --replSet, rs0, --keyFile, /etc/mongo-keyfile, --bind_ip_all, --oplogSize, "16", --wiredTigerCacheSizeGB, "0.25",
    --wiredTigerEngineConfigString, "log=(prealloc=false,file_max=4MB)", --setParameter, diagnosticDataCollectionEnabled=false]
  environment: {MONGO_INITDB_ROOT_USERNAME: admin, MONGO_INITDB_ROOT_PASSWORD: "${MONGO_PASSWORD}"}
  stop_grace_period: 60s
services:
`

const trioMember = `  mongodb-%[1]d:
    <<: *mongod
    volumes: ["data-%[1]d:/data/db", "${SECRETS_DIR}/mongo-keyfile:/etc/mongo-keyfile:ro"]
`

func (s *small) trio(image, fcv string) map[string]string { return s.members(3, image, fcv) }

// members is the fleet with a replica set of so many members instead of two services.
func (s *small) members(count int, image, fcv string) map[string]string {
	var services, volumes strings.Builder
	var list []string
	for n := 1; n <= count; n++ {
		fmt.Fprintf(&services, trioMember, n)
		fmt.Fprintf(&volumes, "  data-%d: {}\n", n)
		list = append(list, fmt.Sprintf("{service: mongodb-%d}", n))
	}
	files := s.files("")
	files["blueprints/small/blueprint.yaml"], files["blueprints/small/compose.yaml"] = "", ""
	files["blueprints/trio/blueprint.yaml"] = strings.Replace(trioBlueprint, "MEMBERS", strings.Join(list, ", "), 1)
	files["blueprints/trio/compose.yaml"] = trioCompose + services.String() + "volumes:\n" + volumes.String()
	files["instances/one.yaml"] = strings.Replace(s.instance(fmt.Sprintf(", image: %s, fcv: %q", image, fcv), ""), "blueprint: small", "blueprint: trio", 1)
	return files
}

// TestAReplicaSetIsUpgradedOneMemberAtATime: merged images go through the members, secondaries first, while a writer loses
// nothing that a majority acknowledged. What the data does not take is refused before anything is touched.
func TestAReplicaSetIsUpgradedOneMemberAtATime(t *testing.T) {
	t.Parallel()
	s := newSmall(t)
	image := map[string]string{}
	for name, id := range map[string]testbed.ImageName{"4.4": testbed.Mongod442, "5.0": testbed.Mongod504, "6.0": testbed.Mongod605, "6.0.27": testbed.Mongod6027} {
		image[name] = testbed.Image(t, id)
	}
	h, _ := s.readyWith(s.trio(image["5.0"], "5.0"), 3*soon, agenttest.HostOptions{})
	password, err := os.ReadFile(filepath.Join(h.Dir, "state", "instances", "one", "secrets", ".store", "values", "MONGO_PASSWORD"))
	require.NoError(t, err)
	db := s.connect(t, string(password))
	containers, term := s.running(), s.term(t, db)

	commit := s.Merge("Go back", s.trio(image["4.4"], "5.0"))
	status := h.AwaitPhase(soon, "one", report.Blocked, commit)
	require.Contains(t, why(status), "a server of 4.4 does not open")
	require.Equal(t, containers, s.running(), "something was touched")

	w := startWriter(t, db)
	for _, merge := range []struct{ image, fcv string }{{"6.0", "5.0"}, {"6.0", "6.0"}, {"6.0.27", "6.0"}} {
		commit = s.Merge("Upgrade to "+merge.image, s.trio(image[merge.image], merge.fcv))
		h.AwaitPhase(4*soon, "one", report.Ready, commit)
		if now := s.running(); merge.image != "6.0" || merge.fcv != "6.0" {
			for service, id := range now {
				require.NotEqual(t, containers[service], id, "%s was not changed", service)
			}
			containers = now
		}
	}
	acknowledged, stall := w.stop()
	require.Equal(t, term+2, s.term(t, db), "one step-down for each of the two rolls, and no election beside")
	have, err := db.Collection("writes").CountDocuments(t.Context(), bson.D{{Key: "_id", Value: bson.D{{Key: "$in", Value: acknowledged}}}})
	require.NoError(t, err)
	require.Len(t, acknowledged, int(have), "acknowledged writes were lost")
	require.Contains(t, h.Do("events", "one"), "step down before it is restarted")
	t.Logf("%d writes acknowledged, none lost; longest stall %s", len(acknowledged), stall.Round(time.Millisecond))
}

// connect gives the database of a client that finds members by their services' containers, wherever they are.
func (s *small) connect(t *testing.T, password string) *mongo.Database {
	t.Helper()
	c, err := mongo.Connect(options.Client().SetHosts([]string{"mongodb-1:27017", "mongodb-2:27017", "mongodb-3:27017"}).SetReplicaSet("rs0").
		SetDialer(s.dialer()).SetServerSelectionTimeout(soon).SetHeartbeatInterval(500 * time.Millisecond).SetWriteConcern(writeconcern.Majority()).
		SetAuth(options.Credential{Username: "admin", Password: password, AuthSource: "admin"}))
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Disconnect(context.Background()) })
	return c.Database("dive")
}

// dialer reaches services where their containers are at the time.
func (s *small) dialer() dialerFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		list, err := s.engine.ContainerList(ctx, client.ContainerListOptions{Filters: testbed.OfProject(s.project).Add("label", "com.docker.compose.service="+host)})
		if err != nil {
			return nil, err
		}
		for _, c := range list.Items {
			for _, n := range c.NetworkSettings.Networks {
				return (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort(n.IPAddress.String(), port))
			}
		}
		return nil, fmt.Errorf("no container runs %s", host)
	}
}

type dialerFunc func(ctx context.Context, network, address string) (net.Conn, error)

func (f dialerFunc) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return f(ctx, network, address)
}

// term counts the elections.
func (s *small) term(t *testing.T, db *mongo.Database) int64 {
	t.Helper()
	var answer struct {
		Term int64 `bson:"term"`
	}
	require.NoError(t, db.Client().Database("admin").RunCommand(t.Context(), bson.D{{Key: "replSetGetStatus", Value: 1}}).Decode(&answer))
	return answer.Term
}

// writer inserts documents one after the other and keeps which of them were acknowledged.
type writer struct {
	cancel       context.CancelFunc
	done         sync.WaitGroup
	acknowledged []int64
	stall        time.Duration
}

func startWriter(t *testing.T, db *mongo.Database) *writer {
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	w := &writer{cancel: cancel}
	w.done.Go(func() {
		for n := int64(0); ctx.Err() == nil; n++ {
			began := time.Now()
			if _, err := db.Collection("writes").InsertOne(ctx, bson.D{{Key: "_id", Value: n}}); err == nil {
				w.acknowledged = append(w.acknowledged, n)
			} else if ctx.Err() == nil {
				t.Errorf("write %d: %v", n, err)
			}
			w.stall = max(w.stall, time.Since(began))
		}
	})
	return w
}

func (w *writer) stop() ([]int64, time.Duration) {
	w.cancel()
	w.done.Wait()
	return w.acknowledged, w.stall
}
