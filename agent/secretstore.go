package agent

import (
	"context"
	"errors"
	"io"
	"strings"
	"time"

	"dive-agent/desired"
	"dive-agent/reconcilers"
	"dive-agent/secrets"
)

// HostSecrets keeps the secrets of this host's instances in their folders.
type HostSecrets struct {
	Random io.Reader
	Now    func() time.Time
}

// Ensure is Secrets.
func (h HostSecrets) Ensure(ctx context.Context, instance *desired.Instance, dir string, hasData func(context.Context) ([]string, error)) (map[string]desired.Value, []string, error) {
	store, err := secrets.Open(secrets.Options{Instance: instance.Name, Dir: dir, Random: h.Random, Now: h.Now})
	if err != nil {
		return nil, nil, err
	}
	result, err := store.Ensure(ctx, instance.Secrets, secrets.EnsureOptions{HasData: hasData})
	if err != nil {
		return nil, nil, blockedBySecrets(err)
	}
	return result.Values, result.Made, nil
}

// Peek is Secrets.
func (h HostSecrets) Peek(_ context.Context, instance *desired.Instance, dir string) (values map[string]desired.Value, missing, err error) {
	values, problems, err := secrets.Peek(instance.Name, dir, instance.Secrets)
	if len(problems) > 0 {
		missing = blockedBySecrets(problems)
	}
	return values, missing, err
}

// blockedBySecrets turns what only a person can mend into a BlockedError with every way out.
func blockedBySecrets(err error) error {
	var (
		lost    *secrets.LostError
		missing *secrets.MissingError
		changed *secrets.ChangedError
		reason  string
	)
	switch {
	case errors.As(err, &lost):
		reason = "SecretLost"
	case errors.As(err, &changed):
		reason = "SecretChanged"
	case errors.As(err, &missing):
		reason = "SecretMissing"
	default:
		return err
	}
	messages, ways := waysOut(err)
	return &reconcilers.BlockedError{Reason: reason, Message: strings.Join(messages, "; "), Do: strings.Join(ways, "\n")}
}

// waysOut walks a joined error.
func waysOut(err error) (messages, ways []string) {
	if joined, ok := err.(interface{ Unwrap() []error }); ok { //nolint:errorlint // errors.Join is taken apart, not searched
		for _, one := range joined.Unwrap() {
			m, w := waysOut(one)
			messages, ways = append(messages, m...), append(ways, w...)
		}
		return messages, ways
	}
	var resolvable secrets.Resolvable
	if errors.As(err, &resolvable) {
		ways = append(ways, resolvable.Do())
	}
	return append(messages, err.Error()), ways
}
