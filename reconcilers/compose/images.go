package compose

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/moby/moby/client"

	"dive-agent/reconcilers"
)

// pullLimit bounds the pull of one image.
const pullLimit = 20 * time.Minute

// pull is the step that brings an image to the host, before anything of the stack is touched.
func (st *sharedState) pull(image, reason string) step {
	return step{
		change: reconcilers.Change{Action: reconcilers.Run, Address: "image " + image, Reason: "pull: " + reason},
		do:     func(ctx context.Context, r *Reconciler) error { return r.pull(ctx, image, st.spec.Pull) },
	}
}

// pull brings one image to the host. An image that cannot be had makes the revision a rejected one: nothing of the stack
// was touched for it.
func (r *Reconciler) pull(ctx context.Context, image, policy string) error {
	rejected := &reconcilers.RejectedError{PutBack: "nothing was changed"}
	if policy == "never" {
		rejected.Message = fmt.Sprintf("image %s is not on this host and the pull policy is never", image)
		return rejected
	}
	limited, cancel := context.WithTimeout(ctx, pullLimit)
	defer cancel()
	err := r.pullOnce(limited, image)
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if client.IsErrConnectionFailed(err) {
		return fmt.Errorf("pull image %s: %w", image, err)
	}
	if _, have := r.engine.ImageInspect(ctx, image); have == nil {
		r.log.Warn("image could not be refreshed; the one on the host is used", "image", image, "error", r.redact(err.Error()))
		return nil
	}
	rejected.Message, rejected.Err = fmt.Sprintf("image %s is not on this host and cannot be pulled", image), r.redacted(err)
	return rejected
}

func (r *Reconciler) pullOnce(ctx context.Context, image string) error {
	response, err := r.engine.ImagePull(ctx, image, client.ImagePullOptions{})
	if err != nil {
		return err
	}
	defer func() { _ = response.Close() }()
	return response.Wait(ctx)
}

var errUnsupported = errors.New("the engine would silently ignore it")
