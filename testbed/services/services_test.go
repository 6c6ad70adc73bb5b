package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"dive-agent/testbed"
	"dive-agent/testbed/hub/hubtest"
	"dive-agent/testbed/pki"
)

// service is one role that runs in the test's process.
type service struct {
	url  string
	end  chan error
	stop context.CancelFunc
	log  *lockedBuffer
}

type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func environmentOf(name string, values map[string]string) environment {
	return environment{role: strings.ToUpper(name), get: func(key string) string { return values[key] }}
}

func start(t *testing.T, name string, values map[string]string) *service {
	t.Helper()
	port := strconv.Itoa(testbed.FreePort(t))
	values["PORT"], values["LISTEN_HOST"] = port, "127.0.0.1"
	if values["HEALTH_INTERVAL"] == "" {
		values["HEALTH_INTERVAL"] = "50ms"
	}
	scheme := "http"
	if values["TLS_CERT_FILE"] != "" {
		scheme = "https"
	}
	s := &service{url: scheme + "://127.0.0.1:" + port, end: make(chan error, 1), log: &lockedBuffer{}}
	ctx, cancel := context.WithCancel(t.Context())
	s.stop = cancel
	log := slog.New(slog.NewJSONHandler(s.log, nil))
	go func() { s.end <- roles[name](ctx, environmentOf(name, values), log) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-s.end:
			t.Logf("%s ended: %v", name, err)
		case <-time.After(20 * time.Second):
			t.Errorf("%s does not stop", name)
		}
	})
	return s
}

// ended waits for the service to end by itself.
func (s *service) ended(t *testing.T) error {
	t.Helper()
	select {
	case err := <-s.end:
		s.end <- err
		return err
	case <-time.After(30 * time.Second):
		t.Fatal("the service does not end")
		return nil
	}
}

type healthAnswer struct {
	Status   string            `json:"status"`
	Services map[string]result `json:"services"`
}

func askHealth(client *http.Client, address string) (int, healthAnswer, error) {
	var answer healthAnswer
	response, err := client.Get(address)
	if err != nil {
		return 0, answer, err
	}
	defer response.Body.Close()
	return response.StatusCode, answer, json.NewDecoder(response.Body).Decode(&answer)
}

func eventuallyHealthy(t *testing.T, client *http.Client, address string) healthAnswer {
	t.Helper()
	var seen healthAnswer
	testbed.Eventually(t, 20*time.Second, address, func() error {
		status, answer, err := askHealth(client, address)
		seen = answer
		if err == nil && (status != http.StatusOK || answer.Status != "healthy") {
			err = fmt.Errorf("%d %+v", status, answer)
		}
		return err
	})
	return seen
}

func TestBackendWithoutPrimarySaysSoAndEnds(t *testing.T) {
	mongod := hubtest.StartMongo(t, false)
	s := start(t, "backend", map[string]string{"MONGODB_URL": mongod.URI()})
	require.ErrorContains(t, s.ended(t), "not primary")
}

func TestBackendKeepsPasswordsOutOfErrors(t *testing.T) {
	for name, values := range map[string]map[string]string{
		"no server":      {"MONGODB_URL": "mongodb://admin:hidden-1@127.0.0.1:1/?serverSelectionTimeoutMS=200"},
		"no mongodb url": {"MONGODB_URL": "mongodb://admin:hid:den-1@@/x y"},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, "backend", values)
			err := s.ended(t)
			require.Error(t, err)
			require.NotContains(t, err.Error()+s.log.String(), "hidden-1")
			require.NotContains(t, err.Error()+s.log.String(), "hid:den-1")
		})
	}
	require.NotContains(t, pingRedis(t.Context(), "redis://:hidden-1@%zz").Error(), "hidden-1")
	_, err := postgresCheck("postgres://u:hidden-1@h:port/x", "BACKEND").run(t.Context())
	require.ErrorContains(t, err, "POSTGRES_URL")
	require.NotContains(t, err.Error(), "hidden-1")
}

func TestStackOfHubBackendKASAndFrontend(t *testing.T) {
	mongod := hubtest.StartMongo(t, true)
	dir := t.TempDir()
	ca, err := pki.LoadOrCreate(dir, "hub")
	require.NoError(t, err)
	cert, key, err := ca.Issue("127.0.0.1")
	require.NoError(t, err)
	files := map[string]string{"cert": filepath.Join(dir, "tls.crt"), "key": filepath.Join(dir, "tls.key"), "ca": filepath.Join(dir, "ca.crt")}
	require.NoError(t, os.WriteFile(files["cert"], cert, 0o600))
	require.NoError(t, os.WriteFile(files["key"], key, 0o600))
	seedFile := filepath.Join(dir, "seed.json")
	require.NoError(t, os.WriteFile(seedFile, []byte(`{"coi_definitions": [{"_id": "nato", "n": 1}, {"_id": "fvey", "n": 2}]}`), 0o600))

	hubValues := map[string]string{
		"MONGODB_URL": mongod.URI(), "MONGODB_DATABASE": "hub", "NODE_ENV": "development", "INSTANCE_CODE": "USA",
		"TLS_CERT_FILE": files["cert"], "TLS_KEY_FILE": files["key"], "SEED_FILE": seedFile,
	}
	hub := start(t, "hub", hubValues)
	client, err := environmentOf("test", map[string]string{"CA": files["ca"]}).client("CA")
	require.NoError(t, err)
	eventuallyHealthy(t, client, hub.url+"/api/health")
	require.NoError(t, runHealthcheck(t.Context(), environmentOf("hub", hubValues), slog.New(slog.DiscardHandler)))
	count, err := mongod.Client.Database("hub").Collection("coi_definitions").CountDocuments(t.Context(), bson.D{})
	require.NoError(t, err)
	require.EqualValues(t, 2, count)

	registration := `{"instanceCode":"DEU","name":"Germany","baseUrl":"https://a.test","apiUrl":"https://a.test","idpUrl":"https://127.0.0.1:1",
		"requestedScopes":["policy:base"],"contactEmail":"a@b.test","skipValidation":true}`
	response, err := client.Post(hub.url+"/api/federation/register", "application/json", strings.NewReader(registration))
	require.NoError(t, err)
	defer response.Body.Close()
	var registered struct {
		Spoke struct{ SpokeID string }
		Token struct{ Token string }
	}
	require.NoError(t, json.NewDecoder(response.Body).Decode(&registered))
	require.Len(t, registered.Token.Token, 43, "a hub in development approves at once")

	backendValues := map[string]string{
		"MONGODB_URL": mongod.URI(), "MONGODB_DATABASE": "deu", "HUB_URL": hub.url, "HUB_CA_FILE": files["ca"],
		"SPOKE_TOKEN": registered.Token.Token, "SPOKE_ID": registered.Spoke.SpokeID, "HEARTBEAT_INTERVAL": "50ms", "SEED_FILE": seedFile,
		"INSTANCE_CODE": "DEU",
	}
	backend := start(t, "backend", backendValues)
	seen := eventuallyHealthy(t, http.DefaultClient, backend.url+"/api/health")
	require.Equal(t, fingerprint(registered.Token.Token), seen.Services["heartbeat"].Detail["token"])
	require.Equal(t, registered.Spoke.SpokeID, seen.Services["heartbeat"].Detail["spokeId"])
	require.NotContains(t, backend.log.String(), registered.Token.Token)
	require.NoError(t, runHealthcheck(t.Context(), environmentOf("backend", backendValues), slog.New(slog.DiscardHandler)))

	for _, name := range []string{"hub", "deu"} {
		provides(t, mongod.Client.Database(name), resources, "USA", "DEU")
	}

	files["pair"] = filepath.Join(dir, "pair.pem")
	require.NoError(t, os.WriteFile(files["pair"], slices.Concat(key, cert), 0o600))
	kasValues := map[string]string{
		"MONGODB_URL": mongod.URI(), "MONGODB_DATABASE": "deu", "BACKEND_URL": backend.url, "KAS_AUDIT": "siem",
		"TLS_CERT_FILE": files["pair"], "TLS_KEY_FILE": files["pair"], "TLS_CLIENT_CA_FILE": files["ca"],
	}
	kas := start(t, "kas", kasValues)
	known, err := environmentOf("test", map[string]string{"CA": files["ca"]}).client("CA")
	require.NoError(t, err)
	pair, err := tls.X509KeyPair(cert, key)
	require.NoError(t, err)
	known.Transport.(*http.Transport).TLSClientConfig.Certificates = []tls.Certificate{pair}
	eventuallyHealthy(t, known, kas.url+"/health")
	_, _, err = askHealth(client, kas.url+"/health")
	require.Error(t, err)
	bare, err := tls.Dial("tcp", strings.TrimPrefix(kas.url, "https://"), client.Transport.(*http.Transport).TLSClientConfig)
	require.NoError(t, err)
	defer func() { _ = bare.Close() }()
	_, err = bare.Read(make([]byte, 1)) // what is written may meet a closed connection first
	require.ErrorContains(t, err, "certificate required", "who shows none is refused")
	require.NoError(t, runHealthcheck(t.Context(), environmentOf("kas", kasValues), slog.New(slog.DiscardHandler)))
	frontend := start(t, "frontend", map[string]string{"BACKEND_URL": backend.url, "INSTANCE_CODE": "DEU"})
	eventuallyHealthy(t, http.DefaultClient, frontend.url+"/health")
	response, err = http.Get(frontend.url)
	require.NoError(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.Contains(t, string(body), "DIVE DEU")

	hub.stop()
	require.NoError(t, hub.ended(t))
	testbed.Eventually(t, 20*time.Second, "the backend is degraded without the hub", func() error {
		status, answer, err := askHealth(http.DefaultClient, backend.url+"/api/health")
		if err == nil && (status != http.StatusOK || answer.Status != "degraded" || answer.Services["heartbeat"].Healthy) {
			err = fmt.Errorf("%d %+v", status, answer)
		}
		return err
	})
}

// provides looks for what the backends of DIVE V3 hold: protected resources, and the links of two countries in both directions.
func provides(t *testing.T, db *mongo.Database, count int, one, other string) {
	t.Helper()
	protected := bson.D{{Key: "encrypted", Value: true}, {Key: "ztdf.payload.keyAccessObjects.0.kasId", Value: bson.D{{Key: "$exists", Value: true}}}}
	found, err := db.Collection("resources").CountDocuments(t.Context(), protected)
	require.NoError(t, err)
	require.EqualValues(t, count, found, db.Name())
	for _, pair := range [][2]string{{one, other}, {other, one}} {
		link := bson.D{{Key: "sourceCountry", Value: pair[0]}, {Key: "trustedCountries", Value: pair[1]}}
		found, err := db.Collection("federation_matrix").CountDocuments(t.Context(), link)
		require.NoError(t, err)
		require.EqualValues(t, 1, found, "%s trusts %s in %s", pair[0], pair[1], db.Name())
	}
}

func TestAuditTablesAndRedis(t *testing.T) {
	mongod := hubtest.StartMongo(t, true)
	postgres := startPeer(t, testbed.Postgres15, "5432", "POSTGRES_PASSWORD=pg-pass", "POSTGRES_DB=dive_v3_app")
	redis := startPeer(t, testbed.Redis7, "6379")
	url := "postgres://postgres:pg-pass@" + postgres + "/dive_v3_app"
	backend := start(t, "backend", map[string]string{"MONGODB_URL": mongod.URI(), "POSTGRES_URL": url, "REDIS_URL": "redis://" + redis})
	eventuallyHealthy(t, http.DefaultClient, backend.url+"/api/health")
	require.Equal(t, 3, tables(t, url))
}

func TestRolesThatAreToldToFail(t *testing.T) {
	mongod := hubtest.StartMongo(t, true)
	t.Run("exit", func(t *testing.T) {
		s := start(t, "backend", map[string]string{"MONGODB_URL": mongod.URI(), "BACKEND_FAIL": "exit"})
		require.ErrorContains(t, s.ended(t), "told to fail")
	})
	t.Run("unhealthy", func(t *testing.T) {
		values := map[string]string{"MONGODB_URL": mongod.URI(), "BACKEND_FAIL": "unhealthy"}
		s := start(t, "backend", values)
		testbed.Eventually(t, 20*time.Second, "503", func() error {
			status, answer, err := askHealth(http.DefaultClient, s.url+"/api/health")
			if err == nil && (status != http.StatusServiceUnavailable || answer.Status != "unhealthy") {
				err = fmt.Errorf("%d %+v", status, answer)
			}
			return err
		})
		require.Error(t, runHealthcheck(t.Context(), environmentOf("backend", values), slog.New(slog.DiscardHandler)))
	})
	t.Run("slow", func(t *testing.T) {
		s := start(t, "backend", map[string]string{"MONGODB_URL": mongod.URI(), "BACKEND_FAIL": "slow", "FAIL_DELAY": "500ms"})
		began := time.Now()
		eventuallyHealthy(t, http.DefaultClient, s.url+"/api/health")
		require.Greater(t, time.Since(began), 400*time.Millisecond)
	})
	t.Run("fail", func(t *testing.T) {
		s := start(t, "fail", map[string]string{"FAIL_SECRET": "SPOKE_TOKEN", "SPOKE_TOKEN": "token-1"})
		require.Equal(t, exitError(3), s.ended(t))
		require.Contains(t, s.log.String(), "token-1")
	})
	t.Run("wrong KAS_AUDIT", func(t *testing.T) {
		s := start(t, "kas", map[string]string{"MONGODB_URL": mongod.URI(), "BACKEND_URL": "http://127.0.0.1:1", "KAS_AUDIT": "syslog"})
		require.EqualError(t, s.ended(t), "config: KAS_AUDIT must be one of: none, file, siem")
	})
}

func TestSeedRefusesDocumentsWithoutID(t *testing.T) {
	mongod := hubtest.StartMongo(t, true)
	file := filepath.Join(t.TempDir(), "seed.json")
	require.NoError(t, os.WriteFile(file, []byte(`{"c": [{"n": 1}]}`), 0o600))
	values := map[string]string{"MONGODB_URL": mongod.URI(), "SEED_FILE": file}
	require.ErrorContains(t, runSeed(t.Context(), environmentOf("seed", values), slog.New(slog.DiscardHandler)), "c[0]")
}
