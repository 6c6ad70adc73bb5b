package secrets

import (
	"fmt"
	"strings"
	"time"
)

// LostError says that a secret is gone although it is needed as it was: it was
// made on this host before (Known), or data exists that an earlier one
// protects. It is never made again.
type LostError struct {
	Instance string
	Name     string
	// Known says that the manifest remembers the secret.
	Known bool
	// Path is the file in which it was kept, or would be.
	Path string
	// Data names what exists on the host, such as volumes; empty when Known.
	Data []string
}

func (e *LostError) Error() string {
	if e.Known {
		return fmt.Sprintf("secret %s of %s was made on this host and its file %s is gone", e.Name, e.Instance, e.Path)
	}
	return fmt.Sprintf("secret %s of %s is not on this host, but data of the instance is: %s",
		e.Name, e.Instance, strings.Join(e.Data, ", "))
}

// Reason implements Resolvable.
func (e *LostError) Reason() string { return "SecretLost" }

// Do is the way out.
func (e *LostError) Do() string {
	return fmt.Sprintf("Restore %s from a backup of the state folder, or put the value back with: %s. It is never made again by itself, since the data would not open with another value",
		e.Path, setCommand(e.Instance, e.Name))
}

// MissingError says that an operator has to provide a secret.
type MissingError struct {
	Instance string
	Name     string
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("secret %s of %s has to be provided and is not on this host", e.Name, e.Instance)
}

// Reason implements Resolvable.
func (e *MissingError) Reason() string { return "SecretMissing" }

// Do is the way out.
func (e *MissingError) Do() string {
	return fmt.Sprintf("Put it there with: %s", setCommand(e.Instance, e.Name))
}

// ChangedError says that the file of a made secret holds something else than
// what was made or set.
type ChangedError struct {
	Instance string
	Name     string
	Path     string
}

func (e *ChangedError) Error() string {
	return fmt.Sprintf("secret %s of %s was changed in its file %s", e.Name, e.Instance, e.Path)
}

// Reason implements Resolvable.
func (e *ChangedError) Reason() string { return "SecretChanged" }

// Do is the way out.
func (e *ChangedError) Do() string {
	return fmt.Sprintf("Restore the file, or, if the new value is the right one, set it with: %s --replace", setCommand(e.Instance, e.Name))
}

// EndedError says that an authority cannot sign any more, as its own certificate has ended.
type EndedError struct {
	Instance string
	Name     string
	End      time.Time
}

func (e *EndedError) Error() string {
	return fmt.Sprintf("the authority %s of %s ended at %s and signs no certificates any more", e.Name, e.Instance, e.End.UTC().Format(time.RFC3339))
}

// Reason implements Resolvable.
func (e *EndedError) Reason() string { return "AuthorityEnded" }

// Do is the way out.
func (e *EndedError) Do() string {
	return fmt.Sprintf("Make another one with: dive-agent secrets rotate %s %s, or give one, key and certificate in PEM, with: %s --replace",
		e.Instance, e.Name, setCommand(e.Instance, e.Name))
}

// RotatingError says that a key which servers share is being replaced, and cannot be replaced again before all have followed.
type RotatingError struct {
	Instance string
	Name     string
	Step     string // how far it is, for people
}

func (e *RotatingError) Error() string {
	return fmt.Sprintf("secret %s of %s is being rotated: %s. Another key would shut out a server that has not followed yet; nothing was changed. See dive-agent status %s, and rotate it again when that is over",
		e.Name, e.Instance, e.Step, e.Instance)
}

// Resolvable is an error of this package with a way out for people.
type Resolvable interface {
	error
	// Reason is a word for programs: SecretLost, SecretMissing, SecretNotFound, SecretChanged, AuthorityEnded.
	Reason() string
	// Do is what to do, in a sentence.
	Do() string
}

// Problems are several of them, of different secrets; each is found by errors.As.
type Problems []Resolvable

func (p Problems) Error() string { return p.join("; ", Resolvable.Error) }

// Reason is that of the first.
func (p Problems) Reason() string { return p[0].Reason() }

// Do is what to do, about each in turn.
func (p Problems) Do() string { return p.join(". ", Resolvable.Do) }

// Unwrap gives all of them.
func (p Problems) Unwrap() []error {
	out := make([]error, len(p))
	for i, e := range p {
		out[i] = e
	}
	return out
}

func (p Problems) join(separator string, say func(Resolvable) string) string {
	texts := make([]string, len(p))
	for i, e := range p {
		texts[i] = say(e)
	}
	return strings.Join(texts, separator)
}

var (
	_ Resolvable = (*LostError)(nil)
	_ Resolvable = (*MissingError)(nil)
	_ Resolvable = (*ChangedError)(nil)
	_ Resolvable = (*EndedError)(nil)
	_ Resolvable = Problems(nil)
)

func setCommand(instance, name string) string {
	return fmt.Sprintf("dive-agent secrets set %s %s", instance, name)
}
