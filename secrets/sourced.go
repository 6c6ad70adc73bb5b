package secrets

import (
	"bytes"
	"errors"
	"time"

	"dive-agent/desired"
)

// failing is since when a secret cannot be had where it comes from, and why. Kept, so that a restart of the agent does not
// begin it anew.
type failing struct {
	Since time.Time `json:"since"`
	Why   string    `json:"why"`
}

// Trouble is a secret whose last value stays in use, as it cannot be had where it comes from.
type Trouble struct {
	Name       string
	From       string
	Since      time.Time
	Why        string
	Do         string
	Generation int // of the value that stays in use
}

// sourced takes over what was looked up: it is due in finish when it differs from what is here. Without a look, or with one
// that failed, what is here stays in use.
func (e *ensuring) sourced(spec desired.SecretSpec, value []byte, there bool) error {
	looked, asked := e.opts.Looked[spec.Name]
	if !there && (!asked || looked.Err != nil) {
		if !asked {
			looked.Err = errors.New("it was not asked yet")
		}
		return &SourceError{Instance: e.instance, Name: spec.Name, From: spec.Source.String(), Err: looked.Err}
	}
	if there {
		if err := e.adopt(spec, value); err != nil {
			return err
		}
	}
	switch {
	case asked && looked.Err != nil:
		e.fails(spec, looked.Err)
	case asked:
		if e.heals(spec.Name); !bytes.Equal(value, looked.Value) {
			e.incoming[spec.Name] = looked.Value
		}
	}
	return nil
}

// fails notes that a source gives no value, since the first time that it did not.
func (e *ensuring) fails(spec desired.SecretSpec, err error) {
	known := e.manifest.Secrets[spec.Name]
	now := failing{Since: e.now().UTC(), Why: err.Error()}
	if known.Failing != nil {
		now.Since = known.Failing.Since
	}
	if known.Failing == nil || *known.Failing != now {
		known.Failing = &now
		e.manifest.Secrets[spec.Name] = known
		e.dirty = true
	}
}

func (e *ensuring) heals(name string) {
	if known := e.manifest.Secrets[name]; known.Failing != nil {
		known.Failing = nil
		e.manifest.Secrets[name] = known
		e.dirty = true
	}
}

// renew puts what was looked up in the place of what is here, which is kept as a former value until the new one is in use.
func (e *ensuring) renew(spec desired.SecretSpec, out *Result) error {
	value, ok := e.incoming[spec.Name]
	if !ok {
		return nil
	}
	if e.values[spec.Name] == nil {
		out.Made = append(out.Made, spec.Name)
		return e.keep(spec.Name, kindOf(spec), value)
	}
	var full *FormerError
	switch err := e.replace(spec.Name, value); {
	case errors.As(err, &full): // no reason to stop with the rest
		e.fails(spec, full)
	case err != nil:
		return err
	default:
		out.Renewed = append(out.Renewed, spec.Name)
	}
	return nil
}

// troubles tells of the sources that gave no value when they were asked last.
func (e *ensuring) troubles(specs []desired.SecretSpec) (list []Trouble) {
	for _, spec := range specs {
		known := e.manifest.Secrets[spec.Name]
		if spec.Source == nil || known.Failing == nil {
			continue
		}
		problem := &SourceError{Instance: e.instance, Name: spec.Name, From: spec.Source.String(), Err: e.opts.Looked[spec.Name].Err}
		list = append(list, Trouble{
			Name: spec.Name, From: problem.From, Since: known.Failing.Since, Why: known.Failing.Why, Do: problem.Do(), Generation: known.generation(),
		})
	}
	return list
}
