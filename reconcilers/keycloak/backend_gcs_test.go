package keycloak

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

// storage answers as Google's storage does for what Terraform asks: tokens, objects with generations, lists, an upload that only makes
// what is not there. It checks no token, and is no server that anybody runs.
type storage struct {
	mu      sync.Mutex
	objects map[string][]byte
	made    map[string]int // generation
	tokens  int
}

func (s *storage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, "/states/"), "/storage/v1/b/states/o/")
	w.Header().Set("Content-Type", "application/json")
	switch {
	case r.URL.Path == "/token":
		s.tokens++
		_, _ = fmt.Fprint(w, `{"access_token":"t","token_type":"Bearer","expires_in":3600}`)
	case strings.HasPrefix(r.URL.Path, "/upload/"):
		s.upload(w, r)
	case r.URL.Path == "/storage/v1/b/states/o":
		_, _ = fmt.Fprint(w, `{"kind":"storage#objects"}`)
	case s.objects[name] == nil:
		w.WriteHeader(http.StatusNotFound)
		_, _ = fmt.Fprint(w, `{"error":{"code":404,"message":"none","errors":[{"reason":"notFound"}]}}`)
	case r.Method == http.MethodDelete:
		delete(s.objects, name)
		w.WriteHeader(http.StatusNoContent)
	case strings.HasPrefix(r.URL.Path, "/storage/"):
		s.tell(w, name)
	default:
		w.Header().Set("X-Goog-Generation", fmt.Sprint(s.made[name]))
		_, _ = w.Write(s.objects[name])
	}
}

func (s *storage) tell(w io.Writer, name string) {
	_, _ = fmt.Fprintf(w, `{"kind":"storage#object","bucket":"states","name":%q,"generation":"%d","metageneration":"1","size":"%d"}`, name, s.made[name], len(s.objects[name]))
}

// upload takes the object in two parts: what it is, and its content.
func (s *storage) upload(w http.ResponseWriter, r *http.Request) {
	name := r.URL.Query().Get("name")
	if r.URL.Query().Get("ifGenerationMatch") == "0" && s.objects[name] != nil {
		w.WriteHeader(http.StatusPreconditionFailed)
		_, _ = fmt.Fprint(w, `{"error":{"code":412,"message":"it is there","errors":[{"reason":"conditionNotMet"}]}}`)
		return
	}
	_, params, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	parts := multipart.NewReader(r.Body, params["boundary"])
	_, _ = parts.NextPart()
	content, err := parts.NextPart()
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	s.objects[name], _ = io.ReadAll(content)
	s.made[name] = len(s.made)*100 + s.made[name] + 1
	s.tell(w, name)
}

// A state goes to Google's storage and back with its lineage. What Terraform makes there by looking is no state of ours, and a lost
// one is put back over it.
func TestAStateInGoogleStorage(t *testing.T) {
	t.Parallel()
	fake := &storage{objects: map[string][]byte{}, made: map[string]int{}}
	server := httptest.NewServer(fake)
	defer server.Close()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	account, err := json.Marshal(map[string]string{
		"type": "service_account", "project_id": "p", "private_key_id": "gcs-Secret-88cc", "client_email": "agent@example", "client_id": "1", "token_uri": server.URL + "/token",
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
	})
	require.NoError(t, err)
	s := newSite(t, "{kind: gcs, bucket: states, prefix: deu, address: '"+server.URL+"/storage/v1/', credentials: '${ACCOUNT}'}", map[string]desired.Value{"ACCOUNT": desired.Secret(string(account))})
	_, _, err = s.read(t.Context())
	require.ErrorIs(t, err, errNoState)
	require.NotEmpty(t, fake.objects[path.Join("deu", "default.tfstate")], "Terraform makes an empty one")

	data := stateOf(7, "one", "a", "b")
	state, err := parseState(data)
	require.NoError(t, err)
	require.NoError(t, s.write(t.Context(), data, state))
	_, there, err := s.read(t.Context())
	require.NoError(t, err)
	require.Equal(t, "one", there.Lineage)
	require.Equal(t, state.ids(), there.ids())

	s.l.record.Lineage, s.l.record.Serial = there.Lineage, there.Serial
	fake.mu.Lock()
	delete(fake.objects, "deu/default.tfstate")
	fake.mu.Unlock()
	_, _, err = s.read(t.Context())
	require.ErrorIs(t, err, errNoState, "an empty one of another lineage")
	require.NoError(t, s.write(t.Context(), data, state))
	keepsToItself(t, s, stateOf(30, "one", "a"), "4711", func() {
		fake.mu.Lock()
		defer fake.mu.Unlock()
		fake.objects["deu/default.tflock"] = []byte(`{"ID":"7b5e0a1c","Operation":"OperationTypeApply","Who":"somebody@else","Created":"2026-01-01T00:00:00Z"}`)
		fake.made["deu/default.tflock"] = 4711
	})
	w := &world{t: t, target: reconcilers.Target{Dir: s.l.work.dir}}
	w.nowhereWritten("gcs-Secret-88cc")
}
