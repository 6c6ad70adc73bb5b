package agent

import (
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"dive-agent/desired"
	"dive-agent/reconcilers"
	"dive-agent/secrets"
)

// HostSecrets keeps the secrets of this host's instances in their folders.
type HostSecrets struct {
	Random  io.Reader
	Now     func() time.Time
	Keys    *secrets.HostKey // encrypts what is kept; nil: it is kept plain
	Sources *secrets.Sources // nil: this host has nothing that secrets may be taken from
}

func (h HostSecrets) open(instance *desired.Instance, dir string) (*secrets.Store, error) {
	return secrets.Open(h.options(instance, dir))
}

func (h HostSecrets) options(instance *desired.Instance, dir string) secrets.Options {
	return secrets.Options{Instance: instance.Name, Dir: dir, Random: h.Random, Now: h.Now, Keys: h.Keys}
}

// Ensure is Secrets.
func (h HostSecrets) Ensure(ctx context.Context, instance *desired.Instance, q SecretsQuery) (secrets.Result, error) {
	store, err := h.open(instance, q.Dir)
	if err != nil {
		return secrets.Result{}, err
	}
	opts := secrets.EnsureOptions{HasData: q.HasData}
	if h.Sources != nil {
		missing := func(name string) bool { return !store.Has(name) }
		opts.Looked = h.Sources.Look(ctx, instance.Secrets, secrets.LookOptions{Instance: instance.Name, Dir: q.Source, Missing: missing, All: q.All})
	}
	result, err := store.Ensure(ctx, instance.Secrets, opts)
	if err != nil {
		return secrets.Result{}, blockedBySecrets(err)
	}
	return result, nil
}

// Peek is Secrets.
func (h HostSecrets) Peek(_ context.Context, instance *desired.Instance, dir string) (values map[string]desired.Value, missing, err error) {
	values, problems, err := secrets.Peek(h.options(instance, dir), instance.Secrets)
	if len(problems) > 0 {
		missing = blockedBySecrets(problems)
	}
	return values, missing, err
}

// Former is Secrets.
func (h HostSecrets) Former(instance *desired.Instance, dir string) (map[string][]desired.Value, error) {
	return secrets.Former(h.options(instance, dir), instance.Secrets)
}

// Forget is Secrets.
func (h HostSecrets) Forget(ctx context.Context, instance *desired.Instance, dir string, inUse map[string]desired.Value) ([]string, error) {
	store, err := h.open(instance, dir)
	if err != nil {
		return nil, err
	}
	return store.Forget(ctx, inUse)
}

// scopeOf gives the scope of an instance with its secrets, present and former, and what is known of other instances, all of
// them known to the redactor.
func (a *Agent) scopeOf(ctx context.Context, instance *desired.Instance, folders places, values map[string]desired.Value) (*desired.Scope, imported, error) {
	a.Redactor.AddValue(slices.Collect(maps.Values(values))...)
	former, err := a.Secrets.Former(instance, folders.secrets)
	if err != nil {
		return nil, imported{}, err
	}
	for _, list := range former {
		a.Redactor.AddValue(list...)
	}
	return a.withImports(ctx, instance, instance.Scope(values, folders.builtins()).WithFormer(former).Telling(a.learn))
}

// forget removes the former values of secrets after a pass that left everything in sync: whatever uses a secret has
// the present value, and whatever sets it, or shares it as its servers' key, was seen to take that. Secrets that have another
// value from now on make another pass due at once.
func (r *round) forget(ctx context.Context, p *pass) (goOn bool) {
	inUse := map[string]desired.Value{}
	for name := range p.scope.FormerNames() {
		held := func(node string) bool { return p.isHeld(desired.Edge{On: node, Secret: name}) }
		if !slices.ContainsFunc(p.instance.Graph.Holders[name], func(node string) bool { return !held(node) }) {
			inUse[name] = p.secrets[name]
		}
	}
	if len(inUse) == 0 {
		return false
	}
	next, err := r.Secrets.Forget(ctx, p.instance, p.places.secrets, inUse)
	if err != nil {
		r.log.Warn("former values of secrets are kept", "error", err)
	}
	for _, name := range next {
		message := name + ": all that uses it has followed; the next step of its replacement begins"
		if spec := p.instance.Secret(name); spec != nil && spec.Keyfile {
			message = name + ": all servers that share it know the new key; the former one is taken away"
		}
		r.emit(Event{Kind: "secrets", Message: message, Run: r.record.id})
	}
	return len(next) > 0
}

// blockedBySecrets turns what only a person can mend into a BlockedError with every way out.
func blockedBySecrets(err error) error {
	var (
		lost    *secrets.LostError
		missing *secrets.MissingError
		changed *secrets.ChangedError
		ended   *secrets.EndedError
		source  *secrets.SourceError
		sealed  *secrets.SealedError
		reason  string
	)
	switch {
	case errors.As(err, &sealed):
		reason = "SecretSealed"
	case errors.As(err, &lost):
		reason = "SecretLost"
	case errors.As(err, &changed):
		reason = "SecretChanged"
	case errors.As(err, &missing):
		reason = "SecretMissing"
	case errors.As(err, &ended):
		reason = "AuthorityEnded"
	case errors.As(err, &source):
		reason = "SecretNotFound"
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
