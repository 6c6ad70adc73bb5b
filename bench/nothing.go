package bench

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// A spoke on which there is nothing to do.
const (
	reconcileNothing = "reconcile-nothing"
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
	var took, whole []time.Duration
	for range 15 {
		rounds, before, err := w.spoke.roundTime(ctx)
		if err != nil {
			return err
		}
		begun := time.Now()
		if err := w.spoke.sync(ctx, spoke); err != nil {
			return err
		}
		waited := time.Since(begun)
		after, sum, err := w.spoke.roundTime(ctx)
		if err != nil {
			return err
		}
		if after == rounds+1 { // an event of the engine may have made one more due
			took, whole = append(took, sum-before), append(whole, waited)
		}
	}
	if len(took) < 5 {
		return fmt.Errorf("only %d of 15 rounds were alone", len(took))
	}
	r.record(reconcileNothing, milliseconds(median(took)), "ms", 150, "a round over nine services by all reconcilers; %s; with poll and status, order to answer: %s", spread(took), round(median(whole)))
	now, err := w.spoke.terraformCalls()
	if err != nil {
		return err
	}
	r.record(terraformNothing, float64(now-calls), "processes", 0, "of Terraform in these rounds and a start of the agent; %d while the realm was made", calls)
	return nil
}

// roundTime reads from the agent's metrics how many rounds there were over the spoke, and how long they took together.
func (a *agentProcess) roundTime(ctx context.Context) (count int, sum time.Duration, err error) {
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
		name, ours := strings.CutSuffix(name, `{instance="`+spoke+`"}`)
		if !ours {
			continue
		}
		if found[name], err = strconv.ParseFloat(value, 64); err != nil {
			return 0, 0, err
		}
	}
	const metric = "dive_agent_round_duration_seconds"
	return int(found[metric+"_count"]), time.Duration(found[metric+"_sum"] * float64(time.Second)), lines.Err()
}
