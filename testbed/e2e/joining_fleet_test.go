package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"dive-agent/report"
	"dive-agent/testbed"
	"dive-agent/testbed/agenttest"
	"dive-agent/testbed/hub"
	"dive-agent/testbed/hub/hubtest"
	"dive-agent/testbed/pki"
	"dive-agent/testbed/replicaset"
)

// beat is how often a spoke's backend sends heartbeats: what is wrong with a token has to be mended within it.
const beat = 30 * time.Second

// joining is a fleet of a hub and of spokes, each on a host of its own that is looked at as seldom as in production: nothing is
// found because a test looks often. The hub is its backend on a real MongoDB; a spoke is its registration and one
// container that has the token.
type joining struct {
	*small  // of the hub
	url     string
	ca      *pki.CA
	pair    [2][]byte // certificate and key of the hub's backend
	http    *http.Client
	hosts   map[string]*agenttest.Host                      // by instance
	tags    []string                                        // of the agents' builds
	more    string                                          // environment of the hub's backend, "KEY: value" lines
	usa     string                                          // more of component federation
	extend  func(files map[string]string) map[string]string // of the hub's instance; nil: as they are
	secrets map[string]string                               // more of the hub's
	config  string                                          // more of agent.yaml
}

const hubManifest = `apiVersion: dive/v1alpha1
kind: Instance
metadata: {name: usa}
spec:
  role: hub
  host: usa-01
  values: {code: USA, country: United States}
  secrets:
    MONGO_PASSWORD: {provide: true}
    MONGO_KEYFILE: {generate: {kind: mongodb-keyfile}, file: {path: mongo-keyfile, mode: "0400", owner: 999}}
    FEDERATION_ADMIN_KEY: {provide: true}
    HUB_TLS_CERT: {provide: true}
    HUB_TLS_KEY: {provide: true}
  components:
    stack:
      kind: ComposeStack
      project: %s
      healthTimeout: 60s
      environment:
        PORT: "%s"
        MONGO_PASSWORD: ${MONGO_PASSWORD}
        MONGODB_URL: ${database.uri}
        FEDERATION_ADMIN_KEY: ${FEDERATION_ADMIN_KEY}
        HUB_TLS_CERT: ${HUB_TLS_CERT}
        HUB_TLS_KEY: ${HUB_TLS_KEY}
    database:
      kind: MongoReplicaSet
      members: [{service: mongodb}]
      root: {username: admin, password: "${MONGO_PASSWORD}"}
      keyfile: ${MONGO_KEYFILE}
      database: dive-v3
    federation:
      kind: SpokeApprovals
      adminKey: ${FEDERATION_ADMIN_KEY}
      service: backend
      unknownSpokes: suspend
      publish: [handover]
%s`

const hubCompose = `services:
  mongodb:
    image: %s
    command: [mongod, --replSet, rs0, --keyFile, /etc/mongo-keyfile, --bind_ip_all, --oplogSize, "16", --wiredTigerCacheSizeGB, "0.25",
      --wiredTigerEngineConfigString, "log=(prealloc=false,file_max=4MB)", --setParameter, diagnosticDataCollectionEnabled=false]
    environment: {MONGO_INITDB_ROOT_USERNAME: admin, MONGO_INITDB_ROOT_PASSWORD: "${MONGO_PASSWORD}"}
    volumes: ["data:/data/db", "${SECRETS_DIR}/mongo-keyfile:/etc/mongo-keyfile:ro"]
    stop_grace_period: 60s
  backend:
    image: %s
    command: [hub]
    configs: [{source: cert, target: /etc/dive/hub.crt}, {source: key, target: /etc/dive/hub.key}]
    environment:
      PORT: "4000"
      NODE_ENV: production
      TLS_CERT_FILE: /etc/dive/hub.crt
      TLS_KEY_FILE: /etc/dive/hub.key
      FEDERATION_ADMIN_KEY: ${FEDERATION_ADMIN_KEY}
      MONGODB_URL: ${MONGODB_URL}
%s    ports: ["127.0.0.1:${PORT}:4000"]
    stop_grace_period: 5s
    restart: unless-stopped
    healthcheck: {test: [CMD, services, healthcheck], interval: 1s, timeout: 10s, retries: 30}
configs:
  cert: {content: "${HUB_TLS_CERT}"}
  key: {content: "${HUB_TLS_KEY}"}
volumes:
  data: {}
`

const spokeManifest = `apiVersion: dive/v1alpha1
kind: Instance
metadata: {name: %[1]s}
spec:
  role: spoke
  host: %[1]s-01
  values: {code: %[2]s, country: Spoke %[2]s}
  onRemove: %[3]s
  components:
    registration:
      kind: SpokeRegistration
      urls: {base: "https://%[1]s.test:3000", api: "https://%[1]s.test:4000", idp: "https://127.0.0.1:1"}
      contactEmail: ops@%[1]s.test
      requestedScopes: ["policy:base", "policy:org"]
      trustLevel: partner
      maxClassification: SECRET
      dataIsolationLevel: filtered
      publicKey: ssh-ed25519 %[2]s
      skipValidation: true
%[4]s    stack:
      kind: ComposeStack
      project: %[5]s
      environment: {IMAGE: "%[6]s", SPOKE_TOKEN: "${registration.token}"}
`

const spokeCompose = `services:
  backend:
    image: ${IMAGE}
    environment: {SPOKE_TOKEN: "${SPOKE_TOKEN}"}
    stop_grace_period: 1s
`

const (
	hubPassword = "Password-of-the-hubs-database"
	handed      = "      handover: ${instances.usa.federation.handover}\n"
)

// newJoining makes the fleet; nothing is merged and nothing runs. more is environment of the hub's backend.
func newJoining(t *testing.T, more string, tags ...string) *joining {
	t.Helper()
	j := &joining{small: newSmall(t), hosts: map[string]*agenttest.Host{}, tags: tags, more: more}
	j.url = fmt.Sprintf("https://127.0.0.1:%d", testbed.FreePort(t))
	var err error
	j.ca, err = pki.New("hub")
	require.NoError(t, err)
	j.pair[0], j.pair[1], err = j.ca.Issue("127.0.0.1", "localhost")
	require.NoError(t, err)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: j.ca.Pool()}}
	t.Cleanup(transport.CloseIdleConnections)
	j.http = &http.Client{Transport: transport, Timeout: 20 * time.Second}
	j.Merge("Begin", map[string]string{"fleet.yaml": j.fleet(""), "hub.pem": string(j.ca.PEM())})
	return j
}

// fleet is fleet.yaml; instance is "instance: usa, " once the hub is an instance of it.
func (j *joining) fleet(instance string) string {
	return fmt.Sprintf("apiVersion: dive/v1alpha1\nkind: Fleet\nmetadata: {name: test}\nspec: {hub: {%surl: %q, caFile: hub.pem}}\n", instance, j.url)
}

// enroll makes the host of an instance and merges its file. No agent runs yet.
func (j *joining) enroll(instances ...string) {
	j.t.Helper()
	files := map[string]string{}
	for _, name := range instances {
		project := j.projectOf(name)
		j.t.Cleanup(func() { removeProject(j.t, j.engine, project) }) // after the agent's end, else it brings back what it misses
		h := agenttest.NewHost(j.t, j.Fleet, agenttest.HostOptions{Name: name + "-01", Resync: "5m", Tags: j.tags, More: j.config})
		j.hosts[name], files["hosts/"+name+"-01.yaml"] = h, h.Do("enroll")
		if name == "usa" {
			provided := map[string]string{
				"MONGO_PASSWORD": hubPassword, "FEDERATION_ADMIN_KEY": hubtest.AdminKey,
				"HUB_TLS_CERT": string(j.pair[0]), "HUB_TLS_KEY": string(j.pair[1]),
			}
			maps.Copy(provided, j.secrets)
			for secret, value := range provided {
				setSecretOf(j.t, h, "usa", secret, value)
			}
			continue
		}
	}
	j.Merge("Enroll", files)
}

func (j *joining) projectOf(spoke string) string { return j.project + "-" + spoke }

// hubFiles are the hub's instance.
func (j *joining) hubFiles() map[string]string {
	var more strings.Builder
	for line := range strings.Lines(j.more) {
		more.WriteString("      " + line)
	}
	port := j.url[strings.LastIndex(j.url, ":")+1:]
	files := map[string]string{
		"fleet.yaml":                  j.fleet("instance: usa, "),
		"instances/usa/instance.yaml": fmt.Sprintf(hubManifest, j.project, port, j.usa),
		"instances/usa/compose.yaml":  fmt.Sprintf(hubCompose, testbed.Image(j.t, testbed.Mongod605), testbed.Image(j.t, testbed.Services), more.String()),
	}
	if j.extend != nil {
		files = j.extend(files)
	}
	return files
}

// spokeFiles are a spoke's instance; more are lines of its registration.
func (j *joining) spokeFiles(name, more string) map[string]string {
	return j.spokeFilesOn(name, "keep", more)
}

func (j *joining) spokeFilesOn(name, onRemove, more string) map[string]string {
	manifest := fmt.Sprintf(spokeManifest, name, strings.ToUpper(name), onRemove, more, j.projectOf(name), testbed.Image(j.t, testbed.Redis7))
	return map[string]string{"instances/" + name + "/instance.yaml": manifest, "instances/" + name + "/compose.yaml": spokeCompose}
}

// mergeAll merges the files of several as one commit.
func (j *joining) mergeAll(message string, parts ...map[string]string) string {
	j.t.Helper()
	files := map[string]string{}
	for _, part := range parts {
		maps.Copy(files, part)
	}
	return j.Merge(message, files)
}

// begin brings up the hub, and spokes that read what it hands over.
func (j *joining) begin(spokes ...string) {
	j.t.Helper()
	j.enroll(append([]string{"usa"}, spokes...)...)
	parts := []map[string]string{j.hubFiles()}
	for _, name := range spokes {
		parts = append(parts, j.spokeFiles(name, handed))
	}
	commit := j.mergeAll("Hub and spokes", parts...)
	for _, name := range append([]string{"usa"}, spokes...) {
		j.hosts[name].Launch()
	}
	for name, h := range j.hosts {
		h.AwaitPhase(3*soon, name, report.Ready, commit)
	}
}

// store is the hub's own, as its backend has it.
func (j *joining) store() hub.Store {
	j.t.Helper()
	store, err := hub.NewMongoStore(j.t.Context(), j.database(), time.Now)
	require.NoError(j.t, err)
	return store
}

// database is that of the hub, for as long as the test.
func (j *joining) database() *mongo.Database {
	j.t.Helper()
	set := replicaset.Set{Engine: j.engine, Project: j.project, Name: "rs0", User: "admin", Password: hubPassword}
	c, err := mongo.Connect(set.Options("mongodb"))
	require.NoError(j.t, err)
	j.t.Cleanup(func() { _ = c.Disconnect(context.Background()) })
	return c.Database("dive-v3")
}

// records are the states of all records, by code.
func (j *joining) records(store hub.Store) map[string]string {
	j.t.Helper()
	all, err := store.Spokes(j.t.Context(), "")
	require.NoError(j.t, err)
	states := map[string]string{}
	for _, r := range all {
		require.Empty(j.t, states[r.InstanceCode], "two records of "+r.InstanceCode)
		states[r.InstanceCode] = r.Status
	}
	return states
}

func (j *joining) record(store hub.Store, code string) *hub.Record {
	j.t.Helper()
	r, err := store.SpokeByCode(j.t.Context(), code)
	require.NoError(j.t, err)
	return r
}

// held is the token that the spoke's container has; empty: it does not run.
func (j *joining) held(spoke string) string {
	j.t.Helper()
	running, err := testbed.Running(j.t.Context(), j.engine, j.projectOf(spoke))
	require.NoError(j.t, err)
	c, runs := running["backend"]
	if !runs {
		return ""
	}
	found, err := j.engine.ContainerInspect(j.t.Context(), c.ID, client.ContainerInspectOptions{})
	if err != nil {
		return "" // it was just taken away
	}
	for _, line := range found.Container.Config.Env {
		if value, ok := strings.CutPrefix(line, "SPOKE_TOKEN="); ok {
			return value
		}
	}
	return ""
}

// beats sends a heartbeat as the spoke's container would, with the token that it has.
func (j *joining) beats(spoke string) error {
	j.t.Helper()
	token := j.held(spoke)
	if token == "" {
		return errNotYet
	}
	return j.beat(token)
}

func (j *joining) beat(token string) error {
	status, answer, err := j.call("POST", "/heartbeat", token, map[string]any{"spokeId": "any"})
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("the hub answered %d: %v", status, answer["error"])
	}
	return err
}

// awaitBeat waits until heartbeats of the spoke's container are taken.
func (j *joining) awaitBeat(limit time.Duration, spoke string) (took time.Duration) {
	j.t.Helper()
	began := time.Now()
	testbed.Eventually(j.t, limit, "heartbeats of "+spoke, func() error { return j.beats(spoke) })
	return time.Since(began)
}

// request is what a stranger sends, who says all that the true spoke would say but for the changes.
func (j *joining) request(name string, change map[string]any) map[string]any {
	code := strings.ToUpper(name)
	body := map[string]any{
		"instanceCode": code, "name": "Spoke " + code, "baseUrl": "https://" + name + ".test:3000", "apiUrl": "https://" + name + ".test:4000",
		"idpUrl": "https://127.0.0.1:1", "idpPublicUrl": "https://127.0.0.1:1", "contactEmail": "ops@" + name + ".test",
		"requestedScopes": []string{"policy:base", "policy:org"}, "publicKey": "ssh-ed25519 " + code, "skipValidation": true,
	}
	for key, value := range change {
		body[key] = value
	}
	return body
}

// register is what a stranger does, and gives the id that the hub made.
func (j *joining) register(name string, change map[string]any) (id string) {
	j.t.Helper()
	status, answer, err := j.call("POST", "/register", "", j.request(name, change))
	require.NoError(j.t, err)
	require.Equal(j.t, http.StatusCreated, status, "%v", answer)
	return answer["spoke"].(map[string]any)["spokeId"].(string)
}

// call asks the hub as anybody can, or with a spoke's token where it is not empty.
func (j *joining) call(method, path, token string, body map[string]any) (status int, answer map[string]any, err error) {
	data, err := json.Marshal(body)
	if err != nil {
		return 0, nil, err
	}
	request, err := http.NewRequestWithContext(j.t.Context(), method, j.url+"/api/federation"+path, bytes.NewReader(data))
	if err != nil {
		return 0, nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := j.http.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return 0, nil, err
	}
	return response.StatusCode, answer, json.Unmarshal(text, &answer)
}

// logOf is what a service of the hub wrote.
func (j *joining) logOf(service string) string {
	j.t.Helper()
	stream, err := j.engine.ContainerLogs(j.t.Context(), j.running()[service], client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true})
	require.NoError(j.t, err)
	defer func() { _ = stream.Close() }()
	text, err := io.ReadAll(stream)
	require.NoError(j.t, err)
	return string(text)
}

// component is what a status says of one.
func component(t *testing.T, s *report.Status, name string) report.Component {
	t.Helper()
	for _, c := range s.Components {
		if c.Name == name {
			return c
		}
	}
	t.Fatalf("the status has no component %s", name)
	return report.Component{}
}

// notes are those of the hub's approvals, and what its table says, as text.
func notes(t *testing.T, s *report.Status) string {
	t.Helper()
	text := why(s)
	for _, c := range s.Components {
		if c.Kind == "SpokeApprovals" {
			text += "\n" + strings.Join(c.Notes, "\n")
		}
	}
	for _, spoke := range s.Spokes {
		text += fmt.Sprintf("\n%s %s %s", spoke.Code, spoke.State, spoke.ID)
	}
	return text
}
