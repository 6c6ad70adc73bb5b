package compose

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/moby/moby/client"

	"dive-agent/reconcilers"
)

// brought is an image that this stack pulled: only such are ever removed.
type brought struct {
	Names []string  `json:"names"`         // by which it was pulled
	Gone  time.Time `json:"gone,omitzero"` // since when nothing of the stack wants it; zero: it is wanted
}

// noteBrought remembers an image that was pulled, and forgets those that are not on the host any more.
func (r *Reconciler) noteBrought(ctx context.Context, s *stack, id, name string) error {
	rec := readShared(s)
	var lost []string
	for known := range rec.Brought {
		if _, err := r.engine.ImageInspect(ctx, known); errdefs.IsNotFound(err) {
			lost = append(lost, known)
		}
	}
	return changeShared(s, func(rec *sharedRecord) {
		for _, known := range lost {
			delete(rec.Brought, known)
		}
		b := rec.Brought[id]
		if !slices.Contains(b.Names, name) {
			b.Names = append(b.Names, name)
		}
		set(&rec.Brought, id, b)
	})
}

// unused is an image to be removed.
type unused struct {
	id    string
	names []string
	gone  time.Time
}

// lookForUnused finds images that this stack pulled, that it has not wanted for the declared time, that no container of this host is
// made of, and that no service of any stack seen so far may be put back to. wanted are the IDs of the images that the services name.
func (r *Reconciler) lookForUnused(ctx context.Context, st *sharedState, wanted []string) error {
	r.claim(st.target.Dir, wanted)
	rec, now := readShared(st.stack), r.clock.Now().UTC()
	changed := map[string]time.Time{}
	var due []string
	for _, id := range sortedKeys(rec.Brought) {
		b := rec.Brought[id]
		switch {
		case slices.Contains(wanted, id):
			if !b.Gone.IsZero() {
				changed[id] = time.Time{}
			}
		case b.Gone.IsZero():
			changed[id] = now
		case st.spec.PruneImages > 0 && now.Sub(b.Gone) >= st.spec.PruneImages.Std():
			due = append(due, id)
		}
	}
	if len(due) > 0 {
		inUse, err := r.inUse(ctx, st.stack)
		if err != nil {
			return err
		}
		for _, id := range due {
			if inUse(id) {
				changed[id] = now
				continue
			}
			st.unused = append(st.unused, unused{id: id, names: rec.Brought[id].Names, gone: rec.Brought[id].Gone})
		}
	}
	if len(changed) == 0 {
		return nil
	}
	return changeShared(st.stack, func(rec *sharedRecord) {
		for id, gone := range changed {
			b := rec.Brought[id]
			b.Gone = gone
			rec.Brought[id] = b
		}
	})
}

// claim remembers which images a stack wants, so that another one does not remove them.
func (r *Reconciler) claim(dir string, wanted []string) {
	r.claimsMu.Lock()
	defer r.claimsMu.Unlock()
	set(&r.claims, dir, wanted)
}

// inUse gives the test whether an image is in use: by a container of this host, running or not, whoever made it; by a version that a
// service may be put back to; by another stack.
func (r *Reconciler) inUse(ctx context.Context, s *stack) (func(id string) bool, error) {
	list, err := r.engine.ContainerList(ctx, client.ContainerListOptions{All: true})
	if err != nil {
		return nil, fmt.Errorf("list this host's containers: %w", err)
	}
	used := map[string]bool{}
	for _, c := range list.Items {
		used[c.ImageID] = true
	}
	r.claimsMu.Lock()
	defer r.claimsMu.Unlock()
	for dir, wanted := range r.claims {
		for _, id := range wanted {
			used[id] = true
		}
		var known func(service string) bool
		if dir == s.target.Dir {
			known = s.hasService
		}
		if err := keptImages(dir, known, used); err != nil {
			return nil, err
		}
	}
	return func(id string) bool { return used[id] }, nil
}

// hasService says whether the Compose file has the service, active or turned off by its profile.
func (s *stack) hasService(name string) bool {
	_, active := s.model.project.Services[name]
	_, off := s.model.project.DisabledServices[name]
	return active || off
}

var (
	imageID       = regexp.MustCompile(`sha256:[0-9a-f]{64}`)
	serviceRecord = regexp.MustCompile(`^(.+?)(\.good)?\.json$`)
)

// keptImages adds all images that the records of a stack's services name: versions to go back to, and whatever else they remember. Those
// of services that the file does not have any more do not count.
func keptImages(dir string, known func(service string) bool, into map[string]bool) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !d.Type().IsRegular() || d.Name() == SharedPart+".json" {
			return err
		}
		if found := serviceRecord.FindStringSubmatch(d.Name()); found != nil && known != nil && filepath.Dir(path) == dir && !known(found[1]) {
			return nil
		}
		content, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("read which images are kept: %w", err)
		}
		for _, id := range imageID.FindAll(content, -1) {
			into[string(id)] = true
		}
		return nil
	})
}

// pruneSteps remove images that nothing has used for long. They come last.
func (st *sharedState) pruneSteps() []step {
	var steps []step
	for _, u := range st.unused {
		steps = append(steps, step{
			change: reconcilers.Change{
				Action: reconcilers.Delete, Address: "image " + shortDigest(u.id),
				Reason: fmt.Sprintf("%s, not used since %s; images are removed %s later (pruneImages)",
					strings.Join(u.names, ", "), u.gone.Format(time.DateOnly), shortDuration(st.spec.PruneImages.Std())),
			},
			do: func(ctx context.Context, r *Reconciler) error { return r.prune(ctx, st.stack, u) },
		})
	}
	return steps
}

// prune removes an image that this stack pulled, name by name. It stays when somebody gave it another name, or uses it meanwhile.
func (r *Reconciler) prune(ctx context.Context, s *stack, u unused) error {
	err := r.removeImage(ctx, u)
	if err != nil && !errdefs.IsConflict(err) {
		return err
	}
	return changeShared(s, func(rec *sharedRecord) {
		if err == nil {
			delete(rec.Brought, u.id)
			return
		}
		rec.Brought[u.id] = brought{Names: u.names, Gone: r.clock.Now().UTC()}
	})
}

func (r *Reconciler) removeImage(ctx context.Context, u unused) error {
	inUse, err := r.engine.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: make(client.Filters).Add("ancestor", u.id)})
	if err != nil {
		return err
	}
	for _, c := range inUse.Items {
		if c.ImageID == u.id {
			return errdefs.ErrConflict
		}
	}
	have, err := r.engine.ImageInspect(ctx, u.id)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, tag := range have.RepoTags {
		if !u.named(tag) {
			return nil // somebody else's by now
		}
	}
	for _, name := range append(have.RepoTags, have.RepoDigests...) {
		if !u.repository(name) {
			continue
		}
		if _, err := r.engine.ImageRemove(ctx, name, client.ImageRemoveOptions{PruneChildren: true}); err != nil && !errdefs.IsNotFound(err) {
			return err
		}
	}
	_, err = r.engine.ImageRemove(ctx, u.id, client.ImageRemoveOptions{PruneChildren: true})
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}

// named says whether the image was pulled by that very name.
func (u unused) named(tag string) bool {
	want, err := reference.ParseNormalizedNamed(tag)
	return err == nil && slices.ContainsFunc(u.names, func(name string) bool {
		have, err := reference.ParseNormalizedNamed(name)
		return err == nil && reference.TagNameOnly(have).String() == reference.TagNameOnly(want).String()
	})
}

// repository says whether a name is of a repository that the image was pulled from.
func (u unused) repository(name string) bool {
	want, err := reference.ParseNormalizedNamed(name)
	return err == nil && slices.ContainsFunc(u.names, func(name string) bool {
		have, err := reference.ParseNormalizedNamed(name)
		return err == nil && have.Name() == want.Name()
	})
}
