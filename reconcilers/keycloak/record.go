package keycloak

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"dive-agent/desired"
)

// record is what is known of the last apply. It is kept 0600 beside the state: the outputs have secrets.
type record struct {
	Inputs    string              `json:"inputs"`         // keyed digest of module, variables and settings that are applied
	Verified  bool                `json:"verified"`       // a plan after that was empty, or the same again
	Compared  time.Time           `json:"compared"`       // when the live realm was last compared, with a refresh
	Tool      string              `json:"tool,omitempty"` // that applied it, or began to; empty: terraform
	Serial    int64               `json:"serial"`         // of the state after that
	Lineage   string              `json:"lineage"`        // of the same
	Resources int                 `json:"resources"`      // managed resources in it
	Realms    []string            `json:"realms"`
	Outputs   map[string]tfOutput `json:"outputs"`
	Applied   []string            `json:"applied,omitempty"` // what the last apply changed: action, address and attributes
	Stuck     []string            `json:"stuck,omitempty"`   // what every plan wants to change again, whatever is applied
	Drift     []drifted           `json:"drift,omitempty"`   // what was changed outside of Terraform, and is not or was lately put back
	Last      *lastApply          `json:"last,omitempty"`    // nil before the first one
	Begun     string              `json:"begun,omitempty"`   // inputs of an apply that was begun and did not come to its end
	Backend   string              `json:"backend,omitempty"` // where the state is: remote.place; empty: the file on this host
	Adopt     bool                `json:"adopt,omitempty"`   // the manifest said `adopt` when the state was last seen whole
}

func (r *record) tool() string {
	if r.Tool == "" {
		return terraform
	}
	return r.Tool
}

// take copies what a state says that the tool wrote.
func (r *record) take(s *tfState, tool string) {
	r.Tool = tool
	r.Serial, r.Lineage, r.Resources, r.Realms, r.Outputs = s.Serial, s.Lineage, s.managed(), s.realms(), s.Outputs
}

// published are the outputs that a spec names, as far as they exist.
func (r *record) published(names []string) map[string]desired.Value {
	outputs := map[string]desired.Value{}
	for _, name := range names {
		output, ok := r.Outputs[name]
		if !ok {
			continue
		}
		if v, err := output.value(); err == nil {
			outputs[name] = v
		}
	}
	return outputs
}

// made is one line of the journal: a resource that was created, with the id that an import asks for.
type made struct {
	Address string    `json:"address"`
	Key     string    `json:"key,omitempty"`
	ID      string    `json:"id"`
	At      time.Time `json:"at"`
}

// journal appends to a file and syncs: the ids of what was made outlive the state. A sync for each line would hold up
// the reading of a quick run, so there is one in a while and one at the end.
type journal struct {
	file   *os.File
	synced time.Time
}

const syncEvery = 200 * time.Millisecond

func (w *workspace) openJournal() (*journal, error) {
	f, err := os.OpenFile(filepath.Join(w.dir, "journal.jsonl"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	return &journal{file: f}, err
}

func (j *journal) add(m made) error {
	line, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if _, err := j.file.Write(append(line, '\n')); err != nil {
		return err
	}
	if now := time.Now(); now.Sub(j.synced) > syncEvery {
		j.synced = now
		return j.file.Sync()
	}
	return nil
}

func (j *journal) close() error { return errors.Join(j.file.Sync(), j.file.Close()) }

// catchUp writes into the journal what an apply made after the agent that had started it was gone.
func (w *workspace) catchUp(at time.Time) (err error) {
	var done []made
	if err := lines(w.output(), func(m message) {
		if m.Type == "apply_complete" && m.Hook.IDValue != "" {
			done = append(done, made{Address: m.Hook.Resource.Addr, Key: m.Hook.IDKey, ID: m.Hook.IDValue, At: at})
		}
	}); err != nil || len(done) == 0 {
		return err
	}
	known, err := os.ReadFile(filepath.Join(w.dir, "journal.jsonl"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	j, err := w.openJournal()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, j.close()) }()
	for _, m := range done {
		if bytes.Contains(known, []byte(strconv.Quote(m.ID))) {
			continue
		}
		if err := j.add(m); err != nil {
			return err
		}
	}
	return nil
}

// lines reads a file of Terraform's messages; one that is not there has none.
func lines(name string, visit func(message)) error {
	data, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	scanner := bufio.NewScanner(bytes.NewReader(data))
	scanner.Buffer(nil, 16<<20)
	for scanner.Scan() {
		var m message
		if json.Unmarshal(scanner.Bytes(), &m) == nil {
			visit(m)
		}
	}
	return scanner.Err()
}

// interruption is what applies that did not come to their end were about.
type interruption struct {
	begun map[string]bool // creates that were begun and of which nobody knows that they failed
}

// interrupted tells what was cut off: from the output of the last apply, and from what was kept of the ones before it.
// It is nil when there is nothing. A create that failed because something of that name was there is not ours, unless
// an earlier apply had begun it: the server may finish a request long after the one who asked was killed.
func (w *workspace) interrupted() *interruption {
	kept := map[string]bool{}
	unkept := load(w.begun(), &kept)
	_, err := os.Stat(w.output())
	if err != nil && len(kept) == 0 && unkept == nil {
		return nil
	}
	in := &interruption{begun: maps.Clone(kept)}
	_ = lines(w.output(), func(m message) {
		switch {
		case m.Type == "apply_start" && m.Hook.Action == "create":
			in.begun[m.Hook.Resource.Addr] = true
		case m.Type == "diagnostic" && m.Diagnostic.conflict() && !kept[m.Diagnostic.Address]:
			delete(in.begun, m.Diagnostic.Address)
		}
	})
	return in
}

// begun is where the creates are kept that were begun before the apply whose output is read.
func (w *workspace) begun() string { return filepath.Join(w.run, "begun.json") }

// keepBegun keeps what was cut off over the next apply, whose output takes the place of the last one's.
func (w *workspace) keepBegun(in *interruption) error {
	if in == nil || len(in.begun) == 0 {
		return nil
	}
	return store(w.begun(), in.begun)
}

// finished forgets what was cut off: the state has all of it.
func (w *workspace) finished() error {
	return errors.Join(removeIfThere(w.output()), removeIfThere(w.begun()), removeIfThere(filepath.Join(w.module, adoptFile)), removeIfThere(w.waitingFile()), w.releaseState())
}
