package bench

import (
	"context"
	"time"

	"github.com/moby/moby/client"
)

func healNames() (names []string) {
	for _, h := range healed {
		names = append(names, healName(h.policy))
	}
	return names
}

func healName(policy string) string { return "heal-removed-restart-" + policy }

// measureHealing removes containers by hand, as `docker rm -f` does, and times by the engine's own events from the end of the
// one to the start of the next.
func measureHealing(ctx context.Context, r *run) error {
	w := r.world
	if err := w.needSpoke(ctx); err != nil {
		return err
	}
	log := w.listen(ctx)
	took := map[string][]time.Duration{}
	for range 3 {
		for _, h := range healed {
			one, err := w.heal(ctx, log, h.service)
			if err != nil {
				return err
			}
			took[h.policy] = append(took[h.policy], one)
		}
	}
	for _, h := range healed {
		r.record(healName(h.policy), median(took[h.policy]).Seconds(), "s", 0.5, "%s removed with docker rm -f, from destroy to start; %s", h.service, spread(took[h.policy]))
	}
	return nil
}

func (w *world) heal(ctx context.Context, log *engineLog, service string) (time.Duration, error) {
	list, err := w.engine.ContainerList(ctx, client.ContainerListOptions{Filters: byProject(spokeProject).Add("label", "com.docker.compose.service="+service)})
	if err != nil {
		return 0, err
	}
	begun := time.Now()
	for _, c := range list.Items {
		if _, err := w.engine.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true}); err != nil {
			return 0, err
		}
	}
	gone, err := log.await(ctx, spokeProject, service, "destroy", begun)
	if err != nil {
		return 0, err
	}
	back, err := log.await(ctx, spokeProject, service, "start", begun)
	if err != nil {
		return 0, err
	}
	commit, err := w.head()
	if err != nil {
		return 0, err
	}
	return back.at.Sub(gone.at), w.settle(ctx, commit)
}
