package compose

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/moby/moby/client"

	"dive-agent/reconcilers"
)

// tracking is what is remembered of one tag that is followed.
type tracking struct {
	Asked  time.Time `json:"asked"`
	Image  string    `json:"image"`            // ID of what the tag led to on this host then
	Digest string    `json:"digest,omitempty"` // of what it led to in the registry; empty: the registry could not be asked
	Bad    string    `json:"bad,omitempty"`    // digest that could not be pulled, and is not tried again
	Since  time.Time `json:"since,omitzero"`   // since when the registry cannot be asked
	Why    string    `json:"why,omitempty"`
}

// trackDefault is how often registries are asked.
const trackDefault = 15 * time.Minute

func (s *Spec) trackEvery() time.Duration {
	if s.TrackEvery <= 0 {
		return trackDefault
	}
	return s.TrackEvery.Std()
}

// tracks says whether the image's tag is followed: one of its services is, and its name can come to mean another image.
func (s *Spec) tracks(image stackImage) bool {
	if s.Track != "digest" || image.pinned() || image.pull == pullNever {
		return false
	}
	return len(s.TrackServices) == 0 || slices.ContainsFunc(image.services, func(name string) bool { return slices.Contains(s.TrackServices, name) })
}

// move is a tag that leads to another image in the registry than on this host.
type move struct{ from, to string } // digests; from is the image's ID where it has none

func (m move) String() string { return shortDigest(m.from) + " -> " + shortDigest(m.to) }

func (m move) details() []string {
	return []string{"digest on this host: " + m.from, "digest in the registry: " + m.to}
}

func shortDigest(digest string) string {
	algorithm, hash, ok := strings.Cut(digest, ":")
	if !ok {
		return digest
	}
	return algorithm + ":" + hash[:min(12, len(hash))]
}

// track asks the registry of a followed tag when it is time, and says whether the tag has moved. A registry that cannot be asked is
// told by a note: what runs is as good as it was. Of one that does not answer nothing more is asked in this look.
func (r *Reconciler) track(ctx context.Context, st *sharedState, image stackImage, have *client.ImageInspectResult) (*move, error) {
	rec := readShared(st.stack)
	t, now := rec.Tracked[image.name], r.clock.Now().UTC()
	every := st.spec.trackEvery()
	if t.Image != have.ID || now.Sub(t.Asked) >= every-every/10 {
		digest, why := "", st.silent[image.host()]
		if why == "" {
			var err error
			if digest, err = r.remoteDigest(ctx, st.stack, image.name); ctx.Err() != nil {
				return nil, ctx.Err()
			} else if err != nil {
				why = r.redact(err.Error())
				st.silent[image.host()] = why
			}
		}
		t.Asked, t.Image, t.Digest = now, have.ID, digest
		switch {
		case why == "":
			t.Since, t.Why = time.Time{}, ""
		case t.Since.IsZero():
			t.Since, t.Why = now, why
		}
		err := changeShared(st.stack, func(rec *sharedRecord) {
			set(&rec.Tracked, image.name, t)
			if digest != "" && digest != t.Bad {
				delete(rec.Unrefreshed, image.name)
			}
		})
		if err != nil {
			return nil, err
		}
	}
	if t.Why != "" {
		st.notes = append(st.notes, fmt.Sprintf("since %s the registry could not be asked for image %s: %s", t.Since.Format(time.RFC3339), image.name, t.Why))
	}
	return t.moved(image.name, have), nil
}

// moved compares what the registry said with the image that the tag leads to on this host; nil when it is the same, or not known.
func (t tracking) moved(name string, have *client.ImageInspectResult) *move {
	if t.Digest == "" || t.Digest == t.Bad || t.Image != have.ID {
		return nil
	}
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return nil
	}
	from := have.ID
	for _, text := range have.RepoDigests {
		known, err := reference.ParseNormalizedNamed(text)
		if err != nil || known.Name() != named.Name() {
			continue
		}
		digested, ok := known.(reference.Digested)
		if !ok {
			continue
		}
		if from = digested.Digest().String(); from == t.Digest {
			return nil
		}
	}
	return &move{from: from, to: t.Digest}
}

// pulled is what is known once a moved tag was pulled: the registry is asked anew, as the tag may have moved again. What it does not
// have, or not for this host, is not tried again; what failed in another way is, at the next turn.
func (t tracking) pulled(m *move, failed error) tracking {
	var rejected *reconcilers.RejectedError
	switch {
	case failed == nil:
		return tracking{}
	case errors.As(failed, &rejected) && !rejected.Again:
		t.Bad = m.to
	}
	t.Digest = ""
	return t
}

// movedTag says for a service whether its tag is known to have moved and was not pulled yet.
func (st *serviceState) movedTag() *move {
	if st.image == nil || st.spec.Track != "digest" {
		return nil
	}
	for _, image := range st.images() {
		if image.name == st.service.Image && st.spec.tracks(image) {
			return readShared(st.stack).Tracked[image.name].moved(image.name, st.image)
		}
	}
	return nil
}

// notPulled keeps a service from being made anew of the image that its tag led to before.
func (st *serviceState) notPulled() error {
	if st.moved == nil {
		return nil
	}
	return &reconcilers.WaitError{For: fmt.Sprintf("image %s to be pulled (%s)", st.service.Image, st.moved), Again: time.Second}
}

// turns gives a channel that fires when registries are to be asked again; nil where no tag is followed.
func (r *Reconciler) turns(s *Spec) <-chan time.Time {
	if s.Track != "digest" {
		return nil
	}
	return r.clock.After(s.trackEvery())
}
