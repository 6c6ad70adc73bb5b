package bench

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"dive-agent/testbed"
	"dive-agent/testbed/gitserver"
)

// What there is nothing to do on.
const (
	reconcileNothing = "reconcile-nothing"
	mongoNothing     = "mongo-nothing"
	terraformNothing = "terraform-nothing"
)

// measureNothing has the agent look at the spoke again and again, by all reconcilers, also right after its start.
func measureNothing(ctx context.Context, r *run) error {
	w := r.world
	if err := w.needSpoke(ctx); err != nil {
		return err
	}
	calls, err := w.spoke.terraformCalls()
	if err != nil {
		return err
	}
	if calls == 0 {
		return fmt.Errorf("the agent did not start Terraform through the program that counts")
	}
	if err := w.restart(ctx, true); err != nil {
		return err
	}
	took, whole, err := w.spoke.quietRounds(ctx, spoke)
	if err != nil {
		return err
	}
	r.record(reconcileNothing, milliseconds(median(took)), "ms", 150, "a round over nine services by all reconcilers; %s; with poll and status, order to answer: %s", spread(took), round(median(whole)))
	now, err := w.spoke.terraformCalls()
	if err != nil {
		return err
	}
	r.record(terraformNothing, float64(now-calls), "processes", 0, "of Terraform in these rounds and a start of the agent; %d while the realm was made", calls)
	return nil
}

// measureMongoNothing has the agent look at a replica set of three members that lacks nothing.
func measureMongoNothing(ctx context.Context, r *run) error {
	w := r.world
	a, err := w.launch(ctx, "mongo-03")
	if err != nil {
		return err
	}
	const name, project = "three", "dive-bench-three"
	commit, err := w.merge("Add "+name, gitserver.Files{"instances/" + name + ".yaml": instanceManifest(name, "three-set", a.name, "project: "+project)})
	if err != nil {
		return err
	}
	if _, err := a.order(ctx, "/v1/poll"); err != nil {
		return err
	}
	if err := a.awaitReady(ctx, time.Minute, name, commit); err != nil {
		return err
	}
	took, _, err := a.quietRounds(ctx, name)
	if err != nil {
		return err
	}
	r.record(mongoNothing, milliseconds(median(took)), "ms", 25, "a round over a set of three members and their services; %s", spread(took))
	if err := a.stop(ctx); err != nil {
		return err
	}
	return testbed.RemoveProject(ctx, w.engine, project)
}

// quietRounds orders 15 rounds over an instance: how long those took that nothing else was added to, and how long the
// answer to the order.
func (a *agentProcess) quietRounds(ctx context.Context, instance string) (took, whole []time.Duration, err error) {
	for range 15 {
		rounds, before, err := a.roundTime(ctx, instance)
		if err != nil {
			return nil, nil, err
		}
		begun := time.Now()
		if err := a.sync(ctx, instance); err != nil {
			return nil, nil, err
		}
		waited := time.Since(begun)
		after, sum, err := a.roundTime(ctx, instance)
		if err != nil {
			return nil, nil, err
		}
		if after == rounds+1 { // an event of the engine may have made one more due
			took, whole = append(took, sum-before), append(whole, waited)
		}
	}
	if len(took) < 5 {
		return nil, nil, fmt.Errorf("only %d of 15 rounds were alone", len(took))
	}
	return took, whole, nil
}

// roundTime reads from the agent's metrics how many rounds there were over an instance, and how long they took together.
func (a *agentProcess) roundTime(ctx context.Context, instance string) (count int, sum time.Duration, err error) {
	return a.timeOf(ctx, "dive_agent_round_duration_seconds", `{instance="`+instance+`"}`)
}

// timeOf reads count and sum of a histogram of the agent's metrics.
func (a *agentProcess) timeOf(ctx context.Context, metric, labels string) (count int, sum time.Duration, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+a.listen+"/metrics", nil)
	if err != nil {
		return 0, 0, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = response.Body.Close() }()
	found := map[string]float64{}
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		name, ours := strings.CutSuffix(name, labels)
		if !ours {
			continue
		}
		if found[name], err = strconv.ParseFloat(value, 64); err != nil {
			return 0, 0, err
		}
	}
	return int(found[metric+"_count"]), time.Duration(found[metric+"_sum"] * float64(time.Second)), lines.Err()
}
