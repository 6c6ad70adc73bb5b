package compose

import (
	"context"
	"fmt"

	"github.com/docker/compose/v5/pkg/api"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"dive-agent/reconcilers"
)

// lookForFormerNetworks finds networks that were made for the project, are not in the file any more, and have no container, not
// even one that is stopped. One that somebody made by hand has not Compose's labels, and stays.
func (r *Reconciler) lookForFormerNetworks(ctx context.Context, st *sharedState, all []network.Summary) error {
	declared := map[string]bool{}
	for _, want := range st.model.project.Networks {
		declared[want.Name] = true
	}
	for _, service := range st.model.project.DisabledServices {
		for key := range service.Networks {
			declared[st.project+"_"+key] = true
		}
	}
	for _, have := range all {
		if have.Labels[api.ProjectLabel] != st.project || have.Labels[api.ConfigHashLabel] == "" || have.Labels[api.NetworkLabel] == "" || declared[have.Name] {
			continue
		}
		users, err := r.engine.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: make(client.Filters).Add("network", have.ID)})
		if err != nil {
			return fmt.Errorf("list the containers on network %s: %w", have.Name, err)
		}
		if len(users.Items) == 0 {
			st.former = append(st.former, have)
		}
	}
	return nil
}

// formerNetworkSteps remove networks that nothing is on any more. A container that came meanwhile keeps its network: the engine
// refuses then.
func (st *sharedState) formerNetworkSteps() (steps []step) {
	for _, n := range st.former {
		steps = append(steps, step{
			change: reconcilers.Change{
				Action: reconcilers.Delete, Address: "network " + n.Name, Reason: "it is not in the Compose file any more, and no container is on it",
			},
			do: func(ctx context.Context, r *Reconciler) error {
				if err := changeShared(st.stack, func(rec *sharedRecord) { delete(rec.Networks, n.Name) }); err != nil {
					return err
				}
				return r.removeNetwork(ctx, n.ID, nil)
			},
		})
	}
	return steps
}
