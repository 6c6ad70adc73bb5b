package keycloak

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"time"

	"dive-agent/reconcilers"
)

// A lock of PostgreSQL ends with its holder's connection, and the one of a file with its holder. Those of the other places are
// things that stay until somebody takes them away, so that a Terraform which was killed, or a host that lost its power, leaves
// one for ever. Which holder is gone cannot be told from here for sure: a person says so.

// lockWords are Terraform's and OpenTofu's.
const lockWords = "Error acquiring the state lock"

// lockPatience is how long somebody else's run may hold the lock before a person is told.
const lockPatience = 5 * time.Minute

// seenLock is a lock that stood in the way.
type seenLock struct {
	ID    string    `json:"id"`
	Since time.Time `json:"since"`
}

func (w *workspace) lockFile() string { return filepath.Join(w.dir, "lock.json") }

// Terraform tells its own data as "Lock Info" where the place does not tell the holder's: http names the holder's id before
// that, and pg none at all.
var (
	heldID   = regexp.MustCompile(`already locked:\s+ID=(\S+)`)
	infoID   = regexp.MustCompile(`Lock Info:\s+ID:\s+(\S+)`)
	infoRest = []*regexp.Regexp{regexp.MustCompile(`Operation:\s+(\S+)`), regexp.MustCompile(`Who:\s+(\S+)`), regexp.MustCompile(`Created:\s+(\S+ \S+)`)}
)

// holderOf gives the id of the lock that is held, as far as it is told.
func holderOf(kind, text string) string {
	if m := heldID.FindStringSubmatch(text); m != nil {
		return m[1]
	}
	if kind == backendPg || kind == backendHTTP {
		return ""
	}
	if m := infoID.FindStringSubmatch(text); m != nil {
		return m[1]
	}
	return ""
}

// holderWords is what is told of the holder: nothing where what Terraform says is about itself.
func holderWords(text, id string) string {
	words := "id " + id
	if m := infoID.FindStringSubmatch(text); m == nil || m[1] != id {
		return words
	}
	for _, rest := range infoRest {
		if m := rest.FindStringSubmatch(text); m != nil {
			words += ", " + m[1]
		}
	}
	return words
}

// locked says what is done about a lock that is held.
func (l *look) locked(r *remote, text string) error {
	now := l.deps.Clock.Now()
	wait := &reconcilers.WaitError{For: "the lock of the Terraform state", Again: 5 * time.Second, Err: errors.New(text)}
	if r == nil {
		return wait
	}
	seen, id := seenLock{}, holderOf(r.kind, text)
	if refusal := r.refused("lock", text); refusal != nil && !heldID.MatchString(text) {
		return refusal // nobody holds it: the place knows no locks, or does not let the agent have one
	}
	if err := load(l.work.lockFile(), &seen); err != nil || seen.ID != id || seen.Since.IsZero() {
		seen = seenLock{ID: id, Since: now}
		if err := store(l.work.lockFile(), seen); err != nil {
			return err
		}
	}
	ours := l.cut != nil && r.kind != backendPg // an apply of this agent that did not come to its end
	if id != "" && l.spec.Backend != nil && l.spec.Backend.ForceUnlock == id {
		return l.breakLock(id)
	}
	if now.Sub(seen.Since) < lockPatience && !ours {
		return wait
	}
	return l.stateLocked(r, text, id, seen.Since, ours)
}

// stateLocked tells a person of a lock, and how it ends.
func (l *look) stateLocked(r *remote, text, id string, since time.Time, ours bool) error {
	blocked := &reconcilers.BlockedError{Reason: "StateLocked", Message: fmt.Sprintf("the Terraform state at %s has been locked since %s or before", r.place, since.UTC().Format(time.RFC3339))}
	switch {
	case r.kind == backendPg:
		blocked.Do = "The lock ends with the connection of who holds it: `SELECT a.pid, a.client_addr, a.backend_start FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE l.locktype = 'advisory'` names it. Nothing was changed"
		return blocked
	case id == "":
		blocked.Message += ": " + cutText(text, 300)
		blocked.Do = "The place does not tell by whom: look there. Nothing was changed"
		return blocked
	}
	blocked.Message += " (" + holderWords(text, id) + ")"
	if ours {
		blocked.Message += "; an apply of this agent was cut off, and may have left it"
	}
	blocked.Do = fmt.Sprintf("Look whether somebody works on it. When nobody does, merge %s. Nothing was changed", l.mergeLine("backend: {forceUnlock: "+quoted(id)+"}"))
	return blocked
}

// breakLock breaks the lock that the manifest names, which has just been seen to be the one that is held.
func (l *look) breakLock(id string) error {
	if err := l.here().unlock(context.Background(), id); err != nil {
		return fmt.Errorf("break the lock %s of the Terraform state: %s", id, l.deps.Redact(brief(err)))
	}
	l.target.Log.Warn("a lock of the terraform state was broken, as the manifest says", "lock", id)
	return errors.Join(removeIfThere(l.work.lockFile()), &reconcilers.WaitError{For: "the state whose lock was broken", Again: time.Second})
}
