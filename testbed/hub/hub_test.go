package hub_test

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"regexp"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/testbed"
	"dive-agent/testbed/hub"
	"dive-agent/testbed/hub/hubtest"
)

type caller struct {
	t      *testing.T
	server *hubtest.Server
	client *http.Client
}

func newCaller(t *testing.T, server *hubtest.Server) *caller {
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: server.CA.Pool()}}
	t.Cleanup(transport.CloseIdleConnections)
	return &caller{t: t, server: server, client: &http.Client{Transport: transport, Timeout: 20 * time.Second}}
}

type object = map[string]any

// call sends JSON to a path below /api/federation. auth is "admin", "" or a bearer token.
func (c *caller) call(method, path, auth string, body any) (int, object) {
	c.t.Helper()
	var content io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		require.NoError(c.t, err)
		content = bytes.NewReader(data)
	}
	request, err := http.NewRequest(method, c.server.URL+"/api/federation"+path, content)
	require.NoError(c.t, err)
	switch auth {
	case "":
	case "admin":
		request.Header.Set("X-Admin-Key", hubtest.AdminKey)
	default:
		request.Header.Set("Authorization", "Bearer "+auth)
	}
	response, err := c.client.Do(request)
	require.NoError(c.t, err)
	defer response.Body.Close()
	var answer object
	require.NoError(c.t, json.NewDecoder(response.Body).Decode(&answer))
	return response.StatusCode, answer
}

func request(change object) object {
	body := object{
		"instanceCode": "deu", "name": "Germany", "baseUrl": "https://deu.test:3011", "apiUrl": "https://deu.test:4011",
		"idpUrl": "https://127.0.0.1:1", "requestedScopes": []string{"policy:base"}, "contactEmail": "ops@deu.test", "skipValidation": true,
	}
	for key, value := range change {
		body[key] = value
	}
	return body
}

var grant = object{"allowedScopes": []string{"policy:base"}, "trustLevel": "partner", "maxClassification": "SECRET", "dataIsolationLevel": "filtered"}

func (c *caller) register(change object) (id string, answer object) {
	c.t.Helper()
	status, answer := c.call("POST", "/register", "", request(change))
	require.Equal(c.t, 201, status, "%v", answer)
	return answer["spoke"].(object)["spokeId"].(string), answer
}

// stores runs a test against both stores: what they promise is the same.
func stores(t *testing.T, config hub.Config, test func(t *testing.T, c *caller)) {
	mongod := hubtest.StartMongo(t, true)
	t.Run("memory", func(t *testing.T) {
		test(t, newCaller(t, hubtest.StartWithStore(t, hub.NewMemoryStore(time.Now), config)))
	})
	t.Run("mongo", func(t *testing.T) {
		test(t, newCaller(t, hubtest.Start(t, mongod.Database(t), config)))
	})
}

func TestRegisterApproveHeartbeatRevoke(t *testing.T) {
	stores(t, hub.Config{}, func(t *testing.T, c *caller) {
		id, answer := c.register(nil)
		require.Regexp(t, regexp.MustCompile(`^spoke-deu-[0-9a-f]{8}$`), id)
		require.Nil(t, answer["token"])
		status, answer := c.call("GET", "/registration/deu/status", "", nil)
		require.Equal(t, 200, status)
		require.Equal(t, "pending", answer["status"])
		require.NotContains(t, answer, "token")

		_, answer = c.call("GET", "/spokes/pending", "admin", nil)
		record := answer["pending"].([]any)[0].(object)
		require.Equal(t, "DEU", record["instanceCode"])
		require.Equal(t, "minimal", record["dataIsolationLevel"])
		require.Empty(t, record["allowedPolicyScopes"])
		require.Contains(t, record, "_id")
		require.Contains(t, record, "publicKey")
		require.Nil(t, record["publicKey"])

		status, answer = c.call("POST", "/spokes/"+id+"/approve", "admin", grant)
		require.Equal(t, 200, status, "%v", answer)
		first := answer["token"].(object)["token"].(string)
		require.Len(t, first, 43)
		require.Nil(t, answer["opalToken"])
		status, answer = c.call("POST", "/spokes/"+id+"/approve", "admin", grant)
		require.Equal(t, 500, status)
		require.Contains(t, answer["message"], "already approved")

		_, answer = c.call("POST", "/spokes/"+id+"/token", "admin", nil)
		second := answer["token"].(object)["token"].(string)
		require.NotEqual(t, first, second)
		_, answer = c.call("GET", "/registration/"+id+"/status", "", nil)
		require.Equal(t, first, answer["token"].(object)["token"], "status hands out the oldest live token")

		now := time.Now().UTC().Format(time.RFC3339)
		status, answer = c.call("POST", "/heartbeat", second, object{"spokeId": "another", "services": object{"opa": object{"healthy": true, "lastCheck": now}}})
		require.Equal(t, 200, status, "%v", answer)
		require.Equal(t, id, answer["spokeId"], "the token decides")
		status, _ = c.call("POST", "/heartbeat", second, object{"spokeId": id, "services": object{"opa": object{"healthy": true}}})
		require.Equal(t, 400, status)

		status, _ = c.call("POST", "/spokes/"+id+"/revoke", "admin", object{"reason": "test"})
		require.Equal(t, 200, status)
		status, answer = c.call("POST", "/heartbeat", second, object{"spokeId": id})
		require.Equal(t, 401, status)
		require.Equal(t, "Token not found", answer["error"])
		again, _ := c.register(nil)
		require.NotEqual(t, id, again, "a revoked spoke gets a new id")
	})
}

func TestRegisteringAgainChangesNothing(t *testing.T) {
	stores(t, hub.Config{}, func(t *testing.T, c *caller) {
		id, _ := c.register(nil)
		again, answer := c.register(object{"name": "Another name", "baseUrl": "https://elsewhere.test"})
		require.Equal(t, id, again)
		require.Equal(t, "Germany", answer["spoke"].(object)["name"])
	})
}

func TestRefusals(t *testing.T) {
	c := newCaller(t, hubtest.StartWithStore(t, hub.NewMemoryStore(time.Now), hub.Config{}))
	id, _ := c.register(nil)
	for name, test := range map[string]struct {
		method, path, auth string
		body               any
		status             int
	}{
		"short code":           {"POST", "/register", "", request(object{"instanceCode": "DE"}), 400},
		"short name":           {"POST", "/register", "", request(object{"name": "DE"}), 400},
		"no scopes":            {"POST", "/register", "", request(object{"requestedScopes": []string{}}), 400},
		"no url":               {"POST", "/register", "", request(object{"apiUrl": "deu"}), 400},
		"no address":           {"POST", "/register", "", request(object{"contactEmail": "deu"}), 400},
		"wrong type":           {"POST", "/register", "", request(object{"name": 3}), 400},
		"silent idp":           {"POST", "/register", "", request(object{"skipValidation": false}), 400},
		"unknown status":       {"GET", "/registration/FRA/status", "", nil, 404},
		"no key":               {"GET", "/spokes", "", nil, 401},
		"code instead of id":   {"GET", "/spokes/DEU", "admin", nil, 404},
		"unknown approve":      {"POST", "/spokes/x/approve", "admin", grant, 500},
		"approve with nothing": {"POST", "/spokes/" + id + "/approve", "admin", object{}, 400},
		"suspend without why":  {"POST", "/spokes/" + id + "/suspend", "admin", nil, 400},
		"unsuspend pending":    {"POST", "/spokes/" + id + "/unsuspend", "admin", nil, 400},
		"token for pending":    {"POST", "/spokes/" + id + "/token", "admin", nil, 500},
		"heartbeat, no token":  {"POST", "/heartbeat", "", object{"spokeId": id}, 401},
	} {
		t.Run(name, func(t *testing.T) {
			status, answer := c.call(test.method, test.path, test.auth, test.body)
			require.Equal(t, test.status, status, "%v", answer)
		})
	}
}

func TestOddities(t *testing.T) {
	t.Run("partnerPreApproved is believed", func(t *testing.T) {
		c := newCaller(t, hubtest.StartWithStore(t, hub.NewMemoryStore(time.Now), hub.Config{}))
		_, answer := c.register(object{"partnerPreApproved": true, "partnerTrustLevel": "national", "partnerMaxClassification": "TOP_SECRET"})
		require.Equal(t, "approved", answer["spoke"].(object)["status"])
		require.NotNil(t, answer["token"])
	})
	t.Run("a suspended spoke that registers again is approved by an auto-approving hub", func(t *testing.T) {
		c := newCaller(t, hubtest.StartWithStore(t, hub.NewMemoryStore(time.Now), hub.Config{AutoApprove: true}))
		id, _ := c.register(nil)
		status, _ := c.call("POST", "/spokes/"+id+"/suspend", "admin", object{"reason": "test"})
		require.Equal(t, 200, status)
		_, answer := c.register(nil)
		require.Equal(t, "approved", answer["spoke"].(object)["status"])
	})
	t.Run("pending, suspend, unsuspend is approved without scopes", func(t *testing.T) {
		c := newCaller(t, hubtest.StartWithStore(t, hub.NewMemoryStore(time.Now), hub.Config{}))
		id, _ := c.register(nil)
		c.call("POST", "/spokes/"+id+"/suspend", "admin", object{"reason": "test"})
		c.call("POST", "/spokes/"+id+"/unsuspend", "admin", nil)
		_, answer := c.call("GET", "/registration/"+id+"/status", "", nil)
		require.Equal(t, "approved", answer["status"])
		require.Empty(t, answer["token"].(object)["scopes"])
	})
	t.Run("an expired token is followed by a new one in the status", func(t *testing.T) {
		clock := &stepClock{now: time.Now()}
		c := newCaller(t, hubtest.StartWithStore(t, hub.NewMemoryStore(clock.Now), hub.Config{Now: clock.Now, TokenTTL: time.Hour}))
		id, _ := c.register(nil)
		_, answer := c.call("POST", "/spokes/"+id+"/approve", "admin", grant)
		first := answer["token"].(object)["token"].(string)
		clock.step(2 * time.Hour)
		status, _ := c.call("POST", "/heartbeat", first, object{"spokeId": id})
		require.Equal(t, 401, status)
		_, answer = c.call("GET", "/registration/"+id+"/status", "", nil)
		require.NotEqual(t, first, answer["token"].(object)["token"])
	})
	t.Run("the hub's own record gives anyone a token", func(t *testing.T) {
		c := newCaller(t, hubtest.StartWithStore(t, hub.NewMemoryStore(time.Now), hub.Config{OwnCode: "USA"}))
		_, answer := c.call("GET", "/registration/usa/status", "", nil)
		require.Equal(t, "hub-usa", answer["spokeId"])
		require.Len(t, answer["token"].(object)["token"], 43)
	})
}

// must is a call that is answered with 200 or 201.
func (c *caller) must(method, path, auth string, body any) object {
	c.t.Helper()
	status, answer := c.call(method, path, auth, body)
	require.Contains(c.t, []int{200, 201}, status, "%s %s: %v", method, path, answer)
	return answer
}

// approve approves a spoke and gives its token.
func (c *caller) approve(id string) string {
	c.t.Helper()
	return c.must("POST", "/spokes/"+id+"/approve", "admin", grant)["token"].(object)["token"].(string)
}

// record is what the hub's side sees of a spoke.
func (c *caller) record(id string) object {
	c.t.Helper()
	return c.must("GET", "/spokes/"+id, "admin", nil)["spoke"].(object)
}

func body(content any) io.Reader {
	data, _ := json.Marshal(content) // of literals
	return bytes.NewReader(data)
}

func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	testbed.Eventually(t, 20*time.Second, what, func() error {
		if !is() {
			return errors.New("not yet")
		}
		return nil
	})
}

type stepClock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *stepClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *stepClock) step(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}
