package hub

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// Config of a hub. Store is required.
type Config struct {
	Store Store
	// AdminKey is what X-Admin-Key must say (FEDERATION_ADMIN_KEY); with none, every call of the hub's side is refused.
	AdminKey string
	// TokenTTL is how long a token lives; 24 h when zero (SPOKE_TOKEN_VALIDITY_MS).
	TokenTTL time.Duration
	// AutoApprove approves every registration at once, as the real hub does with AUTO_APPROVE_SPOKES=true, or with
	// NODE_ENV empty or development.
	AutoApprove bool
	// OPALURL and OPALMasterToken, when both are set, give approved spokes a token of the OPAL server as well.
	OPALURL, OPALMasterToken string
	// CascadeDelay is how long approve, suspend, unsuspend and revoke go on after the record has changed; the real hub
	// takes up to minutes over its identity provider and OPAL.
	CascadeDelay time.Duration
	// OwnCode makes the hub's own record hub-<code> at start; the real one has it or not, by timing.
	OwnCode string
	// Crash ends the process, as a heartbeat that finds no database does to the real hub; nil goes on.
	Crash func(error)
	// Code is the hub's country in links; default USA.
	Code string
	// Now is the clock; time.Now when nil.
	Now func() time.Time
	// Log takes what the hub does; dropped when nil. No token is ever logged.
	Log *slog.Logger
}

// Hub serves /api/federation.
type Hub struct {
	Config
	mux           *http.ServeMux
	policyVersion string
	started       time.Time
}

// New makes a hub and, with OwnCode, its own record.
func New(ctx context.Context, config Config) (*Hub, error) {
	if config.TokenTTL == 0 {
		config.TokenTTL = 24 * time.Hour
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	h := &Hub{Config: config, mux: http.NewServeMux(), started: config.Now()}
	h.policyVersion = "v" + h.started.UTC().Format("2006.01.02.150405.000") // another one at each start
	h.routes()
	if config.OwnCode != "" {
		if err := h.makeOwnRecord(ctx); err != nil {
			return nil, fmt.Errorf("make the hub's own record: %w", err)
		}
	}
	return h, nil
}

// ServeHTTP implements http.Handler.
func (h *Hub) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.mux.ServeHTTP(w, r) }

func (h *Hub) routes() {
	const base = "/api/federation"
	h.mux.HandleFunc("POST "+base+"/register", h.register)
	h.mux.HandleFunc("GET "+base+"/registration/{spoke}/status", h.registrationStatus)
	h.mux.HandleFunc("POST "+base+"/heartbeat", h.heartbeat)
	h.mux.HandleFunc("GET "+base+"/policy/version", h.policy)
	h.mux.HandleFunc("GET "+base+"/health", h.health)
	h.mux.HandleFunc("GET "+base+"/spokes", h.admin(h.listSpokes))
	h.mux.HandleFunc("GET "+base+"/spokes/pending", h.admin(h.listPending))
	h.mux.HandleFunc("GET "+base+"/spokes/{spoke}", h.admin(h.showSpoke))
	h.mux.HandleFunc("POST "+base+"/spokes/{spoke}/approve", h.admin(h.approve))
	h.mux.HandleFunc("POST "+base+"/spokes/{spoke}/suspend", h.admin(h.suspend))
	h.mux.HandleFunc("POST "+base+"/spokes/{spoke}/unsuspend", h.admin(h.unsuspend))
	h.mux.HandleFunc("POST "+base+"/spokes/{spoke}/revoke", h.admin(h.revoke))
	h.mux.HandleFunc("POST "+base+"/spokes/{spoke}/token", h.admin(h.mint))
}

// admin lets through who knows the admin key.
func (h *Hub) admin(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		key := r.Header.Get("X-Admin-Key")
		if key == "" || subtle.ConstantTimeCompare([]byte(key), []byte(h.AdminKey)) != 1 {
			answer(w, http.StatusUnauthorized, fields{
				"success": false, "error": "Authentication required",
				"message": "Log in, or send the admin key in X-Admin-Key",
			})
			return
		}
		next(w, r)
	}
}

func (h *Hub) makeOwnRecord(ctx context.Context) error {
	id := "hub-" + strings.ToLower(h.OwnCode)
	if _, err := h.Store.Spoke(ctx, id); !errors.Is(err, ErrNotFound) {
		return err
	}
	now := h.Now()
	by := "system"
	return h.Store.Save(ctx, &Record{
		ObjectID: bson.NewObjectID(), SpokeID: id, InstanceCode: strings.ToUpper(h.OwnCode), Name: "Hub", Country: strings.ToUpper(h.OwnCode),
		Status: Approved, ApprovedAt: &now, ApprovedBy: &by, AllowedPolicyScopes: []string{"policy:base"},
		DataIsolationLevel: "full", RegisteredAt: now, HeartbeatIntervalMs: 30000, TrustLevel: "national",
		MaxClassification: "TOP_SECRET",
	})
}

type fields map[string]any

func answer(w http.ResponseWriter, status int, body fields) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client is gone when this fails
}

func fail(w http.ResponseWriter, what string, err error) {
	answer(w, http.StatusInternalServerError, fields{"error": what, "message": err.Error()})
}

// readBody decodes up to 10 MiB of JSON; an empty body leaves into as it is.
func readBody(r *http.Request, into any) error {
	err := json.NewDecoder(http.MaxBytesReader(nil, r.Body, 10<<20)).Decode(into)
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// pause lets the time of a cascade pass, or ends with the hub's caller.
func pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

func randomHex(bytes int) string {
	b := make([]byte, bytes)
	rand.Read(b)
	return hex.EncodeToString(b)
}
