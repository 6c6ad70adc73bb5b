package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"dive-agent/atomicfile"
	"dive-agent/desired"
	"dive-agent/published"
	"dive-agent/report"
	"dive-agent/state"
)

// export brings what the instance publishes in line with these values. changed says that the document is another one; it is kept
// in the transaction, for the status branch.
func (r *round) export(tx state.Tx, values []published.Value) (changed bool, err error) {
	last, err := readRecord(tx, r.name)
	if err != nil || last == nil && len(values) == 0 {
		return false, err
	}
	key, err := exportKey(folderOf(r.Dir, r.name), r.Random)
	if err != nil {
		return false, err
	}
	next, changed, err := published.Next(last, r.name, r.Host, values, key, r.Clock.Now())
	if err != nil { // the status is told all the same
		r.log.Error("what the instance publishes stays as it is", "error", err)
		r.see(func(v *view) { v.Exports = append(v.Exports, err.Error()) })
		return false, nil
	}
	if !changed {
		return false, nil
	}
	content, err := next.Document.Encode()
	if err != nil {
		return false, err
	}
	kept, err := json.Marshal(next)
	if err != nil {
		return false, err
	}
	return true, errors.Join(tx.PutValue(recordKey(r.name), kept), report.KeepOutputs(tx, r.name, content))
}

func recordKey(instance string) string { return state.Key(instance, "outputs") }

// readRecord gives what the instance published last; nil: nothing.
func readRecord(r state.Reader, instance string) (*published.Record, error) {
	kept, err := r.Value(recordKey(instance))
	if errors.Is(err, state.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	record := &published.Record{}
	if err := json.Unmarshal(kept, record); err != nil {
		return nil, fmt.Errorf("read what %s published last: %w", instance, err)
	}
	return record, nil
}

// exportKey is by what a sealed value is known again; it is made once. Where it is lost, values are sealed anew, once.
func exportKey(folder string, random io.Reader) ([]byte, error) {
	path := filepath.Join(folder, "outputs.key")
	key, err := os.ReadFile(path)
	if err == nil && len(key) == 32 {
		return key, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the key of published values: %w", err)
	}
	key = make([]byte, 32)
	if _, err := io.ReadFull(random, key); err != nil {
		return nil, fmt.Errorf("make the key of published values: %w", err)
	}
	_, err = atomicfile.Write(path, key, atomicfile.Options{})
	return key, err
}

// exported are the outputs that the instance publishes, as far as they are known after a pass, with those who read them by the
// revision in force. What is wrong with some of them is kept for the status.
func (r *round) exported(p *pass) (values []published.Value) {
	if p == nil || r.next == nil {
		return nil
	}
	var problems []string
	readers := r.next.fleet.Readers(r.name)
	known := p.knownOutputs()
	for _, c := range r.next.instance.Components {
		outputter, ok := c.Spec.(desired.Outputter)
		if !ok {
			continue
		}
		for _, o := range outputter.Outputs() {
			if !slices.Contains(c.Publish, o.Name) {
				continue
			}
			one := exporting{round: r, output: o, value: known[c.Name][o.Name], key: published.Key{Component: c.Name, Name: o.Name}}
			one.add(readers[desired.OutputName{Component: c.Name, Output: o.Name}])
			values, problems = append(values, one.values...), append(problems, one.problems...)
		}
	}
	r.see(func(v *view) { v.Exports = problems })
	return values
}

// knownOutputs are those that the pass has seen, by component and name.
func (p *pass) knownOutputs() map[string]map[string]desired.Value {
	p.mu.Lock()
	defer p.mu.Unlock()
	known := make(map[string]map[string]desired.Value, len(p.outputs))
	for component, outputs := range p.outputs {
		known[component] = maps.Clone(outputs)
	}
	return known
}

// exporting is the making of what is published of one output.
type exporting struct {
	*round
	output   desired.Output
	value    desired.Value // the zero value is unknown
	key      published.Key
	values   []published.Value
	problems []string
}

func (e *exporting) add(readers []desired.Reader) {
	if !e.output.PerInstance {
		e.one(e.key, e.value, readers)
		return
	}
	for _, reader := range readers {
		key := e.key
		key.For = reader.Instance
		if entry, ok := e.value.Entry(reader.Instance); ok {
			e.one(key, entry, []desired.Reader{reader})
		} else if !e.value.Known() { // else the output has none for this instance any more
			e.one(key, desired.Unknown(), []desired.Reader{reader})
		}
	}
}

// one adds the value under a key, for readers of which some may be on one host.
func (e *exporting) one(key published.Key, value desired.Value, readers []desired.Reader) {
	v := published.Value{Key: key, Secret: e.output.Secret || value.Secret()}
	text, isJSON, err := value.Portable()
	if v.Known = err == nil; v.Known {
		if v.Text = text; isJSON {
			v.Type = published.JSON
		}
	}
	if !v.Secret && e.Redactor.Contains(text) {
		e.problems = append(e.problems, fmt.Sprintf("%s is not published: it holds a secret of this host, and is not declared to be secret", key))
		return
	}
	hosts := map[string]bool{}
	for _, reader := range readers {
		if !v.Secret || hosts[reader.Host] {
			continue
		}
		hosts[reader.Host] = true
		host := e.next.fleet.Hosts[reader.Host]
		if host == nil || len(host.Recipients) == 0 {
			e.problems = append(e.problems, fmt.Sprintf("%s is not sealed to %s, which hosts %s: hosts/%s.yaml has no recipient; run dive-agent enroll there and merge what it prints",
				key, reader.Host, reader.Instance, reader.Host))
			continue
		}
		v.Readers = append(v.Readers, published.Reader{Host: reader.Host, Recipients: host.Recipients})
	}
	e.values = append(e.values, v)
}
