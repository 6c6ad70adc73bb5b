package bench

import (
	"context"
	"time"

	"github.com/moby/moby/client"

	"dive-agent/testbed"
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
	took, noticed := map[string][]time.Duration{}, map[string][]time.Duration{}
	for range 3 {
		for _, h := range healed {
			one, until, err := w.heal(ctx, log, h.service)
			if err != nil {
				return err
			}
			took[h.policy], noticed[h.policy] = append(took[h.policy], one), append(noticed[h.policy], until)
		}
	}
	for _, h := range healed {
		r.record(healName(h.policy), median(took[h.policy]).Seconds(), "s", 0.5, "%s removed with docker rm -f, from destroy to start, the new one created after %s; %s", h.service, round(median(noticed[h.policy])), spread(took[h.policy]))
	}
	return nil
}

// heal gives the time until the new container was started, and until it was created.
func (w *world) heal(ctx context.Context, log *engineLog, service string) (started, made time.Duration, err error) {
	list, err := w.engine.ContainerList(ctx, client.ContainerListOptions{Filters: testbed.OfProject(spokeProject).Add("label", "com.docker.compose.service="+service)})
	if err != nil {
		return 0, 0, err
	}
	begun := time.Now()
	for _, c := range list.Items {
		if _, err := w.engine.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true}); err != nil {
			return 0, 0, err
		}
	}
	gone, err := log.await(ctx, spokeProject, service, "destroy", begun)
	if err != nil {
		return 0, 0, err
	}
	back, err := log.await(ctx, spokeProject, service, "start", begun)
	if err != nil {
		return 0, 0, err
	}
	created, err := log.await(ctx, spokeProject, service, "create", begun)
	if err != nil {
		return 0, 0, err
	}
	commit, err := w.head()
	if err != nil {
		return 0, 0, err
	}
	return back.at.Sub(gone.at), created.at.Sub(gone.at), w.settle(ctx, commit)
}
