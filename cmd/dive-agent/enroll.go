package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"dive-agent/config"
	"dive-agent/desired"
	"dive-agent/hostkeys"
)

func newEnroll(g *globals) *cobra.Command {
	var e enrolment
	cmd := &cobra.Command{
		Use: "enroll", Short: "Print this host's file for the fleet repository, hosts/<name>.yaml; make its keys when there are none", Args: cobra.NoArgs,
		Long: `Prints hosts/<name>.yaml for the fleet repository: this machine's id, and the public halves of the host's keys. The keys
are made once, in the folder host of the state folder, 0600, and never leave it. Keys that are lost or damaged are not made
again by themselves (exit code 3). What to do with the file is said on standard error.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if e.rotate && e.anew {
				return usageError(cmd, "--rotate keeps the keys that are there until the merged file lists them no more, --anew puts them aside: give one of them")
			}
			return e.run(g)
		},
	}
	cmd.Flags().BoolVar(&e.rotate, "rotate", false, "make another pair of keys, and print the file with both")
	cmd.Flags().BoolVar(&e.anew, "anew", false, "make other keys in place of those that are lost or damaged")
	return cmd
}

// enrolment is one run of enroll; it is printed as JSON too.
type enrolment struct {
	rotate, anew bool
	folder       string        // of the keys
	merged       *desired.Host // as the revision in force has it; nil: nobody knows
	at           string        // that revision, short

	Name        string                `json:"name"`
	MachineID   string                `json:"machineID"`
	Recipients  []string              `json:"recipients"`
	SigningKeys []string              `json:"signingKeys"`
	Keys        []hostkeys.PublicPair `json:"keys"` // of those, the host's own, newest first
	Path        string                `json:"path"` // of the file in the fleet repository
	File        string                `json:"file"`
	Made        bool                  `json:"made"` // a pair was made
	Notes       []string              `json:"notes"`
}

func (e *enrolment) run(g *globals) error {
	c, err := config.Load(g.config)
	if err != nil {
		return err
	}
	e.Name, e.MachineID, e.folder = c.Host, machineID(c), keysFolder(c)
	if e.MachineID == "" {
		return fmt.Errorf("this host has no machine id: make one with systemd-machine-id-setup, or set machineID in %s", g.config)
	}
	given, err := signingKey(c.Report)
	if err != nil {
		return err
	}
	if err := e.readMerged(c); err != nil {
		return err
	}
	keys, err := e.keys()
	var damaged *hostkeys.DamagedError
	if errors.As(err, &damaged) {
		return &exitError{exitBlocked, fmt.Errorf("%w. %s", err, damaged.Do())}
	}
	if err != nil {
		return err
	}
	e.write(keys, given)
	if g.output == "json" {
		return g.json(e)
	}
	for _, note := range e.Notes {
		say(g.err, errors.New(note))
	}
	g.printf("%s", e.File)
	return nil
}

// readMerged reads what the revision in force says of this host.
func (e *enrolment) readMerged(c *config.Config) error {
	h := &host{config: c}
	defer h.close()
	if err := h.openSource(); err != nil {
		return err
	}
	revision, ok := h.source.Current()
	if !ok {
		return nil
	}
	merged, err := desired.ReadHost(revision.Dir, e.Name)
	if err != nil {
		e.note("what is merged at %s cannot be read: %v", revision.Short(), err)
	}
	e.merged, e.at = merged, revision.Short()
	return nil
}

func (e *enrolment) note(format string, args ...any) {
	e.Notes = append(e.Notes, fmt.Sprintf(format, args...))
}

// listed are the keys of the merged file.
func (e *enrolment) listed() (recipients, signingKeys []string) {
	if e.merged == nil {
		return nil, nil
	}
	return e.merged.Recipients, e.merged.SigningKeys
}

// keys gives the host's keys, made as far as that was asked for.
func (e *enrolment) keys() (*hostkeys.Keys, error) {
	recipients, signingKeys := e.listed()
	have, err := hostkeys.Open(e.folder)
	var damaged *hostkeys.DamagedError
	missing := errors.Is(err, hostkeys.ErrNone)
	switch {
	case e.anew && err == nil:
		return nil, fmt.Errorf("the keys of this host in %s are whole: to change them, dive-agent enroll --rotate", e.folder)
	case e.anew && (missing || errors.As(err, &damaged)):
		return e.makeAnew()
	case missing && e.rotate:
		return nil, fmt.Errorf("there is nothing to rotate in %s: %w", e.folder, err)
	case missing && len(recipients)+len(signingKeys) > 0:
		return nil, &exitError{exitBlocked, fmt.Errorf("hosts/%s.yaml, merged at %s, lists keys of this host, and there are none in %s. Put that folder back from a backup of the state folder. "+
			"Where there is none, or this is a new machine: dive-agent enroll --anew makes other keys", e.Name, e.at, e.folder)}
	case missing:
		keys, made, err := hostkeys.Ensure(e.folder, time.Now())
		if e.Made = made; made && err == nil {
			e.note("keys of this host were made in %s; they never leave it", e.folder)
		}
		return keys, err
	case err != nil || !e.rotate:
		return have, err
	}
	if newest := have.Public()[0]; len(signingKeys) > 0 && !hostkeys.Lists(signingKeys, newest.SigningKey) && e.anyOwn(have, signingKeys) {
		e.note("a rotation is under way: the pair of %s is not merged yet, so no other one was made", day(newest.Made))
		return have, nil
	}
	e.Made = true
	keys, err := hostkeys.Rotate(e.folder, time.Now())
	if err == nil {
		e.note("another pair was made in %s. Merge the file; what this host tells is signed with the new key from then on. When dive-agent verify-status shows that, take the lines of the former keys out and merge again: the agent deletes their private halves then", e.folder)
	}
	return keys, err
}

// makeAnew makes other keys in place of those that are lost or damaged.
func (e *enrolment) makeAnew() (*hostkeys.Keys, error) {
	keys, aside, err := hostkeys.Anew(e.folder, time.Now())
	if err != nil {
		return nil, err
	}
	e.Made = true
	e.note("other keys of this host were made in %s. What was sealed to the former ones opens here again once the file is merged and the other hosts have sealed it anew", e.folder)
	if aside != "" {
		e.note("what was left of the former keys is in %s: delete it when nobody needs it", aside)
	}
	return keys, nil
}

func (e *enrolment) anyOwn(keys *hostkeys.Keys, listed []string) bool {
	for _, pair := range keys.Public() {
		if hostkeys.Lists(listed, pair.SigningKey) {
			return true
		}
	}
	return false
}

// write makes the file of what is known now. given is the key that the configuration names for status commits, or nil.
func (e *enrolment) write(keys *hostkeys.Keys, given []byte) {
	notes := map[string]string{}
	if public, err := hostkeys.PublicOf(given); err == nil {
		e.SigningKeys = append(e.SigningKeys, public)
		notes[public] = "report.signingKey of its agent.yaml"
	}
	e.Keys = keys.Current(e.listed())
	for i, pair := range e.Keys {
		note := "made " + day(pair.Made)
		if i > 0 {
			note += "; to be taken out once the new one is in use"
		}
		notes[pair.Recipient], notes[pair.SigningKey] = note, note
		e.Recipients, e.SigningKeys = append(e.Recipients, pair.Recipient), append(e.SigningKeys, pair.SigningKey)
	}
	file := desired.HostFile(&desired.Host{Name: e.Name, MachineID: e.MachineID, Recipients: e.Recipients, SigningKeys: e.SigningKeys}, notes)
	e.Path, e.File = file.Path, string(file.Text)
	e.compare()
}

// compare says what of the file is not merged yet.
func (e *enrolment) compare() {
	recipients, signingKeys := e.listed()
	others := strangers(recipients, e.Recipients) + strangers(signingKeys, e.SigningKeys)
	switch {
	case e.merged == nil:
		e.note("merge it into the fleet repository as %s", e.Path)
	case e.merged.MachineID == e.MachineID && others == 0 && strangers(e.Recipients, recipients)+strangers(e.SigningKeys, signingKeys) == 0:
		e.note("%s is merged already, at %s: there is nothing to do", e.Path, e.at)
	default:
		e.note("it differs from %s as merged at %s: merge it in its place", e.Path, e.at)
	}
	if others > 0 {
		e.note("%d of the keys that are merged there are not of this host, or are no longer in use, and are left out", others)
	}
}

// strangers counts what of a list is not in another one.
func strangers(list, in []string) (n int) {
	for _, key := range list {
		if !hostkeys.Lists(in, key) {
			n++
		}
	}
	return n
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02") }
