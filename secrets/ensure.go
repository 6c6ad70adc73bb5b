package secrets

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"dive-agent/desired"
)

// EnsureOptions are what Ensure has to ask.
type EnsureOptions struct {
	// HasData names the data of the instance that exists on the host, such as
	// its volumes. It is asked at most once, and only when a secret would have
	// to be made while the manifest knows none. An error of it ends Ensure.
	// nil means that there is no data.
	HasData func(ctx context.Context) ([]string, error)
	// Looked is what was found of the secrets that come from elsewhere, of those that were asked for now (Sources.Look).
	Looked map[string]Looked
}

// Result is what Ensure found and made.
type Result struct {
	// Values holds each secret by its name, marked as secret, and the public
	// half of each key under PublicName, plain.
	Values map[string]desired.Value
	// Made names what was made in this call, certificates that were due included.
	Made []string
	// Renewed names what has another value since this call, as it has where it comes from.
	Renewed []string
	// Rotated names what was made anew in this call, as its manifest says when.
	Rotated []string
	// Troubles are the sources that gave no value when they were asked last; the last value is used.
	Troubles []Trouble
	// Files names the rendered files that were written or changed, relative
	// to the secrets folder.
	Files []string
}

// Ensure makes the secrets that were never made, reads the others, and renders
// their files. Nothing is made before everything was looked at: when a secret
// is lost (*LostError), was changed (*ChangedError), has to be provided
// (*MissingError) or was never had from where it comes (*SourceError), all of these come back as Problems, and nothing was made or
// rendered.
//
// A value is durable before Ensure returns, and before the manifest remembers
// it, so that a crash between the two adopts it instead of losing it.
func (s *Store) Ensure(ctx context.Context, specs []desired.SecretSpec, opts EnsureOptions) (Result, error) {
	unlock, err := s.lock(ctx)
	if err != nil {
		return Result{}, err
	}
	defer unlock()
	if err := s.sweep(); err != nil {
		return Result{}, err
	}
	e := &ensuring{Store: s, ctx: ctx, opts: opts, values: map[string][]byte{}, incoming: map[string][]byte{}}
	if err := e.prepare(); err != nil {
		return Result{}, err
	}
	if err := e.survey(specs); err != nil {
		return Result{}, err
	}
	if err := ctx.Err(); err != nil {
		return Result{}, fmt.Errorf("make the secrets of %s: %w", s.instance, err)
	}
	if err := s.encryptAll(); err != nil {
		return Result{}, fmt.Errorf("encrypt the secrets of %s: %w", s.instance, err)
	}
	return e.finish(specs)
}

// give adds a secret to the values, and its public half if it has one.
func (s *Store) give(values map[string]desired.Value, spec desired.SecretSpec, value []byte) error {
	if values[spec.Name] = desired.Secret(string(value)); isAuthority(spec) {
		values[spec.Name] = desired.String(string(certificates(value)))
	}
	name, has := spec.PublicName()
	if !has {
		return nil
	}
	public, err := publicPEM(value)
	if err != nil {
		return fmt.Errorf("secret %s of %s cannot be used as a key: %w", spec.Name, s.instance, err)
	}
	values[name] = desired.String(public)
	return nil
}

// ensuring is one call of Ensure.
type ensuring struct {
	*Store
	ctx  context.Context
	opts EnsureOptions

	key      []byte
	manifest manifest
	known    bool // there was a manifest
	dirty    bool // the manifest has to be written
	values   map[string][]byte
	incoming map[string][]byte // from elsewhere, and other than what is here
	data     []string
	asked    bool
}

func (e *ensuring) prepare() (err error) {
	var fresh bool
	if e.key, fresh, err = e.hostKey(); err != nil {
		return err
	}
	if e.manifest, e.known, err = e.readManifest(); err != nil {
		return err
	}
	if fresh {
		for name, m := range e.manifest.Secrets {
			m.Fingerprint = ""
			e.manifest.Secrets[name] = m
			e.dirty = true
		}
	}
	return nil
}

// survey reads what is there and collects what is wrong; it makes nothing.
func (e *ensuring) survey(specs []desired.SecretSpec) error {
	var problems Problems
	for _, spec := range specs {
		if err := checkSpec(spec); err != nil {
			return err
		}
		value, err := e.read(spec.Name)
		switch {
		case spec.Source != nil && (err == nil || errors.Is(err, fs.ErrNotExist)):
			err = e.sourced(spec, value, err == nil && len(value) > 0)
		case err == nil && len(value) > 0:
			err = e.adopt(spec, value)
		case err == nil || errors.Is(err, fs.ErrNotExist):
			err = e.mayMake(spec)
		}
		var resolvable Resolvable
		if err != nil && !errors.As(err, &resolvable) {
			return err
		}
		if err != nil {
			problems = append(problems, resolvable)
		}
	}
	if len(problems) == 0 {
		return nil
	}
	return problems
}

// adopt takes a value that is there.
func (e *ensuring) adopt(spec desired.SecretSpec, value []byte) error {
	if err := closeToOthers(e.valuePath(spec.Name)); err != nil {
		return err
	}
	if spec.Source == nil {
		e.heals(spec.Name)
	}
	known, ok := e.manifest.Secrets[spec.Name]
	now := fingerprint(e.key, spec.Name, value)
	switch {
	case !ok:
		known = entry{Made: e.now().UTC()}
	case known.Fingerprint == now && known.Keyfile == spec.Keyfile && known.Kind == kindOf(spec):
		e.values[spec.Name] = value
		return nil
	case known.Fingerprint == now:
	case known.Next == now:
		known.Generation = known.generation() + 1
	case isIssued(spec): // one that does not fit is issued anew
	case known.Fingerprint != "" && (spec.Generate != nil || spec.Keyfile):
		return &ChangedError{Instance: e.instance, Name: spec.Name, Path: e.valuePath(spec.Name)}
	case known.Fingerprint != "":
		known.Made, known.Generation = e.now().UTC(), known.generation()+1 // an operator rotated what is his
	}
	known.Kind, known.Fingerprint, known.Next, known.Keyfile = kindOf(spec), now, "", spec.Keyfile
	e.manifest.Secrets[spec.Name] = known
	e.dirty = true
	e.values[spec.Name] = value
	return nil
}

// mayMake says why a value that is not there may not be made.
func (e *ensuring) mayMake(spec desired.SecretSpec) error {
	if spec.Provide {
		return &MissingError{Instance: e.instance, Name: spec.Name}
	}
	if spec.Source != nil { // whether it can be had is known when it was asked
		return nil
	}
	if isIssued(spec) { // no data depends on it: its authority signs another one
		return nil
	}
	lost := &LostError{Instance: e.instance, Name: spec.Name, Path: e.valuePath(spec.Name)}
	if _, ok := e.manifest.Secrets[spec.Name]; ok {
		lost.Known = true
		return lost
	}
	// A manifest without this secret means that the secret is a new one.
	// Without a manifest, data tells that secrets were there once.
	if e.known || e.opts.HasData == nil {
		return nil
	}
	if !e.asked {
		data, err := e.opts.HasData(e.ctx)
		if err != nil {
			return fmt.Errorf("look for data of %s before secrets are made: %w", e.instance, err)
		}
		e.data, e.asked = data, true
	}
	if len(e.data) > 0 {
		lost.Data = e.data
		return lost
	}
	return nil
}

// finish makes what is missing, remembers it and renders the files.
func (e *ensuring) finish(specs []desired.SecretSpec) (Result, error) {
	out := Result{Values: map[string]desired.Value{}}
	for _, spec := range specs {
		if spec.Source != nil {
			if err := e.renew(spec, &out); err != nil {
				return Result{}, err
			}
			continue
		}
		if e.values[spec.Name] != nil || isIssued(spec) {
			continue
		}
		value, err := e.generate(spec)
		if err != nil {
			return Result{}, err
		}
		if err := e.keep(spec.Name, kindOf(spec), value); err != nil {
			return Result{}, err
		}
		out.Made = append(out.Made, spec.Name)
	}
	for _, renew := range []func([]desired.SecretSpec) ([]string, error){e.renewAuthorities, e.issueAll} {
		made, err := renew(specs)
		if err != nil {
			return Result{}, err
		}
		out.Made = append(out.Made, made...)
	}
	var err error
	if out.Rotated, err = e.rotateDue(specs); err != nil {
		return Result{}, err
	}
	out.Troubles = e.troubles(specs)
	if e.dirty || !e.known {
		if err := e.writeManifest(e.manifest); err != nil {
			return Result{}, err
		}
	}
	for _, spec := range specs {
		value := e.values[spec.Name]
		if err := e.give(out.Values, spec, value); err != nil {
			return Result{}, err
		}
		if spec.File == nil {
			continue
		}
		changed, err := e.render(*spec.File, seenOf(kindOf(spec), value))
		if err != nil {
			return Result{}, fmt.Errorf("render secret %s of %s: %w", spec.Name, e.instance, err)
		}
		if changed {
			out.Files = append(out.Files, spec.File.Path)
		}
	}
	return out, nil
}

func (e *ensuring) generate(spec desired.SecretSpec) (value []byte, err error) {
	if isAuthority(spec) {
		value, err = newAuthority(*spec.Certificate, e.random, e.now())
	} else {
		value, err = generate(*spec.Generate, e.random)
	}
	if err != nil {
		return nil, fmt.Errorf("make secret %s of %s: %w", spec.Name, e.instance, err)
	}
	return value, nil
}

// keep writes a value and notes it for the manifest.
func (e *ensuring) keep(name, kind string, value []byte) error {
	if err := e.put(e.valuePath(name), value); err != nil {
		return fmt.Errorf("keep secret %s of %s: %w", name, e.instance, err)
	}
	known, ok := e.manifest.Secrets[name]
	generation := 1
	if ok {
		generation = known.generation() + 1
	}
	e.manifest.Secrets[name] = entry{
		Kind: kind, Made: e.now().UTC(), Fingerprint: fingerprint(e.key, name, value), Keyfile: known.Keyfile, Generation: generation,
	}
	e.values[name] = value
	e.dirty = true
	return nil
}

// LogValue keeps a result out of logs.
func (r Result) LogValue() slog.Value {
	return slog.GroupValue(slog.Int("secrets", len(r.Values)), slog.Any("made", r.Made))
}
