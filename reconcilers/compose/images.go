package compose

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"

	"dive-agent/reconcilers"
)

// When an image is pulled. Of several services that run one image the most demanding counts.
const (
	pullNever   = "never"
	pullMissing = "missing"
	pullRefresh = "refresh" // when the last pull is older than a time
	pullAlways  = "always"  // at each new revision
)

var pullRanks = []string{pullNever, pullMissing, pullRefresh, pullAlways}

// stackImage is an image that services of the stack run, with what they say of it.
type stackImage struct {
	name     string
	platform string   // that a service asks for; empty: the engine's own
	services []string // sorted
	pull     string
	every    time.Duration // of pullRefresh
}

// images lists the images of the active services by name, each once.
func (s *stack) images() []stackImage {
	found := map[string]*stackImage{}
	for _, name := range sortedKeys(s.model.project.Services) {
		service := s.model.project.Services[name]
		image := found[service.Image]
		if image == nil {
			image = &stackImage{name: service.Image, pull: pullNever}
			found[service.Image] = image
		}
		image.services = append(image.services, name)
		if service.Platform != "" {
			image.platform = service.Platform
		}
		policy, every := s.spec.pullPolicy(service)
		if slices.Index(pullRanks, policy) > slices.Index(pullRanks, image.pull) {
			image.pull = policy
		}
		if policy == pullRefresh && (image.every == 0 || every < image.every) {
			image.every = every
		}
	}
	var list []stackImage
	for _, name := range sortedKeys(found) {
		list = append(list, *found[name])
	}
	return list
}

// pullPolicy is what a service says in the Compose file, else what the stack says. "build" pulls nothing.
func (s *Spec) pullPolicy(service types.ServiceConfig) (policy string, every time.Duration) {
	if service.PullPolicy == "" {
		if s.Pull == "" {
			return pullMissing, 0
		}
		return s.Pull, 0
	}
	word, every, err := service.GetPullPolicy()
	switch {
	case err != nil: // validation refuses it
		return pullMissing, 0
	case word == types.PullPolicyNever || word == types.PullPolicyBuild:
		return pullNever, 0
	case word == types.PullPolicyAlways:
		return pullAlways, 0
	case word == types.PullPolicyRefresh && every > 0:
		return pullRefresh, every
	case word == types.PullPolicyRefresh:
		return pullAlways, 0
	}
	return pullMissing, 0
}

// pinned says whether the image is named by its digest, so that it can never become another one.
func (i stackImage) pinned() bool {
	return strings.Contains(i.name, "@sha256:") || strings.HasPrefix(i.name, "sha256:")
}

// host gives the registry of the image, "docker.io" where its name has none.
func (i stackImage) host() string {
	named, err := reference.ParseNormalizedNamed(i.name)
	if err != nil {
		return ""
	}
	return reference.Domain(named)
}

// order is an image to be pulled.
type order struct {
	stackImage
	reason string
	move   *move  // of a tag that is followed
	before string // ID of the image that the name stands for now; empty: none that will do
}

func (r *Reconciler) lookAtImages(ctx context.Context, st *sharedState) error {
	rec := readShared(st.stack)
	whole := true
	var wanted []string
	for _, image := range st.images() {
		if st.unknownImage(image.name) {
			whole = false
			continue
		}
		if why := rec.Unrefreshed[image.name]; why != "" {
			st.notes = append(st.notes, fmt.Sprintf("image %s could not be refreshed, and stays what it is on this host: %s", image.name, why))
		}
		id, err := r.lookAtImage(ctx, st, rec, image)
		if err != nil {
			return err
		}
		wanted = append(wanted, id)
	}
	if !whole || len(st.pulls) > 0 {
		return nil // what the stack wants shows when it is there
	}
	return r.lookForUnused(ctx, st, wanted)
}

// lookAtImage finds out whether an image is to be pulled, and gives the ID of the one that the host has, if any.
func (r *Reconciler) lookAtImage(ctx context.Context, st *sharedState, rec sharedRecord, image stackImage) (id string, err error) {
	have, err := r.inspectImage(ctx, image.name)
	switch {
	case errdefs.IsNotFound(err):
		st.pulls = append(st.pulls, order{stackImage: image, reason: "not on this host"})
		return "", nil
	case errdefs.IsInvalidArgument(err):
		return "", &reconcilers.BlockedError{
			Reason: "InvalidImage", Message: fmt.Sprintf("%q is no image name", image.name), Err: err, Do: "Correct it in the Compose file",
		}
	case err != nil:
		return "", fmt.Errorf("look for image %s: %w", image.name, err)
	}
	other, err := r.otherPlatform(ctx, st.project, image, &have)
	if err != nil {
		return "", err
	}
	o := order{stackImage: image, before: have.ID}
	if other != "" {
		o.reason, o.before = "on this host for "+other, ""
	} else if o.reason = st.stale(rec, image, r.clock.Now()); o.reason == "" && st.spec.tracks(image) {
		if o.move, err = r.track(ctx, st, image, &have); err != nil {
			return "", err
		}
		if o.move != nil {
			o.reason = "its tag moved, " + o.move.String()
		}
	}
	if o.reason != "" {
		st.pulls = append(st.pulls, o)
	}
	return have.ID, nil
}

// stale says why an image is pulled although the host has it; nothing when it is not.
func (st *sharedState) stale(rec sharedRecord, image stackImage, now time.Time) string {
	switch {
	case image.pinned():
	case image.pull == pullAlways && rec.PulledFor != st.target.Instance.Digest:
		return "pull policy always, new revision"
	case image.pull == pullRefresh:
		last := rec.Pulled[image.name]
		if now.Sub(last) >= image.every {
			return fmt.Sprintf("pull policy every %s", shortDuration(image.every))
		}
	}
	return ""
}

// shortDuration leaves out the parts of a duration that are zero: "24h" and not "24h0m0s".
func shortDuration(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// pullSteps bring images to the host, before anything of the stack is touched.
func (st *sharedState) pullSteps() []step {
	var steps []step
	for _, o := range st.pulls {
		if b := st.model.builds[o.name]; b != nil {
			steps = append(steps, st.buildStep(b))
			continue
		}
		change := reconcilers.Change{Action: reconcilers.Run, Address: "image " + o.name, Reason: "pull: " + o.reason}
		if o.move != nil {
			change.Details = o.move.details()
		}
		steps = append(steps, step{
			change: change,
			ready:  func(ctx context.Context, r *Reconciler) error { return r.answers(ctx, st.stack, o) },
			do:     func(ctx context.Context, r *Reconciler) error { return r.pull(ctx, st.stack, o) },
		})
	}
	return steps
}

// notePulls remembers that the images which are pulled at each new revision were pulled for this one.
func (st *sharedState) notePulls() error {
	always := slices.ContainsFunc(st.images(), func(image stackImage) bool { return image.pull == pullAlways })
	if len(st.pulls) == 0 || !always {
		return nil
	}
	return changeShared(st.stack, func(rec *sharedRecord) { rec.PulledFor = st.target.Instance.Digest })
}

// unknownImage says whether the image's name is made of a value that is not known yet.
func (st *sharedState) unknownImage(image string) bool {
	return len(st.unknown) > 0 && (strings.Contains(image, standIn) || st.model.builds[image] != nil) && st.rawImageUnknown(image)
}

func (st *sharedState) rawImageUnknown(image string) bool {
	for name, service := range st.model.project.Services {
		if service.Image != image {
			continue
		}
		for _, variable := range st.model.imageUses[name] {
			if _, ok := st.unknown[variable]; ok {
				return true
			}
		}
	}
	return false
}
