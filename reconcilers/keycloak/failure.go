package keycloak

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"dive-agent/reconcilers"
)

// failed makes an error for people of a run of Terraform that did not succeed, from the diagnostics of its stream. The
// texts are the provider's, and cleaned of every secret.
func (l *look) failed(what string, s *stream, err error) error {
	if terminated(err) {
		return fmt.Errorf("%s %s of module %s did not end in time: %w", l.work.toolName, what, l.spec.Module, context.DeadlineExceeded)
	}
	told := s.telling()
	var lines []string
	for _, d := range told {
		if len(lines) == 5 {
			lines = append(lines, fmt.Sprintf("and %d more", len(told)-5))
			break
		}
		lines = append(lines, l.deps.Redact(d.String()))
	}
	if len(lines) == 0 {
		lines = []string{cmp.Or(l.deps.Redact(brief(err)), "it ended without a word")}
	}
	text := fmt.Sprintf("%s %s of module %s: %s", l.work.toolName, what, l.spec.Module, strings.Join(lines, "; "))
	for _, d := range told {
		if d.conflict() && l.cut != nil && l.cut.begun[d.Address] {
			return &reconcilers.WaitError{For: "what a run that was cut off had asked the server for", Again: time.Second, Err: errors.New(text)}
		}
		if policy := l.policyOf(d, text); policy != nil {
			return errors.Join(policy, l.remember(policy))
		}
	}
	return errors.New(text)
}

// refusal is a sign-in that the server refused. Each further try with the same password brings the account nearer to
// its lock.
type refusal struct {
	Inputs  string    `json:"inputs"`
	Tries   int       `json:"tries"`
	Until   time.Time `json:"until"`
	Message string    `json:"message"`
}

// The pauses after a refusal: the first for a server that is still being set up, all others longer than the twelve hours for
// which Keycloak's brute force detection counts by default.
const (
	refusalPause     = 5 * time.Minute
	refusalLongPause = 13 * time.Hour
)

func (l *look) refusalFile() string { return filepath.Join(l.work.dir, "refused.json") }

// refusalKey tells one who was refused from another: by the module's inputs, and by the password where that is none of them.
func (l *look) refusalKey() string {
	if l.in.account.id == "" {
		return l.in.digest
	}
	return l.in.digest + " " + l.login(l.in.admin.password)
}

func (l *look) remember(policy error) error {
	var blocked *reconcilers.BlockedError
	if !errors.As(policy, &blocked) || blocked.Reason != "WrongPassword" {
		return nil
	}
	now := refusal{Inputs: l.refusalKey(), Tries: 1, Message: blocked.Message}
	var last refusal
	if err := load(l.refusalFile(), &last); err == nil && last.Inputs == now.Inputs {
		now.Tries = last.Tries + 1
	}
	pause := refusalPause
	if now.Tries > 1 {
		pause = refusalLongPause
	}
	now.Until = l.deps.Clock.Now().Add(pause)
	return store(l.refusalFile(), now)
}

// refused gives the same answer again while the inputs are those that the server refused.
func (l *look) refused() error {
	var last refusal
	if err := load(l.refusalFile(), &last); err != nil || last.Inputs != l.refusalKey() {
		return removeIfThere(l.refusalFile())
	}
	if !l.deps.Clock.Now().Before(last.Until) {
		return nil
	}
	return l.wrongPassword(last.Message)
}

// refusedWho is refused for a module that signs in as the administrator; a service account is tried at each look, since no client
// is locked by that.
func (l *look) refusedWho() error {
	if l.in.account.id != "" {
		return nil
	}
	return l.refused()
}

// notAccepted words a refusal of who the module signs in as.
func (l *look) notAccepted(text string) error {
	if l.in.account.id != "" {
		return l.accountLost(text)
	}
	return l.wrongPassword(text)
}

func (l *look) wrongPassword(text string) error {
	return &reconcilers.BlockedError{
		Reason: "WrongPassword", Message: text,
		Do: "Check keycloak_admin_user (or adminUser of the component) and keycloak_admin_password against the server's administrator (a locked account answers the same). So as not to lock the account, these are tried again only " +
			"after minutes, and then after half a day; at once when they change, or when somebody removes " + l.refusalFile(),
	}
}

// policyOf knows the errors that are no mere failures. Nothing is typed there, so it reads the texts of Terraform 1.x
// and of the provider.
func (l *look) policyOf(d diagnostic, text string) error {
	said := d.text()
	switch {
	case strings.Contains(said, "401 Unauthorized") || strings.Contains(said, "Invalid user credentials") || strings.Contains(said, "invalid_grant") || strings.Contains(said, "invalid_client") || strings.Contains(said, "unauthorized_client"):
		return l.notAccepted(text)
	case (strings.Contains(said, "Failed to write state") || strings.Contains(said, "Failed to save state")) && strings.Contains(said, "no space left on device"):
		// Nothing of what Terraform says more: a state must not be pushed by hand beside the agent.
		return &reconcilers.WaitError{
			For: "room on the disk of " + l.work.dir + ", which got full while " + l.work.toolName + " wrote its state",
			Do:  roomWay, Again: 5 * time.Second,
		}
	case strings.Contains(said, lockWords):
		return l.locked(l.work.remote, text)
	case strings.Contains(said, "Instance cannot be destroyed"):
		return &reconcilers.BlockedError{
			Reason: "PreventDestroy", Message: text,
			Do: "The module protects this resource with prevent_destroy. Change the module or the variables so that the plan keeps it",
		}
	case strings.Contains(said, "could not be parsed") && strings.Contains(said, "state"):
		return &reconcilers.BlockedError{Reason: "StateLost", Message: text, Do: "Put the last copy of the state back"}
	case d.conflict():
		return &reconcilers.BlockedError{
			Reason: "AlreadyThere", Message: text,
			Do: l.conflictWay(),
		}
	}
	return nil
}

// conflictWay is the way out of a conflict: what to merge to take over what is there, as far as it can be found by its name.
func (l *look) conflictWay() string {
	show := fmt.Sprintf("`dive-agent adopt %s` shows what of the realm can be imported", l.target.Instance.Name)
	if len(l.met) == 0 {
		return "Something of that name is in the realm and not in the Terraform state. " + show + ". Or rename it, or remove it from the realm"
	}
	return "To take over as it is what is in the realm under that name, merge " + l.mergeLine(importsField(l.met)) + ". Or rename it, or remove it from the realm. " + show
}

// findConflicts looks for what stood in the way of an apply, and for its import id. What cannot be found is left out.
func (r *run) findConflicts(ctx context.Context) {
	wanted := map[string]bool{}
	for _, d := range r.stream.telling() {
		if d.conflict() && d.Address != "" && (r.cut == nil || !r.cut.begun[d.Address]) {
			wanted[d.Address] = true
		}
	}
	if len(wanted) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	s, err := newServer(r.in.url, r.in.ca)
	if err == nil {
		err = s.signIn(ctx, r.in)
	}
	if err == nil {
		state, _ := readState(r.work.state) // has the ids of what this run made; without them less is found
		a := newAdopter(s, state, nil, func(address string) bool { return wanted[address] })
		_, err = a.search(ctx, r.plan.plan)
		r.met = a.done
	}
	if err != nil {
		r.target.Log.Warn("cannot look for what is in the realm already", "error", r.deps.Redact(err.Error()))
	}
}
