package hub_test

import (
	"context"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"

	"dive-agent/testbed/hub"
	"dive-agent/testbed/hub/hubtest"
)

// The federation service's contract, line by line, in the order in which it is written down: what a spoke calls, what the
// hub's side calls, and then what the running program was seen to do in spite of its documents.

func inMemory(t *testing.T, config hub.Config) *caller {
	t.Helper()
	now := config.Now
	if now == nil {
		now = time.Now
	}
	return newCaller(t, hubtest.StartWithStore(t, hub.NewMemoryStore(now), config))
}

func TestContractOfRegister(t *testing.T) {
	t.Parallel()
	c := inMemory(t, hub.Config{})
	t.Run("201 with the spoke, and no token while pending", func(t *testing.T) {
		_, answer := c.register(object{"idpPublicUrl": "https://login.deu.test"})
		require.Equal(t, true, answer["success"])
		spoke := answer["spoke"].(object)
		require.Equal(t, "DEU", spoke["instanceCode"], "the hub writes codes in capitals")
		require.Equal(t, "pending", spoke["status"])
		require.Contains(t, spoke, "message")
		require.Contains(t, answer, "token")
		require.Nil(t, answer["token"])
		require.Contains(t, answer, "opalToken")
		require.Nil(t, answer["opalToken"])
	})
	t.Run("each rule of a field is a 400 with details", func(t *testing.T) {
		for field, wrong := range map[string]any{
			"instanceCode": "GERM", "name": strings.Repeat("x", 101), "baseUrl": "deu", "apiUrl": "", "idpUrl": "x", "idpPublicUrl": "x",
			"requestedScopes": []string{}, "contactEmail": "nobody",
		} {
			status, answer := c.call("POST", "/register", "", request(object{"instanceCode": "XAA", field: wrong}))
			require.Equal(t, 400, status, field)
			details := answer["details"].([]any)
			require.Equal(t, field, details[0].(object)["path"].([]any)[0], "%v", answer)
		}
	})
	t.Run("a body that is no JSON is a 500", func(t *testing.T) {
		response, err := c.client.Post(c.server.URL+"/api/federation/register", "application/json", strings.NewReader("{"))
		require.NoError(t, err)
		response.Body.Close()
		require.Equal(t, 500, response.StatusCode)
	})
	t.Run("a certificate is base64 of its PEM", func(t *testing.T) {
		pem := "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
		id, _ := c.register(object{"instanceCode": "FRA", "certificatePEM": base64.StdEncoding.EncodeToString([]byte(pem)), "publicKey": "ssh-ed25519 AAAA"})
		record := c.record(id)
		require.Equal(t, pem, record["certificatePEM"])
		require.Equal(t, "ssh-ed25519 AAAA", record["publicKey"])
	})
	t.Run("a revoked spoke gets a new id", func(t *testing.T) {
		id, _ := c.register(object{"instanceCode": "GBR"})
		c.must("POST", "/spokes/"+id+"/revoke", "admin", object{"reason": "test"})
		again, answer := c.register(object{"instanceCode": "GBR", "baseUrl": "https://elsewhere.test"})
		require.NotEqual(t, id, again)
		require.Equal(t, "pending", answer["spoke"].(object)["status"])
		require.Equal(t, "https://elsewhere.test", c.record(again)["baseUrl"])
	})
}

func TestContractOfStatusAndHeartbeat(t *testing.T) {
	t.Parallel()
	c := inMemory(t, hub.Config{})
	id, _ := c.register(nil)
	for _, name := range []string{id, "DEU", "deu"} {
		answer := c.must("GET", "/registration/"+name+"/status", "", nil)
		require.Equal(t, id, answer["spokeId"])
		require.Contains(t, answer, "registeredAt")
		require.NotContains(t, answer, "token")
	}
	token := c.approve(id)
	require.Len(t, token, 43)
	answer := c.must("GET", "/registration/deu/status", "", nil)
	require.Equal(t, token, answer["token"].(object)["token"])
	require.Contains(t, answer, "approvedAt")

	version := c.must("GET", "/policy/version", "", nil)["version"]
	beat := c.must("POST", "/heartbeat", token, object{"spokeId": id, "policyVersion": version})
	require.Equal(t, "current", beat["syncStatus"])
	require.Equal(t, version, beat["currentPolicyVersion"])
	require.Equal(t, "DEU", beat["instanceCode"])
	require.Equal(t, "behind", c.must("POST", "/heartbeat", token, object{"spokeId": id, "policyVersion": "old"})["syncStatus"])
	status, _ := c.call("POST", "/heartbeat", token, object{"policyVersion": version})
	require.Equal(t, 400, status, "spokeId is required, though the token decides")
	status, _ = c.call("POST", "/heartbeat", "nobody", object{"spokeId": id})
	require.Equal(t, 401, status)
}

func TestContractOfAgesAndLives(t *testing.T) {
	t.Parallel()
	clock := &stepClock{now: time.Now()}
	c := inMemory(t, hub.Config{Now: clock.Now})
	id, _ := c.register(nil)
	token := c.approve(id)
	c.must("POST", "/heartbeat", token, object{"spokeId": id})
	clock.step(89 * time.Second)
	require.Equal(t, true, c.must("GET", "/spokes/"+id, "admin", nil)["health"].(object)["healthy"])
	clock.step(2 * time.Second)
	require.Equal(t, false, c.must("GET", "/spokes/"+id, "admin", nil)["health"].(object)["healthy"], "unhealthy after 90 s")
	require.Equal(t, false, c.must("GET", "/health", "", nil)["healthy"])
	clock.step(24*time.Hour - 92*time.Second)
	c.must("POST", "/heartbeat", token, object{"spokeId": id})
	clock.step(2 * time.Second)
	status, answer := c.call("POST", "/heartbeat", token, object{"spokeId": id})
	require.Equal(t, 401, status, "a token is valid for 24 h")
	require.Equal(t, "Token not found", answer["error"])
}

func TestContractOfTheHubsSide(t *testing.T) {
	t.Parallel()
	c := inMemory(t, hub.Config{})
	id, _ := c.register(nil)
	for _, call := range []string{"GET /spokes", "GET /spokes/pending", "GET /spokes/" + id, "POST /spokes/" + id + "/approve", "POST /spokes/" + id + "/token"} {
		method, path, _ := strings.Cut(call, " ")
		status, _ := c.call(method, path, "", nil)
		require.Equal(t, 401, status, call)
		status, _ = c.call(method, path, "wrong", nil)
		require.Equal(t, 401, status, call)
	}
	for field := range grant {
		part := object{}
		for name, value := range grant {
			if name != field {
				part[name] = value
			}
		}
		status, answer := c.call("POST", "/spokes/"+id+"/approve", "admin", part)
		require.Equal(t, 400, status, "%s is required: %v", field, answer)
	}
	answer := c.must("POST", "/spokes/"+id+"/approve", "admin", grant)
	require.Equal(t, "SECRET", answer["spoke"].(object)["maxClassificationAllowed"])
	require.Equal(t, float64(1), c.must("GET", "/spokes", "admin", nil)["statistics"].(object)["activeSpokes"])
	c.must("POST", "/spokes/"+id+"/suspend", "admin", object{"reason": "test"})
	answer = c.must("POST", "/spokes/"+id+"/unsuspend", "admin", object{"reason": "test"})
	require.NotContains(t, answer, "token", "unsuspend issues no token")
	request, err := http.NewRequest(http.MethodDelete, c.server.URL+"/api/federation/spokes/"+id, http.NoBody)
	require.NoError(t, err)
	request.Header.Set("X-Admin-Key", hubtest.AdminKey)
	response, err := c.client.Do(request)
	require.NoError(t, err)
	response.Body.Close()
	require.GreaterOrEqual(t, response.StatusCode, 400, "nothing deregisters")
}

func TestContractSeenOnTheRunningHub(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]func(t *testing.T){
		"1 what is asked for is not stored":                        seenNotStored,
		"2 a heartbeat writes back the record that it read":        seenHeartbeatWritesBack,
		"3 approve takes long, the status changes at once":         seenApproveTakesLong,
		"4 partnerPreApproved approves at once":                    seenPreApproved,
		"5 the state machine is not enforced":                      seenNoMachine,
		"6 anyone may be USA":                                      seenStrangerIsUSA,
		"7 a dead token does not tell why":                         seenDeadToken,
		"8 tokens live side by side, the oldest is shown":          seenOldestToken,
		"9 the policy version changes with a start, tokens do not": seenRestart,
		"10 skipValidation skips the verdict, not the call":        seenSkipValidation,
		"11 no identity provider without an admin password":        seenNoAlias,
		"13 automatic approval":                                    seenAutoApprove,
		"14 ids, codes and answers":                                seenAnswers,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t)
		})
	}
}

func seenNotStored(t *testing.T) {
	c := inMemory(t, hub.Config{})
	id, _ := c.register(object{"requestedScopes": []string{"policy:base", "policy:org"}})
	record := c.record(id)
	require.Empty(t, record["allowedPolicyScopes"])
	require.NotContains(t, record, "requestedScopes")
	require.Equal(t, []any{"development", "UNCLASSIFIED", "minimal"}, []any{record["trustLevel"], record["maxClassificationAllowed"], record["dataIsolationLevel"]})
	for _, optional := range []string{"description", "idpPublicUrl", "publicKey", "certificatePEM"} {
		require.Contains(t, record, optional)
		require.Nil(t, record[optional], optional)
	}
	require.Contains(t, record, "_id")
}

// heldStore stops a call of Save of one record until it is let go.
type heldStore struct {
	hub.Store
	reached, go_ chan struct{}
	armed        chan struct{} // holds one: the next Save of an approved record waits
}

func (s *heldStore) Save(ctx context.Context, record *hub.Record) error {
	if record.Status == hub.Approved && record.LastHeartbeat != nil {
		select {
		case <-s.armed:
			close(s.reached)
			<-s.go_
		default:
		}
	}
	return s.Store.Save(ctx, record)
}

func seenHeartbeatWritesBack(t *testing.T) {
	store := &heldStore{Store: hub.NewMemoryStore(time.Now), reached: make(chan struct{}), go_: make(chan struct{}), armed: make(chan struct{}, 1)}
	c := newCaller(t, hubtest.StartWithStore(t, store, hub.Config{}))
	id, _ := c.register(nil)
	token := c.approve(id)
	store.armed <- struct{}{}
	beat := make(chan int)
	go func() {
		status, _ := c.call("POST", "/heartbeat", token, object{"spokeId": id})
		beat <- status
	}()
	<-store.reached
	c.must("POST", "/spokes/"+id+"/suspend", "admin", object{"reason": "test"})
	close(store.go_)
	require.Equal(t, 200, <-beat)
	answer := c.must("GET", "/registration/"+id+"/status", "", nil)
	require.Equal(t, "approved", answer["status"], "the suspension, which was answered with 200, is undone")
	require.NotEqual(t, token, answer["token"].(object)["token"], "its tokens are gone, and the status hands out a new one")
}

func seenApproveTakesLong(t *testing.T) {
	c := inMemory(t, hub.Config{CascadeDelay: time.Hour})
	id, _ := c.register(nil)
	ctx, cancel := context.WithCancel(t.Context())
	asked := make(chan error)
	go func() {
		request, _ := http.NewRequestWithContext(ctx, http.MethodPost, c.server.URL+"/api/federation/spokes/"+id+"/approve", body(grant))
		request.Header.Set("X-Admin-Key", hubtest.AdminKey)
		response, err := c.client.Do(request)
		if err == nil {
			response.Body.Close()
		}
		asked <- err
	}()
	until(t, "the record is approved while the call goes on", func() bool { return c.record(id)["status"] == "approved" })
	cancel()
	require.Error(t, <-asked)
	status, answer := c.call("POST", "/spokes/"+id+"/approve", "admin", grant)
	require.Equal(t, 500, status)
	require.Contains(t, answer["message"], "already approved")
}

func seenPreApproved(t *testing.T) {
	c := inMemory(t, hub.Config{})
	id, answer := c.register(object{"partnerPreApproved": true, "partnerTrustLevel": "national", "partnerMaxClassification": "TOP_SECRET"})
	require.Equal(t, "approved", answer["spoke"].(object)["status"])
	require.Len(t, answer["token"].(object)["token"], 43)
	record := c.record(id)
	require.Equal(t, []any{"national", "TOP_SECRET"}, []any{record["trustLevel"], record["maxClassificationAllowed"]})
}

func seenNoMachine(t *testing.T) {
	c := inMemory(t, hub.Config{})
	id, _ := c.register(nil)
	c.must("POST", "/spokes/"+id+"/suspend", "admin", object{"reason": "test"})
	c.must("POST", "/spokes/"+id+"/unsuspend", "admin", object{"reason": "test"})
	record := c.record(id)
	require.Equal(t, "approved", record["status"])
	require.Empty(t, record["allowedPolicyScopes"])
	token := c.must("GET", "/registration/deu/status", "", nil)["token"].(object)["token"].(string)
	c.must("POST", "/heartbeat", token, object{"spokeId": id})
	for _, from := range []string{"suspend", "revoke"} {
		c.must("POST", "/spokes/"+id+"/"+from, "admin", object{"reason": "test"})
		c.must("POST", "/spokes/"+id+"/approve", "admin", grant)
		require.Equal(t, "approved", c.record(id)["status"], "approve works after %s", from)
	}
	for _, call := range []string{"revoke", "suspend", "unsuspend"} {
		c.must("POST", "/spokes/"+id+"/"+call, "admin", object{"reason": "test"})
	}
	require.Equal(t, "approved", c.record(id)["status"])
}

func seenStrangerIsUSA(t *testing.T) {
	without := inMemory(t, hub.Config{})
	_, answer := without.register(object{"instanceCode": "USA"})
	require.Equal(t, "pending", answer["spoke"].(object)["status"])
	with := inMemory(t, hub.Config{OwnCode: "USA"})
	id, answer := with.register(object{"instanceCode": "USA"})
	require.Equal(t, "hub-usa", id)
	token := answer["token"].(object)["token"].(string)
	with.must("POST", "/heartbeat", token, object{"spokeId": id})
	require.Len(t, with.must("GET", "/registration/usa/status", "", nil)["token"].(object)["token"], 43)
}

func seenDeadToken(t *testing.T) {
	clock := &stepClock{now: time.Now()}
	c := inMemory(t, hub.Config{Now: clock.Now, TokenTTL: time.Hour})
	refused := func(token, why string) {
		status, answer := c.call("POST", "/heartbeat", token, object{"spokeId": "x"})
		require.Equal(t, 401, status, why)
		require.Equal(t, "Token not found", answer["error"], why)
	}
	refused("unknown", "unknown")
	for _, call := range []string{"suspend", "revoke"} {
		id, _ := c.register(object{"instanceCode": "D" + strings.ToUpper(call[:2])})
		token := c.approve(id)
		c.must("POST", "/spokes/"+id+"/"+call, "admin", object{"reason": "test"})
		refused(token, call)
		require.Contains(t, c.must("GET", "/registration/"+id+"/status", "", nil)["status"], call[:4], "the status call tells why")
	}
	id, _ := c.register(nil)
	token := c.approve(id)
	clock.step(2 * time.Hour)
	refused(token, "expired")
}

func seenOldestToken(t *testing.T) {
	c := inMemory(t, hub.Config{})
	id, _ := c.register(nil)
	first := c.approve(id)
	second := c.must("POST", "/spokes/"+id+"/token", "admin", nil)["token"].(object)["token"].(string)
	require.NotEqual(t, first, second)
	for _, token := range []string{first, second} {
		c.must("POST", "/heartbeat", token, object{"spokeId": id})
	}
	require.Equal(t, first, c.must("GET", "/registration/deu/status", "", nil)["token"].(object)["token"])
	_, answer := c.register(nil)
	require.Equal(t, first, answer["token"].(object)["token"], "registering again gives the live token to anyone")
}

func seenRestart(t *testing.T) {
	clock := &stepClock{now: time.Now()}
	store := hub.NewMemoryStore(clock.Now)
	before := newCaller(t, hubtest.StartWithStore(t, store, hub.Config{Now: clock.Now}))
	id, _ := before.register(nil)
	token := before.approve(id)
	version := before.must("GET", "/policy/version", "", nil)["version"]
	clock.step(time.Second)
	after := newCaller(t, hubtest.StartWithStore(t, store, hub.Config{Now: clock.Now}))
	require.NotEqual(t, version, after.must("GET", "/policy/version", "", nil)["version"])
	require.Equal(t, "behind", after.must("POST", "/heartbeat", token, object{"spokeId": id, "policyVersion": version})["syncStatus"])
}

func seenSkipValidation(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { listener.Close() })
	called := make(chan struct{}, 1)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			called <- struct{}{}
			conn.Close() // no TLS at all
		}
	}()
	c := inMemory(t, hub.Config{})
	c.register(object{"idpUrl": "https://" + listener.Addr().String()})
	<-called
	trusted := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(trusted.Close)
	c.register(object{"instanceCode": "FRA", "skipValidation": false, "idpUrl": trusted.URL}) // its certificate is nobody's
}

func seenNoAlias(t *testing.T) {
	c := inMemory(t, hub.Config{})
	id, _ := c.register(nil)
	c.approve(id)
	require.Nil(t, c.record(id)["federationIdPAlias"])
}

func seenAutoApprove(t *testing.T) {
	c := inMemory(t, hub.Config{AutoApprove: true})
	id, answer := c.register(nil)
	require.Len(t, answer["token"].(object)["token"], 43)
	record := c.record(id)
	require.Equal(t, []any{"development", "SECRET", "filtered", "auto-approval-system"},
		[]any{record["trustLevel"], record["maxClassificationAllowed"], record["dataIsolationLevel"], record["approvedBy"]})
	c.must("POST", "/spokes/"+id+"/suspend", "admin", object{"reason": "test"})
	_, answer = c.register(nil)
	require.Equal(t, "approved", answer["spoke"].(object)["status"], "a suspended spoke that registers again is approved")
}

func seenAnswers(t *testing.T) {
	c := inMemory(t, hub.Config{})
	id, _ := c.register(nil)
	status, _ := c.call("GET", "/spokes/DEU", "admin", nil)
	require.Equal(t, 404, status, "an id only")
	for _, call := range []string{"approve", "suspend", "revoke", "token"} {
		body := object{"reason": "test"}
		if call == "approve" {
			body = grant
		}
		status, answer := c.call("POST", "/spokes/nobody/"+call, "admin", body)
		require.Equal(t, 500, status, call)
		require.Equal(t, "Spoke nobody not found", answer["message"])
	}
	status, _ = c.call("POST", "/spokes/"+id+"/revoke", "admin", object{})
	require.Equal(t, 400, status, "a reason is required")
	c.must("POST", "/spokes/"+id+"/suspend", "admin", object{"reason": "test"})
	status, answer := c.call("POST", "/register", "", request(nil))
	require.Equal(t, 201, status)
	require.Equal(t, "suspended", answer["spoke"].(object)["status"], "201 for a suspended spoke too")
	for range 2 {
		c.must("POST", "/spokes/"+id+"/revoke", "admin", object{"reason": "test"})
	}
}

// 12: with mongod down, a status is a 500 when the driver gives up (after 30 s by default), a heartbeat has no answer, and
// the hub's process ends.
func TestContractWithoutADatabase(t *testing.T) {
	t.Parallel()
	mongod := hubtest.StartMongo(t, true)
	crashed := make(chan error, 1)
	c := newCaller(t, hubtest.Start(t, mongod.Database(t), hub.Config{Crash: func(err error) { crashed <- err }}))
	id, _ := c.register(nil)
	token := c.approve(id)
	_, err := mongod.Engine.ContainerKill(t.Context(), mongod.ID, client.ContainerKillOptions{})
	require.NoError(t, err)
	status, answer := c.call("GET", "/registration/deu/status", "", nil)
	require.Equal(t, 500, status, "%v", answer)
	require.Empty(t, crashed)
	request, err := http.NewRequest(http.MethodPost, c.server.URL+"/api/federation/heartbeat", body(object{"spokeId": id}))
	require.NoError(t, err)
	request.Header.Set("Authorization", "Bearer "+token)
	_, err = c.client.Do(request) //nolint:bodyclose // there is none
	require.ErrorIs(t, err, io.EOF)
	require.Error(t, <-crashed)
}
