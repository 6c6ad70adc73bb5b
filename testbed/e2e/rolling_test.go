package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"dive-agent/report"
	"dive-agent/testbed"
	"dive-agent/testbed/agenttest"
	"dive-agent/testbed/replicaset"
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

// upgrade is a merge on the way from 4.4 to 6.0.27: the data of a release series is kept by the servers of the next one
// until a merge of its own lets it go there.
type upgrade struct {
	image testbed.ImageName
	fcv   string
	rolls bool // the members are changed
}

var upgrades = []upgrade{
	{testbed.Mongod504, "4.4", true},
	{testbed.Mongod504, "5.0", false},
	{testbed.Mongod605, "5.0", true},
	{testbed.Mongod605, "6.0", false},
	{testbed.Mongod6027, "6.0", true},
}

// longestStall is the most that a majority writer may wait for one write.
const longestStall = 2500 * time.Millisecond

// TestAReplicaSetIsUpgradedOneMemberAtATime: merged images go through the members from 4.4.2 to 6.0.27, secondaries first,
// while a writer loses nothing that a majority acknowledged. What the data does not take is refused before anything is
// touched.
func TestAReplicaSetIsUpgradedOneMemberAtATime(t *testing.T) {
	t.Parallel()
	s := newSmall(t)
	h, _ := s.readyWith(s.trio(testbed.Image(t, testbed.Mongod442), "4.4"), 3*soon, agenttest.HostOptions{})
	password, err := os.ReadFile(filepath.Join(h.Dir, "state", "instances", "one", "secrets", ".store", "values", "MONGO_PASSWORD"))
	require.NoError(t, err)
	db := s.connect(t, string(password))
	s.refuses(h, testbed.Mongod605, "4.4", "from which only 5.0 is one step")

	w := startWriter(t, db)
	for _, to := range upgrades {
		before, term := s.running(), s.term(t, db)
		commit := s.Merge("Upgrade to "+string(to.image)+" with "+to.fcv, s.trio(testbed.Image(t, to.image), to.fcv))
		h.AwaitPhase(6*soon, "one", report.Ready, commit)
		stall := w.Stall()
		t.Logf("to %s with %s: longest stall %s", to.image, to.fcv, stall.Round(time.Millisecond))
		require.LessOrEqual(t, stall, longestStall*slack)
		if !to.rolls {
			require.Equal(t, before, s.running(), "a feature compatibility version restarts nobody")
			require.Equal(t, term, s.term(t, db))
			continue
		}
		for service, id := range s.running() {
			require.NotEqual(t, before[service], id, "%s was not changed", service)
		}
		require.Equal(t, term+1, s.term(t, db), "one step-down, and no election beside")
	}
	acknowledged, _ := w.stop()
	lost, err := replicaset.Lost(t.Context(), db, acknowledged)
	require.NoError(t, err)
	require.Empty(t, lost, "acknowledged writes were lost")
	require.Contains(t, h.Do("events", "one"), "step down before it is restarted")
	t.Logf("%d writes acknowledged, none lost", len(acknowledged))
	s.refuses(h, testbed.Mongod504, "6.0", "a server of 5.0 does not open")
}

// slack is for a machine that has more to do than this test; the figure is measured by the benchmark.
const slack = 4

// refuses merges an image that the data does not take: it is Blocked, and nothing is touched.
func (s *small) refuses(h *agenttest.Host, image testbed.ImageName, fcv, says string) {
	s.t.Helper()
	before := s.running()
	commit := s.Merge("Skip or go back", s.trio(testbed.Image(s.t, image), fcv))
	status := h.AwaitPhase(soon, "one", report.Blocked, commit)
	require.Contains(s.t, why(status), says)
	require.Equal(s.t, before, s.running(), "something was touched")
}

// writer is one of which no write may fail.
type writer struct {
	*replicaset.Writer
	t *testing.T
}

func startWriter(t *testing.T, db *mongo.Database) *writer {
	return &writer{replicaset.StartWriter(t.Context(), db), t}
}

// stop gives what was acknowledged and the longest time without an acknowledgment since it was asked last.
func (w *writer) stop() ([]int64, time.Duration) {
	w.t.Helper()
	stall := w.Stall()
	acknowledged, err := w.Stop()
	require.NoError(w.t, err)
	return acknowledged, stall
}

// connect gives the database of a client that finds members by their services' containers, wherever they are.
func (s *small) connect(t *testing.T, password string) *mongo.Database {
	t.Helper()
	c, err := replicaset.Set{Engine: s.engine, Project: s.project, Name: "rs0", Password: password}.Connect("mongodb-1", "mongodb-2", "mongodb-3")
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Disconnect(context.Background()) })
	return c.Database("dive")
}

// dialer reaches services where their containers are at the time.
func (s *small) dialer() dialerFunc {
	return replicaset.Set{Engine: s.engine, Project: s.project}.DialContext
}

type dialerFunc func(ctx context.Context, network, address string) (net.Conn, error)

func (f dialerFunc) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return f(ctx, network, address)
}

// term counts the elections.
func (s *small) term(t *testing.T, db *mongo.Database) int64 {
	t.Helper()
	term, err := replicaset.Term(t.Context(), db.Client())
	require.NoError(t, err)
	return term
}
