package secretserver

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Vault stands for a Vault with one KV engine of version 2 and one AppRole. The zero Vault is unsealed and empty. It is safe for
// concurrent use.
type Vault struct {
	mu sync.Mutex
	// what follows is under mu
	sealed    bool
	denied    bool
	namespace string
	paths     map[string][]*version // "secret/deu" to its versions, oldest first
	tokens    map[string]time.Time  // until when each is good; zero: for good
	roles     map[string]string     // role ID to secret ID
	logins    int
	reads     int
}

type version struct {
	data    map[string]any
	deleted time.Time
	gone    bool // destroyed
}

// NewVault makes one that takes a token, and a role with its secret ID.
func NewVault(token, roleID, secretID string) *Vault {
	return &Vault{paths: map[string][]*version{}, tokens: map[string]time.Time{token: {}}, roles: map[string]string{roleID: secretID}}
}

// Seal seals or unseals it.
func (v *Vault) Seal(sealed bool) { v.set(func() { v.sealed = sealed }) }

// Deny takes all rights away, or gives them back.
func (v *Vault) Deny(denied bool) { v.set(func() { v.denied = denied }) }

// Namespace has it serve one namespace alone.
func (v *Vault) Namespace(name string) { v.set(func() { v.namespace = name }) }

// Revoke ends all tokens.
func (v *Vault) Revoke() { v.set(func() { clear(v.tokens) }) }

// Put writes a new version, as vault kv put does.
func (v *Vault) Put(mount, path string, data map[string]any) {
	v.set(func() { v.paths[mount+"/"+path] = append(v.paths[mount+"/"+path], &version{data: data}) })
}

// Delete deletes the newest version, as vault kv delete does; with destroy, its content for good.
func (v *Vault) Delete(mount, path string, destroy bool) {
	v.set(func() {
		list := v.paths[mount+"/"+path]
		last := list[len(list)-1]
		last.deleted, last.gone = time.Now().UTC(), destroy
	})
}

// Asked counts sign-ins and reads.
func (v *Vault) Asked() (logins, reads int) {
	v.set(func() { logins, reads = v.logins, v.reads })
	return logins, reads
}

func (v *Vault) set(do func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	do()
}

func (v *Vault) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v.mu.Lock()
	defer v.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	steps := strings.Split(strings.TrimPrefix(r.URL.Path, "/v1/"), "/")
	switch {
	case v.sealed:
		failed(w, http.StatusServiceUnavailable, "Vault is sealed")
	case r.Header.Get("X-Vault-Namespace") != v.namespace:
		failed(w, http.StatusForbidden, "permission denied")
	case len(steps) == 3 && steps[0] == "auth" && steps[1] == "approle" && steps[2] == "login" && (r.Method == http.MethodPost || r.Method == http.MethodPut):
		v.login(w, r)
	case len(steps) >= 3 && steps[1] == "data" && r.Method == http.MethodGet:
		v.read(w, r, steps[0], strings.Join(steps[2:], "/"))
	default:
		failed(w, http.StatusNotFound, fmt.Sprintf("no handler for route %q. route entry not found.", strings.TrimPrefix(r.URL.Path, "/v1/")))
	}
}

// failed answers as Vault does: a list of errors, which is empty where there is nothing to say.
func failed(w http.ResponseWriter, status int, errors ...string) {
	w.WriteHeader(status)
	if errors == nil {
		errors = []string{}
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"errors": errors})
}

const lease = 90 * time.Minute

func (v *Vault) login(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Role   string `json:"role_id"`
		Secret string `json:"secret_id"`
	}
	v.logins++
	err := json.NewDecoder(r.Body).Decode(&body)
	if secret, ok := v.roles[body.Role]; err != nil || !ok || secret != body.Secret {
		failed(w, http.StatusBadRequest, "invalid role or secret ID")
		return
	}
	token := fmt.Sprintf("hvs.session-token-%d", v.logins)
	v.tokens[token] = time.Now().Add(lease)
	_ = json.NewEncoder(w).Encode(map[string]any{
		"request_id": "0", "lease_id": "", "renewable": false, "lease_duration": 0, "data": nil, "wrap_info": nil, "warnings": nil,
		"auth": map[string]any{"client_token": token, "accessor": "a", "policies": []string{"default"}, "renewable": true, "lease_duration": int(lease.Seconds())},
	})
}

func (v *Vault) read(w http.ResponseWriter, r *http.Request, mount, path string) {
	v.reads++
	until, ok := v.tokens[r.Header.Get("X-Vault-Token")]
	if !ok || v.denied || !until.IsZero() && time.Now().After(until) {
		failed(w, http.StatusForbidden, "1 error occurred:\n\t* permission denied\n\n")
		return
	}
	list := v.paths[mount+"/"+path]
	n := len(list)
	if asked := r.URL.Query().Get("version"); asked != "" && asked != "0" {
		n, _ = strconv.Atoi(asked)
	}
	if n < 1 || n > len(list) {
		failed(w, http.StatusNotFound)
		return
	}
	one := list[n-1]
	deleted := ""
	data := one.data
	if !one.deleted.IsZero() {
		deleted, data = one.deleted.Format(time.RFC3339Nano), nil
		w.WriteHeader(http.StatusNotFound)
	}
	_ = json.NewEncoder(w).Encode(map[string]any{
		"request_id": "0", "lease_id": "", "renewable": false, "lease_duration": 0, "wrap_info": nil, "warnings": nil, "auth": nil,
		"data": map[string]any{
			"data":     data,
			"metadata": map[string]any{"created_time": "2026-11-22T14:00:00Z", "custom_metadata": nil, "deletion_time": deleted, "destroyed": one.gone, "version": n},
		},
	})
}
