package keycloak

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/reconcilers"
	"dive-agent/testbed"
)

// backendOf gives what a manifest says of a backend.
func backendOf(t *testing.T, text string) *Backend {
	t.Helper()
	return decode(t, "service: keycloak\nmodule: realm\nbackend: "+text+"\n").Backend
}

// postgres is a place in the test bed's database for states.
func (b *bed) postgres(t *testing.T, schema string) *Backend {
	t.Helper()
	c, err := b.lab.Find(t.Context(), "states")
	require.NoError(t, err)
	return b.postgresAt(t, c.Addr().String()+":5432", schema)
}

// postgresAt is such a place by the way of an address.
func (b *bed) postgresAt(t *testing.T, address, schema string) *Backend {
	t.Helper()
	return backendOf(t, fmt.Sprintf("{kind: pg, address: 'postgres://%s/%s?sslmode=disable', schema: %s, user: terraform, password: '${STATE_PASSWORD}'}", address, b.database(t), schema))
}

// database is a test's own one: Terraform locks the whole database while it makes the first state of a schema.
func (b *bed) database(t *testing.T) string {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.databases[t.Name()] == "" {
		name := strings.ReplaceAll(testbed.Prefix(t), "-", "_")
		b.psql(t, "terraform", "CREATE DATABASE "+name)
		b.databases[t.Name()] = name
	}
	return b.databases[t.Name()]
}

// sql asks the test's database for states.
func (b *bed) sql(t *testing.T, query string) string {
	t.Helper()
	return b.psql(t, b.database(t), query)
}

func (b *bed) psql(t *testing.T, database, query string) string {
	t.Helper()
	out, code, err := b.lab.Exec(t.Context(), "states", []string{"psql", "-At", "-h", "127.0.0.1", "-U", "terraform", "-d", database, "-c", query}, []string{"PGPASSWORD=" + statePassword}, nil)
	require.NoError(t, err)
	require.Zero(t, code, "%s: %s", query, out)
	return strings.TrimSpace(string(out))
}

// stateAt is the state in a schema; nil where there is none.
func (b *bed) stateAt(t *testing.T, schema string) *tfState {
	t.Helper()
	data := b.sql(t, "SELECT data FROM "+schema+".states WHERE name = 'default'")
	if data == "" {
		return nil
	}
	var s tfState
	require.NoError(t, json.Unmarshal([]byte(data), &s))
	return &s
}

// schemaOf is a schema's name for a world of its own.
func schemaOf(w *world) string { return strings.ReplaceAll(w.realm, "-", "_") }

func newPostgresWorld(t *testing.T, b *bed, more string) (*world, string) {
	t.Helper()
	w := newWorld(t, b, more)
	schema := schemaOf(w)
	w.spec.Backend = b.postgres(t, schema)
	return w, schema
}

// The whole way of a realm whose state is in PostgreSQL, as it is with a state on the host: applied, copied, no process while nothing
// changes, and no word of the password in a file, an argument or a message.
func stateInPostgres(t *testing.T, b *bed) {
	w, schema := newPostgresWorld(t, b, "")
	_, plan := w.look()
	require.Len(t, plan.Changes, 9)
	w.nowhereWritten(statePassword)
	w.drive()
	require.NoFileExists(t, filepath.Join(w.target.Dir, stateName))
	first := b.stateAt(t, schema)
	require.Equal(t, 6, first.managed())
	observed, _ := w.look()
	require.Equal(t, clientSecret, observed.Outputs["client_secret"].Text())
	r := w.record()
	require.Equal(t, first.Serial, r.Serial)
	require.Equal(t, first.Lineage, r.Lineage)
	require.FileExists(t, filepath.Join(w.target.Dir, "copies", fmt.Sprintf("%010d-%s.tfstate", first.Serial, first.Lineage)))

	before := w.processes()
	for range 3 {
		_, plan = w.look()
		require.Empty(t, plan.Changes)
	}
	require.Equal(t, before, w.processes(), "nothing changed, and Terraform ran")

	w.spec.Variables["title"] = tree(t, "Another title")
	require.Len(t, w.drive(), 2)
	second := b.stateAt(t, schema)
	require.Equal(t, first.Lineage, second.Lineage)
	require.Greater(t, second.Serial, first.Serial)
	w.nowhereWritten(statePassword)

	// Another host takes the state up, changes something, and the first one sees that with its next look at the realm.
	other := w.elsewhere()
	observed, plan = other.look()
	require.NoError(t, observed.Err)
	require.Empty(t, plan.Changes)
	require.Contains(t, strings.Join(observed.Facts.Notes, "\n"), "is taken up: 6 resources")
	other.spec.Variables["title"] = tree(t, "By another host")
	require.Len(t, other.drive(), 2)
	w.spec.Variables["title"] = tree(t, "By another host")
	observed, plan = w.look()
	require.NoError(t, observed.Err)
	require.Empty(t, plan.Changes)
	require.Contains(t, strings.Join(observed.Facts.Notes, "\n"), "was written by something else")

	// A host whose manifest says the other tool does not take it up.
	registries := []string{"registry.terraform.io/", "registry.opentofu.org/"}
	if testedTool() == opentofu {
		slices.Reverse(registries)
	}
	b.sql(t, fmt.Sprintf("UPDATE %s.states SET data = replace(data, '%s', '%s')", schema, registries[0], registries[1]))
	observed, plan = w.elsewhere().look()
	var blocked *reconcilers.BlockedError
	require.ErrorAs(t, observed.Err, &blocked)
	require.Equal(t, "ToolChanged", blocked.Reason)
	require.Empty(t, plan.Changes)
}

// elsewhere is the same component on another host, whose folder is empty.
func (w *world) elsewhere() *world {
	w.t.Helper()
	other := newWorld(w.t, w.bed, "")
	other.set("realm", desired.String(w.realm))
	other.spec.Backend = w.spec.Backend
	for name, value := range w.spec.Variables {
		other.spec.Variables[name] = value
	}
	return other
}

func (w *world) record() *record {
	w.t.Helper()
	var r record
	require.NoError(w.t, load(filepath.Join(w.target.Dir, recordName), &r))
	return &r
}

// nowhereWritten looks for a text in all files of the component's folder, those in plan files too.
func (w *world) nowhereWritten(text string) {
	w.t.Helper()
	require.NoError(w.t, filepath.WalkDir(w.target.Dir, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(name)
		if filepath.Ext(name) == ".tfplan" {
			data, err = exec.Command("unzip", "-p", name).Output()
		}
		require.NoError(w.t, err)
		require.NotContains(w.t, string(data), text, "%s", name)
		return nil
	}))
}

// A state goes where the manifest says, keeps its lineage, and is never begun anew.
func movedState(t *testing.T, b *bed) {
	w := newWorld(t, b, "")
	w.drive()
	local, err := readState(filepath.Join(w.target.Dir, stateName))
	require.NoError(t, err)
	one, two := schemaOf(w)+"_1", schemaOf(w)+"_2"
	moves := func(from, to string, at func() *tfState) {
		t.Helper()
		observed, plan := w.look()
		require.NoError(t, observed.Err)
		require.Empty(t, plan.Changes)
		require.Contains(t, strings.Join(append(w.before, observed.Facts.Notes...), "\n"), "the Terraform state was moved from "+from)
		require.Equal(t, local.Lineage, at().Lineage)
		require.Equal(t, local.ids(), at().ids())
		observed, plan = w.look()
		require.NoError(t, observed.Err)
		require.Empty(t, plan.Changes)
		require.Empty(t, observed.Facts.Notes)
	}
	blocked := func(reason string) *reconcilers.BlockedError {
		t.Helper()
		observed, plan := w.look()
		require.Empty(t, plan.Changes)
		var blocked *reconcilers.BlockedError
		require.ErrorAs(t, observed.Err, &blocked)
		require.Equal(t, reason, blocked.Reason, blocked.Error())
		return blocked
	}

	w.spec.Backend = b.postgres(t, one)
	moves("the file on this host to pg ", one, func() *tfState { return b.stateAt(t, one) })
	require.NoFileExists(t, filepath.Join(w.target.Dir, stateName))
	aside, err := filepath.Glob(filepath.Join(w.target.Dir, stateName+".moved-*"))
	require.NoError(t, err)
	require.Len(t, aside, 1, "and what was on the host is kept aside")

	// To another remote place only with the word of where it is, since its credentials are kept nowhere.
	first := w.spec.Backend
	w.spec.Backend = b.postgres(t, two)
	require.Contains(t, blocked("BackendMoved").Do, "formerBackend: {kind: local}")
	require.Nil(t, b.stateAt(t, two))
	w.spec.FormerBackend = b.postgres(t, one+"_wrong")
	require.Contains(t, blocked("BackendMoved").Message, "formerBackend of the manifest says pg ")
	w.spec.FormerBackend = first
	moves("pg ", two, func() *tfState { return b.stateAt(t, two) })

	// Back to the file on the host, and there again while an older one of its own is there.
	w.spec.FormerBackend, w.spec.Backend = w.spec.Backend, backendOf(t, "{kind: local}")
	moves("pg ", "", func() *tfState {
		s, err := readState(filepath.Join(w.target.Dir, stateName))
		require.NoError(t, err)
		return s
	})
	w.spec.Variables["title"] = tree(t, "Changed between")
	w.drive()
	w.spec.FormerBackend, w.spec.Backend = nil, first
	observed, plan := w.look()
	require.NoError(t, observed.Err)
	require.Empty(t, plan.Changes, "the newer state went over the older one")
	require.Equal(t, w.record().Serial, b.stateAt(t, one).Serial)

	// Where the former place is gone, the copy on this host is taken, when somebody says so.
	w.spec.Backend, w.spec.FormerBackend = b.postgres(t, two+"b"), backendOf(t, "{kind: local}")
	moves("pg ", two+"b", func() *tfState { return b.stateAt(t, two+"b") })

	// A place where another state is stays as it is.
	other, taken := newPostgresWorld(t, b, "")
	other.drive()
	before := b.sql(t, "SELECT md5(data) FROM "+taken+".states")
	w.spec.Backend = b.postgres(t, taken)
	require.Contains(t, blocked("BackendTaken").Do, "Give this component a place of its own")
	require.Equal(t, before, b.sql(t, "SELECT md5(data) FROM "+taken+".states"))
	w.spec.Backend, w.spec.FormerBackend = b.postgres(t, two+"b"), nil
	observed, plan = w.look()
	require.NoError(t, observed.Err)
	require.Empty(t, plan.Changes)
	w.quiet()
	movesAfterACrash(t, b)
}

// A move that was cut off after the first writing, which gives the state a lineage that nobody chose, is gone on with.
func movesAfterACrash(t *testing.T, b *bed) {
	w := newWorld(t, b, "")
	w.drive()
	local, err := readState(filepath.Join(w.target.Dir, stateName))
	require.NoError(t, err)
	w.spec.Backend = b.postgres(t, schemaOf(w))
	w.halfway(filepath.Join(w.target.Dir, stateName))
	require.NotEqual(t, local.Lineage, b.stateAt(t, schemaOf(w)).Lineage)
	observed, plan := w.look()
	require.NoError(t, observed.Err)
	require.Empty(t, plan.Changes)
	require.Equal(t, local.Lineage, b.stateAt(t, schemaOf(w)).Lineage)
}

// halfway writes a state to its place for the first time, and no more.
func (w *world) halfway(file string) {
	w.t.Helper()
	l, err := w.reconciler().open(w.target)
	require.NoError(w.t, err)
	testbed.Eventually(w.t, time.Minute, "a state without a lock in its way", func() error { return l.here().push(w.t.Context(), file, false) })
}

// A remote state that is lost is put back from its copy; without one it is Blocked, or begun anew by imports. Another one is
// never planned with and never written over.
func strangeRemoteStates(t *testing.T, b *bed) {
	w, schema := newPostgresWorld(t, b, "driftSchedule: '@every 1h'\n")
	w.drive()
	was := b.stateAt(t, schema)
	w.clock.move(2 * time.Hour)
	b.sql(t, "DELETE FROM "+schema+".states")
	observed, plan := w.look()
	require.NoError(t, observed.Err)
	require.Empty(t, plan.Changes)
	require.Contains(t, strings.Join(observed.Facts.Notes, "\n"), "put back from copy")
	require.Equal(t, was.Lineage, b.stateAt(t, schema).Lineage)
	require.Equal(t, was.ids(), b.stateAt(t, schema).ids())

	b.sql(t, "DELETE FROM "+schema+".states") // and the agent is killed while it puts it back
	w.halfway(filepath.Join(w.target.Dir, "copies", fmt.Sprintf("%010d-%s.tfstate", was.Serial, was.Lineage)))
	require.NotEqual(t, was.Lineage, b.stateAt(t, schema).Lineage)
	w.clock.move(2 * time.Hour)
	observed, plan = w.look()
	require.NoError(t, observed.Err)
	require.Empty(t, plan.Changes)
	require.Equal(t, was.Lineage, b.stateAt(t, schema).Lineage)

	other, theirs := newPostgresWorld(t, b, "")
	other.drive()
	b.sql(t, fmt.Sprintf("UPDATE %s.states SET data = (SELECT data FROM %s.states)", schema, theirs))
	w.clock.move(2 * time.Hour)
	observed, plan = w.look()
	var blocked *reconcilers.BlockedError
	require.ErrorAs(t, observed.Err, &blocked)
	require.Equal(t, "BackendTaken", blocked.Reason)
	require.Empty(t, plan.Changes)
	require.Equal(t, b.stateAt(t, theirs).Lineage, b.stateAt(t, schema).Lineage)

	b.sql(t, "DELETE FROM "+schema+".states")
	require.NoError(t, os.RemoveAll(filepath.Join(w.target.Dir, "copies")))
	observed, plan = w.look()
	require.ErrorAs(t, observed.Err, &blocked)
	require.Equal(t, "StateLost", blocked.Reason)
	require.Contains(t, blocked.Do, "Put a copy of the state to pg ")
	require.Empty(t, plan.Changes)
	require.Nil(t, b.stateAt(t, schema))

	w.spec.Adopt = true
	picture := w.picture(t)
	w.drive()
	require.Equal(t, picture, w.picture(t))
	require.Equal(t, 6, b.stateAt(t, schema).managed())
	w.quiet()
}

// PostgreSQL goes, at rest and in the middle of an apply: what was made is not forgotten.
func stateServerGoes(t *testing.T, b *bed) {
	states := newStates(t, b)
	f := newFront(t, b)
	w := f.through(t, b, "parallelism: 1\n")
	w.spec.Backend = states.backend(t)
	_, plan := w.look()
	f.on(atRoles(states.away))
	_, err := w.reconciler().Apply(t.Context(), w.target, plan, &steps{})
	w.hear(err)
	require.Error(t, err)
	require.FileExists(t, filepath.Join(w.target.Dir, "module", "errored.tfstate"), "Terraform could not bring its state there: %v", err)
	observed, err := w.reconciler().Observe(t.Context(), w.target)
	require.NoError(t, err)
	var wait *reconcilers.WaitError
	require.ErrorAs(t, observed.Err, &wait)
	require.Contains(t, wait.For, "the Terraform state at pg ")
	f.on(nil)
	states.back()
	observed, _ = w.look()
	require.NoError(t, observed.Err)
	require.Contains(t, strings.Join(observed.Facts.Notes, "\n"), "that could not be written was brought to pg ")
	require.NoFileExists(t, filepath.Join(w.target.Dir, "module", "errored.tfstate"))
	w.drive()
	require.Equal(t, 1, strings.Count(w.picture(t), "users someone"))

	// While nothing is asked of it, a database that is away is nobody's business.
	states.away()
	observed, plan = w.look()
	require.NoError(t, observed.Err)
	require.Empty(t, plan.Changes)
	states.back()

	w.set("STATE_PASSWORD", desired.Secret("wrong-Secret-44ee"))
	w.spec.Variables["title"] = tree(t, "Another")
	observed, _ = w.look()
	var blocked *reconcilers.BlockedError
	require.ErrorAs(t, observed.Err, &blocked)
	require.Equal(t, "BackendRefused", blocked.Reason)
	require.NotContains(t, blocked.Error(), "wrong-Secret-44ee")
}

// A Terraform that is killed leaves no lock in PostgreSQL, and one that goes on holds it, whichever host it is on.
func postgresLocks(t *testing.T, b *bed) {
	f := newFront(t, b)
	w := f.through(t, b, "parallelism: 1\n")
	w.spec.Backend = b.postgres(t, schemaOf(w))
	other := w.elsewhere()
	_, plan := w.look()
	var second reconcilers.Observed
	f.on(atRoles(func() {
		second, _ = other.reconciler().Observe(t.Context(), other.target)
		w.kill(false)
	}))
	_, err := w.reconciler().Apply(t.Context(), w.target, plan, &steps{})
	require.Error(t, err)
	var wait *reconcilers.WaitError
	require.ErrorAs(t, second.Err, &wait)
	require.Equal(t, "the lock of the Terraform state", wait.For)
	f.on(nil)
	w.drive()
	require.Equal(t, 1, strings.Count(w.picture(t), "users someone"))
	require.Equal(t, 6, b.stateAt(t, schemaOf(w)).managed())
}
