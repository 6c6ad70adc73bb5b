package keycloak

import (
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
		return fmt.Errorf("%s %s of module %s did not end in time: %w", l.work.toolName, what, l.spec.Module, err)
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
		lines = []string{l.deps.Redact(brief(err))}
	}
	text := fmt.Sprintf("%s %s of module %s: %s", l.work.toolName, what, l.spec.Module, strings.Join(lines, "; "))
	for _, d := range told {
		if d.conflict() && l.cut != nil && l.cut.begun[d.Address] {
			return &reconcilers.WaitError{For: "what a run that was cut off had asked the server for", Again: time.Second, Err: errors.New(text)}
		}
		if policy := policyOf(d, text); policy != nil {
			return errors.Join(policy, l.remember(policy))
		}
	}
	return errors.New(text)
}

// refusal is a sign-in that the server refused. Each further try with the same password brings the account nearer to
// its lock, so there is none for a while.
type refusal struct {
	Inputs  string    `json:"inputs"`
	Until   time.Time `json:"until"`
	Message string    `json:"message"`
}

// refusalPause is longer than Keycloak's brute force detection remembers by default in its shortest steps.
const refusalPause = 5 * time.Minute

func (l *look) remember(policy error) error {
	var blocked *reconcilers.BlockedError
	if !errors.As(policy, &blocked) || blocked.Reason != "WrongPassword" {
		return nil
	}
	return store(filepath.Join(l.work.dir, "refused.json"), refusal{l.in.digest, l.deps.Clock.Now().Add(refusalPause), blocked.Message})
}

// refused gives the same answer again while the inputs are those that the server refused.
func (l *look) refused() error {
	var last refusal
	name := filepath.Join(l.work.dir, "refused.json")
	if err := load(name, &last); err != nil || last.Inputs == "" {
		return removeIfThere(name)
	}
	if last.Inputs != l.in.digest || !l.deps.Clock.Now().Before(last.Until) {
		return removeIfThere(name)
	}
	return wrongPasswordError(last.Message)
}

func wrongPasswordError(text string) error {
	return &reconcilers.BlockedError{
		Reason: "WrongPassword", Message: text,
		Do: "Check keycloak_admin_user and keycloak_admin_password against the server's administrator (a locked account answers the same)",
	}
}

// policyOf knows the errors that are no mere failures. Nothing is typed there, so it reads the texts of Terraform 1.x
// and of the provider.
func policyOf(d diagnostic, text string) error {
	said := d.text()
	switch {
	case strings.Contains(said, "401 Unauthorized") || strings.Contains(said, "Invalid user credentials") || strings.Contains(said, "invalid_grant") || strings.Contains(said, "invalid_client") || strings.Contains(said, "unauthorized_client"):
		return wrongPasswordError(text)
	case strings.Contains(said, "Error acquiring the state lock"):
		return &reconcilers.WaitError{For: "the lock of the Terraform state", Again: 5 * time.Second, Err: errors.New(text)}
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
			Do: "Something of that name is in the realm and not in the Terraform state. Import it (`adopt: true` with an empty state), rename it, or remove it from the realm",
		}
	}
	return nil
}
