package compose

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd/platforms"
	"github.com/moby/moby/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"dive-agent/reconcilers"
)

// Limits of the pull of one image: as a whole, and for which nothing is heard of it.
const (
	pullLimit  = time.Hour
	quietLimit = 3 * time.Minute
)

// noAnswer tells of a registry, and an image of it.
const noAnswer = "the registry %s does not answer, and image %s is needed from it"

const untouched = "nothing was changed"

// pull brings one image to the host. One that the registry does not have, or not for this host, makes the revision a
// rejected one: nothing of the stack was touched for it. What may be different later (a registry that is away, a full
// disk) rejects it for now. An image that is only to be refreshed stays as it is when that fails.
func (r *Reconciler) pull(ctx context.Context, s *stack, o order) error {
	if o.pull == pullNever {
		return &reconcilers.RejectedError{Message: fmt.Sprintf("image %s is %s and the pull policy is never", o.name, o.reason), PutBack: untouched}
	}
	err := r.pullBounded(ctx, s, o)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil && (o.before == "" || client.IsErrConnectionFailed(err)) {
		return errors.Join(err, r.doubt(s, o, err))
	}
	if err != nil {
		r.log.Warn("image could not be refreshed; the one on the host is used", "image", o.name, "error", r.redact(err.Error()))
	}
	return r.notePull(s, o, err)
}

// doubt remembers a registry of which an image could not be had for now: it is asked whether it answers before the next try, which
// is then no news.
func (r *Reconciler) doubt(s *stack, o order, failed error) error {
	var rejected *reconcilers.RejectedError
	if !errors.As(failed, &rejected) || !rejected.Again {
		return nil
	}
	return changeShared(s, func(rec *sharedRecord) { set(&rec.Doubtful, o.host(), true) })
}

// answers asks a registry that was in doubt for a sign of life; of others nothing is asked.
func (r *Reconciler) answers(ctx context.Context, s *stack, o order) error {
	if !readShared(s).Doubtful[o.host()] {
		return nil
	}
	if err := r.registryAnswers(ctx, o.host()); err != nil {
		r.log.Debug("the registry still does not answer", "registry", o.host(), "error", err)
		return &reconcilers.RejectedError{PutBack: untouched, Again: true, Message: fmt.Sprintf(noAnswer, o.host(), o.name)}
	}
	return nil
}

// notePull keeps what the next looks go by: when an image was refreshed, and why that failed.
func (r *Reconciler) notePull(s *stack, o order, failed error) error {
	rec := readShared(s)
	_, failedBefore := rec.Unrefreshed[o.name]
	if failed == nil && !failedBefore && !rec.Doubtful[o.host()] && o.pull != pullRefresh && o.move == nil {
		return nil
	}
	return changeShared(s, func(rec *sharedRecord) {
		delete(rec.Unrefreshed, o.name)
		delete(rec.Doubtful, o.host())
		if failed != nil {
			set(&rec.Unrefreshed, o.name, r.redact(shortCause(failed)))
		}
		if o.move != nil {
			rec.Tracked[o.name] = rec.Tracked[o.name].pulled(o.move, failed)
		}
		if o.pull == pullRefresh {
			set(&rec.Pulled, o.name, r.clock.Now().UTC())
		}
	})
}

func set[V any](m *map[string]V, key string, value V) {
	if *m == nil {
		*m = map[string]V{}
	}
	(*m)[key] = value
}

// shortCause says why a pull failed in words that stay the same while the cause does: an engine's own may have ports in them.
func shortCause(err error) string {
	var rejected *reconcilers.RejectedError
	if errors.As(err, &rejected) {
		return rejected.Message
	}
	return err.Error()
}

func (r *Reconciler) pullBounded(ctx context.Context, s *stack, o order) error {
	account, err := r.account(ctx, s, o.host())
	var wait *reconcilers.WaitError
	if errors.As(err, &wait) {
		return err
	}
	if err != nil {
		return &reconcilers.RejectedError{PutBack: untouched, Again: true, Message: "image " + o.name + " cannot be pulled", Err: r.redacted(err)}
	}
	auth, err := account.encode()
	if err != nil {
		return err
	}
	options := client.ImagePullOptions{RegistryAuth: auth}
	if o.platform != "" {
		platform, err := platforms.Parse(o.platform)
		if err != nil {
			return &reconcilers.RejectedError{Message: fmt.Sprintf("image %s: platform %q", o.name, o.platform), PutBack: untouched, Err: err}
		}
		options.Platforms = []ocispec.Platform{platform}
	}
	err = r.pullOnce(ctx, o, options)
	if err != nil {
		return r.pullError(o, account, err)
	}
	have, err := r.engine.ImageInspect(ctx, o.name)
	if err != nil {
		return fmt.Errorf("look at image %s after its pull: %w", o.name, err)
	}
	other, err := r.otherPlatform(ctx, s.project, o.stackImage, &have)
	if err != nil {
		return err
	}
	if other == "" && have.ID == o.before {
		return nil
	}
	if other == "" {
		return r.noteBrought(ctx, s, have.ID, o.name)
	}
	return &reconcilers.RejectedError{
		Message: fmt.Sprintf("image %s is for %s, and %s", o.name, other, r.wantedPlatform(ctx, o.platform)),
		PutBack: untouched, Err: r.unpull(ctx, o),
	}
}

// unpull takes the name away from an image that was pulled and is of no use, and gives it back to the one that had it.
func (r *Reconciler) unpull(ctx context.Context, o order) error {
	if o.before != "" {
		_, err := r.engine.ImageTag(ctx, client.ImageTagOptions{Source: o.before, Target: o.name})
		return err
	}
	_, err := r.engine.ImageRemove(ctx, o.name, client.ImageRemoveOptions{})
	return err
}

// quietError is a pull of which nothing was heard for too long.
type quietError struct{ limit time.Duration }

func (e *quietError) Error() string { return fmt.Sprintf("nothing was heard of it for %s", e.limit) }

// pullOnce lets the engine pull. It is broken off, which ends it in the engine too, when the engine tells of no progress.
func (r *Reconciler) pullOnce(ctx context.Context, o order, options client.ImagePullOptions) error {
	ctx, cancel := context.WithTimeout(ctx, pullLimit)
	defer cancel()
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	quiet := time.AfterFunc(r.quietLimit, func() { giveUp(&quietError{r.quietLimit}) })
	defer quiet.Stop()
	cause := func(err error) error {
		var silence *quietError
		if errors.As(context.Cause(ctx), &silence) {
			return silence
		}
		return err
	}
	response, err := r.engine.ImagePull(ctx, o.name, options)
	if err != nil {
		return cause(err)
	}
	defer func() { _ = response.Close() }()
	for message, err := range response.JSONMessages(ctx) {
		if err != nil {
			return cause(err)
		}
		if message.Error != nil {
			return message.Error
		}
		quiet.Reset(r.quietLimit)
	}
	return nil
}

// What engines say, of any version, when a pull fails: only the words tell one cause from another.
var (
	saysMissing = []string{"manifest unknown", "name unknown", "not found", "repository does not exist", "invalid reference", "manifest invalid"}
	saysRefused = []string{"no basic auth credentials", "unauthorized", "denied", "authentication required", "401 ", "403 "}
	saysOther   = []string{"no matching manifest", "does not match the specified platform", "no match for platform"}
	saysAway    = []string{
		"connection refused", "no such host", "i/o timeout", "connection reset", "Client.Timeout", "deadline exceeded", "handshake timeout",
		"no route to host", "network is unreachable", "server misbehaving", "EOF",
	}
)

// pullError sorts what an engine says of a pull that failed.
func (r *Reconciler) pullError(o order, a account, err error) error {
	var silence *quietError
	said := err.Error()
	says := func(words []string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(said, w) })
	}
	err = r.redacted(err)
	rejected := &reconcilers.RejectedError{PutBack: untouched, Err: err}
	// What an engine says of these has ports and names of temporary files in it: the log has it, the status what stays the same.
	forNow := func(format string, args ...any) error {
		r.log.Warn("an image cannot be pulled now", "image", o.name, "error", err)
		return &reconcilers.RejectedError{PutBack: untouched, Again: true, Message: fmt.Sprintf(format, args...)}
	}
	switch {
	case errors.As(err, &silence):
		return forNow("the registry %s takes the connection and sends nothing of image %s for %s", o.host(), o.name, shortDuration(silence.limit))
	case client.IsErrConnectionFailed(err):
		return fmt.Errorf("pull image %s: %w", o.name, err)
	case strings.Contains(said, "no space left on device"):
		return forNow("the engine's disk has no room for image %s: make some, see docker system df, docker image prune", o.name)
	case says(saysOther):
		rejected.Message = fmt.Sprintf("image %s is there, and not for this host's platform", o.name)
		return rejected
	case says(saysRefused) && (a.from == "" || !says(saysMissing)):
		return forNow("registry %s does not give out image %s %s: correct the image's name, or give credentials that may pull it "+
			"(registries in the manifest, dockerConfig in the agent's configuration)", o.host(), o.name, a.words())
	case says(saysMissing):
		rejected.Message = fmt.Sprintf("image %s cannot be pulled: registry %s does not have it", o.name, o.host())
		return rejected
	case says(saysAway):
		return forNow(noAnswer, o.host(), o.name)
	}
	rejected.Again, rejected.Message = true, fmt.Sprintf("image %s cannot be pulled", o.name)
	return rejected
}

// otherPlatform gives the platform of an image that neither the engine nor the service that names one can run; nothing when
// it fits, or when a container of the stack runs it all the same (the host emulates the other platform).
func (r *Reconciler) otherPlatform(ctx context.Context, project string, image stackImage, have *client.ImageInspectResult) (string, error) {
	if have.Architecture == "" || have.Os == "" {
		return "", nil
	}
	is := platforms.Normalize(ocispec.Platform{OS: have.Os, Architecture: have.Architecture, Variant: have.Variant})
	var fits bool
	if image.platform != "" {
		want, err := platforms.Parse(image.platform)
		fits = err != nil || platforms.OnlyStrict(want).Match(is)
	} else {
		host, err := r.platform(ctx)
		if err != nil {
			return "", err
		}
		fits = platforms.Only(host).Match(is)
	}
	if fits {
		return "", nil
	}
	running, err := r.engine.ContainerList(ctx, client.ContainerListOptions{Filters: projectFilter(project).Add("ancestor", have.ID)})
	if err != nil {
		return "", fmt.Errorf("look for containers of image %s: %w", image.name, err)
	}
	if len(running.Items) > 0 {
		return "", nil
	}
	return platforms.Format(is), nil
}

// platform is that of the engine's host. It is asked for once.
func (r *Reconciler) platform(ctx context.Context) (ocispec.Platform, error) {
	if known := r.hostPlatform.Load(); known != nil {
		return *known, nil
	}
	version, err := r.engine.ServerVersion(ctx, client.ServerVersionOptions{})
	if err != nil {
		return ocispec.Platform{}, fmt.Errorf("ask the engine for its platform: %w", err)
	}
	found := platforms.Normalize(ocispec.Platform{OS: version.Os, Architecture: version.Arch})
	r.hostPlatform.Store(&found)
	return found, nil
}

func (r *Reconciler) wantedPlatform(ctx context.Context, named string) string {
	if named != "" {
		return "the Compose file asks for " + named
	}
	host, err := r.platform(ctx)
	if err != nil {
		return "this host is another"
	}
	return "this host is " + platforms.Format(host)
}
