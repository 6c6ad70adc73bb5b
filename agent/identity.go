package agent

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"dive-agent/desired"
	"dive-agent/hostkeys"
	"dive-agent/reconcilers"
	"dive-agent/report"
)

// identity is the host as the revision in force has it, and what is wrong with its keys by that. The zero identity is that
// of an agent that has taken no revision yet.
type identity struct {
	mu       sync.Mutex // guards what follows; no other lock is taken under it
	declared *desired.Host
	trouble  *keyTrouble // nil: the keys are as the host's file lists them, or it lists none
}

// keyTrouble is why nobody can believe what this host signs, or seal anything to it.
type keyTrouble struct {
	reason, message, do string
	since               time.Time
}

// identify takes over what a revision says of this host: keys are made where none were and the host's file lists none, and
// a former pair is deleted once the file lists it no more. A machine that the file does not name touches no key.
func (a *Agent) identify(declared *desired.Host) {
	if declared == nil {
		declared = &desired.Host{Name: a.Host}
	}
	var trouble *keyTrouble
	if a.HostKeys != "" && a.foreignTo(declared) == nil {
		trouble = a.keysFor(declared)
	}
	a.identity.mu.Lock()
	defer a.identity.mu.Unlock()
	before := a.identity.trouble
	switch {
	case trouble == nil:
	case before != nil && before.reason == trouble.reason:
		trouble.since = before.since
	default:
		a.Log.Warn("the keys of this host are not as its file lists them", "reason", trouble.reason, "message", trouble.message, "next", trouble.do)
	}
	a.identity.declared, a.identity.trouble = declared, trouble
}

// identifyAgain looks whether what was wrong with the keys was mended; where nothing was, it looks at nothing.
func (a *Agent) identifyAgain() {
	a.identity.mu.Lock()
	declared, again := a.identity.declared, a.identity.trouble != nil
	a.identity.mu.Unlock()
	if again {
		a.identify(declared)
	}
}

// keysFor brings this host's keys in line with its file.
func (a *Agent) keysFor(declared *desired.Host) *keyTrouble {
	file := "hosts/" + a.Host + ".yaml"
	fail := func(reason, message, do string) *keyTrouble {
		return &keyTrouble{reason, message, do, a.Clock.Now().UTC()}
	}
	keys, err := a.openKeys(declared)
	var damaged *hostkeys.DamagedError
	switch {
	case errors.As(err, &damaged):
		return fail("HostKeysDamaged", err.Error(), damaged.Do())
	case errors.Is(err, hostkeys.ErrNone):
		return fail("HostKeysLost", file+" lists keys of this host, and there are none in "+a.HostKeys+": they are lost, or this is another machine or a new state folder. What it tells is not signed, and what is sealed to it does not open",
			"Put "+a.HostKeys+" back from a backup of the state folder. Where there is none: dive-agent enroll --anew makes other keys and prints the host's file; merge it")
	case err != nil:
		return fail("HostKeysUnusable", err.Error(), "See that the agent can write its state folder "+a.Dir)
	}
	gone, err := hostkeys.Prune(a.HostKeys, declared.Recipients, declared.SigningKeys)
	for _, pair := range gone {
		message := fmt.Sprintf("the former keys of this host are deleted, as %s lists them no more: %s, %s", file, pair.Recipient, pair.SigningKey)
		a.Log.Info(message)
		a.bus.emit(Event{Time: a.Clock.Now(), Kind: "host", State: "KeysDeleted", Message: message})
	}
	if err != nil {
		return fail("HostKeysUnusable", err.Error(), "See that the agent can write its state folder "+a.Dir)
	}
	recipients, signing := []string{}, []string{a.signsWith(keys)}
	for _, pair := range keys.Public() {
		recipients, signing = append(recipients, pair.Recipient), append(signing, pair.SigningKey)
	}
	if message := notListed(file, "signingKeys", declared.SigningKeys, signing) + notListed(file, "recipients", declared.Recipients, recipients); message != "" {
		return fail("HostKeysNotListed", message[:len(message)-2], "dive-agent enroll prints the file with this host's keys; merge it")
	}
	return nil
}

// openKeys gives this host's keys, and makes the first ones where its file lists none.
func (a *Agent) openKeys(declared *desired.Host) (*hostkeys.Keys, error) {
	if len(declared.Recipients)+len(declared.SigningKeys) > 0 {
		return hostkeys.Open(a.HostKeys)
	}
	keys, made, err := hostkeys.Ensure(a.HostKeys, a.Clock.Now())
	if made && err == nil {
		const message = "keys of this host were made; dive-agent enroll prints the host's file with their public halves: merge it, so that others know them"
		a.Log.Info(message)
		a.bus.emit(Event{Time: a.Clock.Now(), Kind: "host", State: "KeysMade", Message: message})
	}
	return keys, err
}

// signsWith is the public half of the key that was given to sign in place of the host's own; else that of the newest.
func (a *Agent) signsWith(keys *hostkeys.Keys) string {
	if public, err := hostkeys.PublicOf(a.SigningKey); err == nil {
		return public
	}
	return keys.Public()[0].SigningKey
}

// notListed says that of a list in the host's file none is its own, or "".
func notListed(file, field string, listed, own []string) string {
	if len(listed) == 0 || slices.ContainsFunc(own, func(key string) bool { return hostkeys.Lists(listed, key) }) {
		return ""
	}
	what := "what it tells does not count as signed by it"
	if field == "recipients" {
		what = "what is sealed to them does not open here"
	}
	return fmt.Sprintf("none of the %s in %s is a key that this host has: %s; ", field, file, what)
}

// StatusKey gives the private key, in PEM, that signs the status commits of this host now: the one that was given in place of
// its own, else the newest that its file lists, else the newest. Nil: it has none that can be used.
func (a *Agent) StatusKey() []byte {
	if len(a.SigningKey) > 0 || a.HostKeys == "" {
		return a.SigningKey
	}
	keys, err := hostkeys.Open(a.HostKeys)
	if err != nil {
		a.identity.mu.Lock()
		declared := a.identity.declared
		a.identity.mu.Unlock()
		if declared != nil {
			a.identify(declared) // the next status says so
		}
		return nil
	}
	a.identity.mu.Lock()
	var allowed []string
	if a.identity.declared != nil {
		allowed = a.identity.declared.SigningKeys
	}
	a.identity.mu.Unlock()
	pem, ok := keys.Signer(allowed)
	if !ok {
		pem, _ = keys.Signer(nil) // who checks it tells which key it was
	}
	return pem
}

// foreignTo says that the host's file names another machine than this one: a BlockedError, or nil.
func (a *Agent) foreignTo(declared *desired.Host) error {
	if declared == nil || declared.MachineID == "" || a.MachineID == "" || declared.MachineID == a.MachineID {
		return nil
	}
	return &reconcilers.BlockedError{
		Reason:  "ForeignMachine",
		Message: fmt.Sprintf("hosts/%s.yaml names the machine %s, and this is %s; nothing is done here, and nothing is told to Git", a.Host, declared.MachineID, a.MachineID),
		Do:      "Correct the machine id of the host (dive-agent enroll prints the file for this machine), or the host's name in this agent's configuration. " + movedIn(declared.MachineID),
	}
}

// declaredHost is this host as what the worker works on has it, or as the revision in force does.
func (w *worker) declaredHost() *desired.Host {
	w.mu.Lock()
	next, removed := w.assigned, w.removed
	w.mu.Unlock()
	if next != nil && !removed {
		return next.fleet.Hosts[w.Host]
	}
	w.identity.mu.Lock()
	defer w.identity.mu.Unlock()
	return w.identity.declared
}

// hostKeys says what is wrong with the keys of the host, since when, and what to do. What runs is not touched by it.
func (s situation) hostKeys(st *report.Status) {
	if s.keys == nil {
		return
	}
	st.Conditions = append(st.Conditions, report.Condition{Type: "HostKeysListed", Reason: s.keys.reason, Message: s.keys.message, Since: s.keys.since})
	st.Why, st.Next = add(st.Why, s.keys.message), add(st.Next, s.keys.do)
}
