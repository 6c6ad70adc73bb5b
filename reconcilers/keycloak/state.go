package keycloak

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	ctyjson "github.com/zclconf/go-cty/cty/json"

	"dive-agent/desired"
)

// Files of a component's folder that hold a state: the one on this host, and a remote one as it was last read.
const (
	stateName  = "terraform.tfstate"
	remoteName = "remote.tfstate"
)

// keptCopies is how many copies of the state are kept.
const keptCopies = 10

// tfState is what is read of a Terraform state file (format 4).
type tfState struct {
	Version   int                 `json:"version"`
	Serial    int64               `json:"serial"`
	Lineage   string              `json:"lineage"`
	Outputs   map[string]tfOutput `json:"outputs"`
	Resources []struct {
		Module    string `json:"module"`
		Mode      string `json:"mode"`
		Type      string `json:"type"`
		Name      string `json:"name"`
		Provider  string `json:"provider"`
		Instances []struct {
			IndexKey   any             `json:"index_key"`
			Attributes stateAttributes `json:"attributes"`
		} `json:"instances"`
	} `json:"resources"`
}

// stateAttributes are those of a resource that are read.
type stateAttributes struct {
	ID    plainName `json:"id"`
	Realm plainName `json:"realm"`
}

// plainName is a text; whatever else stands there reads as none.
type plainName string

// UnmarshalJSON is json.Unmarshaler.
func (n *plainName) UnmarshalJSON(data []byte) error {
	var text string
	if json.Unmarshal(data, &text) != nil {
		text = ""
	}
	*n = plainName(text)
	return nil
}

type tfOutput struct {
	Value     json.RawMessage `json:"value"`
	Type      json.RawMessage `json:"type"`
	Sensitive bool            `json:"sensitive,omitempty"`
}

// value gives the output as the module typed it; sensitive ones are secrets.
func (o tfOutput) value() (desired.Value, error) {
	typ, err := ctyjson.UnmarshalType(o.Type)
	if err != nil {
		return desired.Value{}, err
	}
	v, err := ctyjson.Unmarshal(o.Value, typ)
	if err != nil {
		return desired.Value{}, err
	}
	if !o.Sensitive {
		return desired.ValueOf(v), nil
	}
	mark := desired.Secret("").Cty().Marks()
	return desired.ValueOf(v.WithMarks(mark)), nil
}

var errNoState = errors.New("there is no state")

// readState reads a state file. An empty file is an error: Terraform itself takes one for an empty state.
func readState(name string) (*tfState, error) {
	s, err := readUnwritten(name)
	if err == nil && s.Lineage == "" {
		return nil, fmt.Errorf("the state file is not one of Terraform (version %d, and no lineage)", s.Version)
	}
	return s, err
}

// readUnwritten reads a state that may lack a lineage: a first one of a remote place gets its own when it comes there.
func readUnwritten(name string) (*tfState, error) {
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNoState
	}
	if err != nil {
		return nil, err
	}
	if len(data) == 0 {
		return nil, fmt.Errorf("the state file is empty (0 bytes)")
	}
	var s tfState
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("the state file cannot be read: %w", err)
	}
	if s.Version != 4 {
		return nil, fmt.Errorf("the state file is not one of Terraform (version %d)", s.Version)
	}
	return &s, nil
}

// managed counts the instances of managed resources.
func (s *tfState) managed() int {
	n := 0
	for _, r := range s.Resources {
		if r.Mode == "managed" {
			n += len(r.Instances)
		}
	}
	return n
}

// ids gives the managed instances' ids, by their addresses as Terraform writes them.
func (s *tfState) ids() map[string]string {
	all := map[string]string{}
	if s == nil {
		return all
	}
	for _, r := range s.Resources {
		if r.Mode != "managed" {
			continue
		}
		for _, instance := range r.Instances {
			address := r.Type + "." + r.Name
			if r.Module != "" {
				address = r.Module + "." + address
			}
			switch key := instance.IndexKey.(type) {
			case string:
				address += fmt.Sprintf("[%q]", key)
			case float64:
				address += fmt.Sprintf("[%d]", int(key))
			}
			all[address] = string(instance.Attributes.ID)
		}
	}
	return all
}

// gives says whether a state may be replaced by another one without a loss: it holds the same things, or nothing at all.
func (s *tfState) gives(way *tfState) bool {
	return s.empty() || maps.Equal(s.ids(), way.ids())
}

func (s *tfState) empty() bool { return len(s.Resources) == 0 && len(s.Outputs) == 0 }

// addresses lists the managed instances.
func (s *tfState) addresses() map[string]bool {
	all := map[string]bool{}
	for address := range s.ids() {
		all[address] = true
	}
	return all
}

// realms lists the realms that the state holds.
func (s *tfState) realms() []string {
	var realms []string
	for _, r := range s.Resources {
		if r.Mode != "managed" || r.Type != "keycloak_realm" {
			continue
		}
		for _, instance := range r.Instances {
			if name := string(instance.Attributes.Realm); name != "" {
				realms = append(realms, name)
			}
		}
	}
	slices.Sort(realms)
	return realms
}

// keepCopy copies a state that can be read to the folder of copies, under its serial and lineage, and forgets the
// oldest. It gives the state that it read.
func keepCopy(from, folder string) (*tfState, error) {
	s, err := readState(from)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(from)
	if err != nil {
		return nil, err
	}
	return keep(data, s, folder)
}

// keep is keepCopy for a state that was read.
func keep(data []byte, s *tfState, folder string) (*tfState, error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	name := filepath.Join(folder, fmt.Sprintf("%010d-%s.tfstate", s.Serial, filepath.Base(s.Lineage)))
	if _, err := readState(name); err == nil {
		return s, nil
	}
	if err := write(name, data); err != nil {
		return nil, err
	}
	copies, err := filepath.Glob(filepath.Join(folder, "*.tfstate"))
	if err != nil {
		return nil, err
	}
	slices.Sort(copies)
	for len(copies) > keptCopies {
		_ = os.Remove(copies[0])
		copies = copies[1:]
	}
	return s, nil
}

// lost says why a state cannot be used, nil when it can. Nothing but an absent state before any apply is an empty one.
func lost(s *tfState, err error, r *record) error {
	switch {
	case errors.Is(err, errNoState) && r.Serial == 0:
		return nil
	case errors.Is(err, errNoState):
		return fmt.Errorf("the state file is gone; serial %d was applied", r.Serial)
	case err != nil:
		return err
	case r.Lineage != "" && s.Lineage != r.Lineage:
		return fmt.Errorf("the state file is another one (lineage %s; %s was applied)", s.Lineage, r.Lineage)
	case s.Serial < r.Serial:
		return fmt.Errorf("the state file is older (serial %d) than what was applied (serial %d)", s.Serial, r.Serial)
	}
	return nil
}

// newest finds the newest state on this host that fits the record, or says why there is no single choice.
func newest(w *workspace, r *record) (name string, data []byte, found *tfState, err error) {
	candidates, _ := filepath.Glob(filepath.Join(w.copies, "*.tfstate"))
	candidates = append(candidates, w.state+".backup", w.errored())
	lineages := map[string]bool{}
	for _, candidate := range candidates {
		s, err := readState(candidate)
		if err != nil || r.Lineage != "" && s.Lineage != r.Lineage || s.Serial < r.Serial || s.managed() == 0 {
			continue
		}
		lineages[s.Lineage] = true
		if found == nil || s.Serial > found.Serial {
			name, found = candidate, s
		}
	}
	if found == nil {
		return "", nil, nil, errors.New("there is no copy of it that fits")
	}
	if len(lineages) > 1 {
		return "", nil, nil, errors.New("there are copies of several states")
	}
	data, err = os.ReadFile(name)
	return name, data, found, err
}

// restore puts the newest state that fits the record in the place of one that was lost. The lost one is kept aside.
// It gives the name of the copy that was used, or an error that says why there is no single choice.
func restore(w *workspace, r *record, now time.Time) (string, error) {
	best, data, _, err := newest(w, r)
	if err != nil {
		return "", err
	}
	if err := setAside(w.state, now); err != nil {
		return "", err
	}
	if err := write(w.state, data); err != nil {
		return "", err
	}
	_ = os.Remove(w.errored())
	return copyName(best), nil
}

func copyName(file string) string { return strings.TrimSuffix(filepath.Base(file), ".tfstate") }

// tighten keeps the states from others: Terraform, and a hand that brings one, make them as their umask says.
func (w *workspace) tighten() error {
	copies, _ := filepath.Glob(filepath.Join(w.copies, "*.tfstate"))
	aside, _ := filepath.Glob(w.state + ".*")
	for _, name := range append(append(copies, aside...), w.state, w.errored()) {
		if err := os.Chmod(name, 0o600); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// forget keeps the copies aside of a state that is begun anew: none of them is ever put in the new one's place.
func (w *workspace) forget(now time.Time) error {
	for _, name := range []string{w.copies, w.state + ".backup"} {
		if err := setAside(name, now); err != nil {
			return err
		}
	}
	return os.MkdirAll(w.copies, 0o700)
}
