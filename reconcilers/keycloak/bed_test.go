package keycloak

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/reconcilers"
	"dive-agent/reconcilers/internal/lab"
	"dive-agent/testbed"
)

const (
	adminPassword = "admin-Secret-77aa01"
	clientSecret  = "client-Secret-55bb02-0123456789"
	statePassword = "state-Secret-33dd04"
)

// testedTool is the program with which the suite runs: DIVE_TOOL, else terraform.
func testedTool() string {
	if name := os.Getenv("DIVE_TOOL"); name != "" {
		return name
	}
	return terraform
}

// toolPath finds it.
func toolPath(t *testing.T) string {
	t.Helper()
	if testedTool() == opentofu {
		return testbed.OpenTofu(t)
	}
	path, err := exec.LookPath("terraform")
	require.NoError(t, err)
	return path
}

// bed is a real Keycloak on a real PostgreSQL, and a provider mirror.
type bed struct {
	lab    *lab.Lab
	mirror testbed.Mirror
	url    string

	profile   sync.Mutex // held while the master realm's user profile is changed
	mu        sync.Mutex
	databases map[string]string // for states, by the test
}

// quickHashes are for a server with a few hundred sign-ins by password, whose hashes would be a third of its work.
var quickHashes = []string{"--spi-password-hashing--argon2--iterations=1", "--spi-password-hashing--argon2--memory=512"}

func newBed(t *testing.T) *bed {
	t.Helper()
	keycloak, postgres := testbed.Image(t, testbed.Keycloak), testbed.Image(t, testbed.Postgres15)
	b := &bed{lab: lab.New(t), mirror: testbed.ProviderMirror(t), databases: map[string]string{}}
	b.lab.Run("postgres", lab.Service{Image: postgres, Env: []string{"POSTGRES_PASSWORD=pg-Secret-1", "POSTGRES_USER=keycloak", "POSTGRES_DB=keycloak"}})
	b.lab.Run("states", lab.Service{Image: postgres, Env: []string{"POSTGRES_PASSWORD=" + statePassword, "POSTGRES_USER=terraform", "POSTGRES_DB=terraform"}})
	b.lab.Run("keycloak", lab.Service{
		Image:   keycloak,
		Command: append([]string{"start", "--optimized", "--http-enabled=true", "--hostname-strict=false"}, quickHashes...),
		Env: []string{
			"KC_BOOTSTRAP_ADMIN_USERNAME=admin", "KC_BOOTSTRAP_ADMIN_PASSWORD=" + adminPassword,
			"KC_DB_URL=jdbc:postgresql://postgres:5432/keycloak", "KC_DB_USERNAME=keycloak", "KC_DB_PASSWORD=pg-Secret-1",
			"JAVA_OPTS_APPEND=-XX:-UseG1GC -XX:+UseSerialGC", // without the image's limit to the quick compiler: it lives long
		},
	})
	t.Cleanup(func() { b.tellErrors(t) })
	b.await(t)
	return b
}

// tellErrors writes the last errors of the server's log to that of a test that failed.
func (b *bed) tellErrors(t *testing.T) {
	if !t.Failed() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	log, err := b.lab.Logs(ctx, "keycloak", time.Time{}, 0)
	if err != nil {
		t.Logf("what Keycloak says of it cannot be read: %v", err)
		return
	}
	defer log.Close()
	for _, one := range errorsIn(log, 10, 40) {
		t.Logf("Keycloak says:\n%s", one)
	}
}

// entry begins an entry of Keycloak's log; what follows belongs to it, such as a stack trace.
var entry = regexp.MustCompile(`^\d{4}-\d{2}-\d{2} \S+ +([A-Z]+) `)

// errorsIn gives the last errors of a log of Keycloak's, each with its first lines and with all that name a cause.
func errorsIn(log io.Reader, last, lines int) (all []string) {
	var taken int // lines of the error that is read; none while it is no error
	for scanner := bufio.NewScanner(log); scanner.Scan(); {
		line := scanner.Text()
		begins := entry.FindStringSubmatch(line)
		switch {
		case begins != nil && begins[1] == "ERROR":
			all, taken = append(all, line), 1
			all = all[max(0, len(all)-last):]
		case begins != nil:
			taken = 0
		case taken > 0 && (taken < lines || strings.HasPrefix(line, "Caused by: ")):
			all[len(all)-1] += "\n" + line
			taken++
		}
	}
	return all
}

// await waits until the server is ready, and takes its address.
func (b *bed) await(t *testing.T) {
	t.Helper()
	testbed.Eventually(t, 5*time.Minute, "Keycloak is ready", func() error {
		c, err := b.lab.Find(t.Context(), "keycloak")
		if err != nil {
			// A first start may come before PostgreSQL accepts connections, and ends then.
			b.lab.Start("keycloak")
			return err
		}
		b.url = "http://" + c.Addr().String() + ":8080"
		s, err := newServer(b.url, "")
		if err != nil {
			return err
		}
		return s.ready(t.Context())
	})
}

// clock is a time that stands until it is moved.
type clock struct {
	mu    sync.Mutex
	now   time.Time
	hurry bool // no wait lasts
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) After(d time.Duration) <-chan time.Time {
	if c.hurry {
		d = 0
	}
	return time.After(d)
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// world is one component with a realm of its own.
type world struct {
	t      *testing.T
	bed    *bed
	clock  *clock
	spec   *Spec
	target reconcilers.Target
	realm  string
	calls  string // file with a line for each Terraform process
	tool   string
	said   *bytes.Buffer
	before []string // notes of the observations that waited, before the last one that did not
	values map[string]desired.Value

	agent   *Reconciler // that looks and drives, as one does that goes on running
	agentOf string      // its tool
}

// newWorld takes the small module of testdata.
func newWorld(t *testing.T, b *bed, more string) *world {
	t.Helper()
	w := &world{t: t, bed: b, realm: testbed.Prefix(t), clock: &clock{now: time.Date(2026, 3, 1, 12, 1, 0, 0, time.UTC)}, said: &bytes.Buffer{}}
	w.spec, w.values = decode(t, smallSpec+more), valuesOf(w.realm)
	w.source("testdata")
	return w
}

// smallSpec is what newWorld's component says; more of its variables may follow.
const smallSpec = `
service: keycloak
module: realm
outputs: [realm, title, client_secret]
variables:
  realm: ${realm}
  keycloak_admin_password: ${ADMIN_PASSWORD}
  client_secret: ${CLIENT_SECRET}
`

func valuesOf(realm string) map[string]desired.Value {
	return map[string]desired.Value{
		"realm": desired.String(realm), "ADMIN_PASSWORD": desired.Secret(adminPassword), "CLIENT_SECRET": desired.Secret(clientSecret),
		"STATE_PASSWORD": desired.Secret(statePassword),
	}
}

// toolLine begins each component's spec.
func toolLine() string { return "tool: " + testedTool() + "\n" }

func decode(t *testing.T, text string) *Spec {
	t.Helper()
	spec, err := desired.DecodeSpec(Kind, "test.yaml", []byte(toolLine()+text))
	require.NoError(t, err)
	return spec.(*Spec)
}

// source gives the component a copy of a folder as its snapshot.
func (w *world) source(folder string) {
	w.t.Helper()
	dir := w.t.TempDir()
	snapshot := filepath.Join(dir, "snapshot")
	require.NoError(w.t, os.CopyFS(snapshot, os.DirFS(folder)))
	private := filepath.Join(dir, "private")
	require.NoError(w.t, os.Mkdir(private, 0o700))
	// The tool is wrapped so that a test can count its processes.
	real := toolPath(w.t)
	w.calls, w.tool = filepath.Join(dir, "calls"), filepath.Join(dir, "terraform")
	script := fmt.Sprintf("#!/bin/sh\necho \"$1\" >>'%s'\necho \"$@\" >>'%s.whole'\nexec '%s' \"$@\"\n", w.calls, w.calls, real)
	require.NoError(w.t, os.WriteFile(w.tool, []byte(script), 0o755))
	w.target = targetOf(w.spec, w.values, snapshot, private, w.said)
	w.target.Services = w.bed.lab
}

func (w *world) set(name string, v desired.Value) {
	w.values[name] = v
	w.target.Scope = desired.NewScope(w.values)
}

func (w *world) reconciler() *Reconciler {
	tool := reconcilers.Terraform{Path: w.tool, CLIConfig: w.bed.mirror.ConfigFile}
	return New(reconcilers.Deps{Clock: w.clock, Redact: redactTest, Terraform: tool, OpenTofu: tool})
}

func redactTest(text string) string {
	return strings.NewReplacer(adminPassword, "(secret)", clientSecret, "(secret)", statePassword, "(secret)").Replace(text)
}

func (w *world) processes() int { return len(w.commands()) }

// plans counts the plans that Terraform made.
func (w *world) plans() (n int) {
	for _, command := range w.commands() {
		if command == "plan" {
			n++
		}
	}
	return n
}

// commands are the commands of the tool that were run.
func (w *world) commands() []string {
	data, err := os.ReadFile(w.calls)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		require.NoError(w.t, err)
	}
	return strings.Fields(string(data))
}

// look observes and plans.
func (w *world) look() (reconcilers.Observed, reconcilers.Plan) {
	w.t.Helper()
	r := w.lasting()
	w.before = nil
	var observed reconcilers.Observed
	testbed.Eventually(w.t, time.Minute, "an observation without waiting", func() error {
		var err error
		observed, err = r.Observe(w.t.Context(), w.target)
		require.NoError(w.t, err)
		var wait *reconcilers.WaitError
		if errors.As(observed.Err, &wait) {
			w.before = append(w.before, observed.Facts.Notes...)
			return wait
		}
		return nil
	})
	w.hear(observed.Err, observed.Facts)
	plan, err := r.Plan(w.target, observed)
	require.NoError(w.t, err)
	w.hear(plan.Changes, plan.Content)
	return observed, plan
}

func (w *world) hear(all ...any) {
	for _, one := range all {
		fmt.Fprintf(w.said, "%+v\n", one)
	}
}

// drive applies until nothing is to be done, and gives the changes that were made.
func (w *world) drive() []string {
	w.t.Helper()
	var made []string
	for range 8 {
		observed, plan := w.look()
		require.NoError(w.t, observed.Err)
		if len(plan.Changes) == 0 {
			w.quiet()
			return made
		}
		heard := &steps{}
		_, err := w.lasting().Apply(w.t.Context(), w.target, plan, heard)
		w.hear(err)
		var wait *reconcilers.WaitError
		if errors.As(err, &wait) { // for the lock of the state, and then nothing was made
			plan.Changes = slices.DeleteFunc(plan.Changes, func(c reconcilers.Change) bool {
				failed, ended := heard.ended[c.Address]
				return !ended || failed != nil
			})
		} else {
			require.NoError(w.t, err)
		}
		made = append(made, printOf(plan.Changes)...)
	}
	w.t.Fatalf("not in sync after 8 rounds: %v", made)
	return nil
}

// quiet checks that no secret was said, and that no file but Terraform's own can be read by others.
func (w *world) quiet() {
	w.t.Helper()
	arguments, err := os.ReadFile(w.calls + ".whole")
	require.NoError(w.t, err)
	for _, secret := range []string{adminPassword, clientSecret, statePassword} {
		require.NotContains(w.t, w.said.String(), secret)
		require.NotContains(w.t, string(arguments), secret)
	}
	state := stateName
	if w.spec.Backend != nil && w.spec.Backend.Kind != backendLocal {
		state = remoteName
	}
	for _, name := range []string{"record.json", state, "key", "journal.jsonl"} {
		require.FileExists(w.t, filepath.Join(w.target.Dir, name))
	}
	require.NoError(w.t, filepath.WalkDir(w.target.Dir, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() && (entry.Name() == ".terraform" || entry.Name() == "home") {
			return cmp.Or(err, fs.SkipDir)
		}
		info, err := entry.Info()
		require.NoError(w.t, err)
		require.Zero(w.t, info.Mode().Perm()&0o077&^lockFileMode(name), "%s can be read by others", name)
		if !entry.IsDir() {
			data, err := os.ReadFile(name)
			require.NoError(w.t, err)
			require.NotContains(w.t, string(data), statePassword, "%s", name)
		}
		return nil
	}))
	require.NoFileExists(w.t, filepath.Join(w.target.Dir, "module", variablesFile))
}

// lockFileMode is what Terraform's lock file, which has no secret, may be open to.
func lockFileMode(name string) fs.FileMode {
	if filepath.Base(name) == ".terraform.lock.hcl" {
		return 0o077
	}
	return 0
}

// admin speaks to the admin API as an operator would by hand.
func (b *bed) admin(t *testing.T, method, path string, body any) (status int, answer []byte) {
	t.Helper()
	form := url.Values{"client_id": {"admin-cli"}, "grant_type": {"password"}, "username": {"admin"}, "password": {adminPassword}}
	resp, err := http.PostForm(b.url+"/realms/master/protocol/openid-connect/token", form)
	require.NoError(t, err)
	defer resp.Body.Close()
	var token struct {
		Access string `json:"access_token"`
	}
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&token))
	sent, err := json.Marshal(body)
	require.NoError(t, err)
	req, err := http.NewRequestWithContext(t.Context(), method, b.url+"/admin/realms"+path, bytes.NewReader(sent))
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+token.Access)
	req.Header.Set("Content-Type", "application/json")
	got, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer got.Body.Close()
	answer, err = io.ReadAll(got.Body)
	require.NoError(t, err)
	return got.StatusCode, answer
}

func (b *bed) read(t *testing.T, path string, into any) {
	t.Helper()
	status, answer := b.admin(t, http.MethodGet, path, nil)
	require.Equal(t, http.StatusOK, status)
	require.NoError(t, json.Unmarshal(answer, into))
}

func (b *bed) list(t *testing.T, path string) []map[string]any {
	t.Helper()
	status, answer := b.admin(t, http.MethodGet, path, nil)
	if status == http.StatusNotFound {
		return nil
	}
	require.Equal(t, http.StatusOK, status)
	var all []map[string]any
	require.NoError(t, json.Unmarshal(answer, &all))
	return all
}

// picture is what is in the realm, without ids.
func (w *world) picture(t *testing.T) string {
	t.Helper()
	status, answer := w.bed.admin(t, http.MethodGet, "/"+w.realm, nil)
	if status == http.StatusNotFound {
		return "no realm"
	}
	var realm map[string]any
	require.NoError(t, json.Unmarshal(answer, &realm))
	lines := []string{fmt.Sprint("title ", realm["displayName"])}
	for path, key := range map[string]string{"clients": "clientId", "roles": "name", "users": "username"} {
		for _, one := range w.bed.list(t, "/"+w.realm+"/"+path) {
			line := strings.ReplaceAll(fmt.Sprint(path, " ", one[key]), w.realm, "REALM")
			if one[key] == "app" {
				mappers, _ := one["protocolMappers"].([]any)
				line += fmt.Sprint(" ", one["redirectUris"], " ", len(mappers), " mappers")
			}
			lines = append(lines, line)
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}
