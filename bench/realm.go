package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"dive-agent/testbed"
	"dive-agent/testbed/gitserver"
)

// A realm of 131 resources, in the spoke's Keycloak.
const (
	realmFirst     = "realm-first-apply"
	realmAttribute = "realm-one-attribute"
	realmPlans     = "realm-one-attribute-plans"
	realmUntouched = "realm-untouched"
	realmDrift     = "realm-drift-check"
	realmMemory    = "realm-apply-memory"
)

// realms are one that the agent makes and one made by hand, with the same module.
type realms struct {
	*world
	node   string
	module string // as both have it now
	hand   string // the folder in which Terraform is run by hand
}

// measureRealm compares what the agent does with a large module to what a person does with Terraform in an initialised
// folder: the first apply, a changed attribute, a look for drift. What is timed begins with the order to look at the
// repository, and ends with the agent's word that the realm is done. The person's one process plans and applies; the agent plans, reads
// the plan, judges it and applies what was saved, in three, with the collection of garbage that it sets for them
// (keycloak: workspace.environment) and the person, as people do, does not.
func measureRealm(ctx context.Context, r *run) error {
	if err := r.world.needSpoke(ctx); err != nil {
		return err
	}
	m := &realms{world: r.world, node: "many", module: manyModule, hand: r.world.path("many-by-hand")}
	for _, step := range []func(context.Context, *run) error{m.begin, m.first, m.attribute, m.untouched, m.drift} {
		if err := step(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

// begin makes both realms empty, so that all is initialised.
func (m *realms) begin(ctx context.Context, _ *run) error {
	if _, err := m.bring(ctx, m.component(0, "@every 24h")); err != nil {
		return err
	}
	password, err := m.spoke.secret(spoke, "KEYCLOAK_ADMIN_PASSWORD")
	if err != nil {
		return err
	}
	text, err := json.Marshal(map[string]string{
		"keycloak_url": fmt.Sprintf("http://localhost:%d", 8080+spokeOffset), "keycloak_admin_password": password, "code": "hand",
	})
	if err != nil {
		return err
	}
	if err := m.write(); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(m.hand, "terraform.tfvars.json"), text, 0o600); err != nil {
		return err
	}
	for _, args := range [][]string{{"init", "-input=false"}, m.apply("-var=many=0")} {
		if _, err := m.terraform(ctx, args...); err != nil {
			return err
		}
	}
	return nil
}

func (m *realms) apply(more ...string) []string {
	return append([]string{"apply", "-input=false", "-auto-approve", "-parallelism=20"}, more...)
}

// first has all the resources made, and watches the agent's memory meanwhile.
func (m *realms) first(ctx context.Context, r *run) error {
	pid := m.spoke.cmd.Process.Pid
	idle, err := resident(pid)
	if err != nil {
		return err
	}
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0); err != nil { // the peak counts from now on
		return err
	}
	took, err := m.bring(ctx, m.component(1, "@every 24h"))
	if err != nil {
		return err
	}
	peak, err := testbed.Memory(pid, testbed.PeakResident)
	if err != nil {
		return err
	}
	byHand, err := m.terraform(ctx, m.apply("-var=many=1")...)
	if err != nil {
		return err
	}
	r.ratio(realmFirst, took.took, byHand.took, 1.05, "131 resources, against terraform apply -parallelism=20 with init done; CPU %s against %s", round(took.cpu), round(byHand.cpu))
	r.record(realmMemory, float64(peak-idle)/1e6, "MB", 20, "of the agent over its %.1f MB before, while 130 resources are made", float64(idle)/1e6)
	return nil
}

// attribute changes one attribute of one resource in the module, three times.
func (m *realms) attribute(ctx context.Context, r *run) error {
	var took, byHand, inThree []spent
	plans := 0
	for i := range 3 {
		m.module = strings.Replace(manyModule, manyFirst, fmt.Sprintf(`"changed %d times"`, i+1), 1)
		begun := time.Now()
		one, err := m.bring(ctx, gitserver.Files{manyFile: m.module})
		if err != nil {
			return err
		}
		took = append(took, one)
		made, err := m.plans(begun, begun.Add(one.took))
		if err != nil {
			return err
		}
		plans = max(plans, made)
		if err := m.write(); err != nil {
			return err
		}
		if one, err = m.terraform(ctx, m.apply("-var=many=1", "-refresh=false")...); err != nil {
			return err
		}
		byHand = append(byHand, one)
		if one, err = m.planShowApply(ctx, i); err != nil {
			return err
		}
		inThree = append(inThree, one)
	}
	r.ratio(realmAttribute, median(clocks(took)), median(clocks(byHand)), 1.05,
		"against terraform apply -refresh=false; %s; by hand %s; by hand as the agent does it, with a plan that is read before it is applied, %s; CPU %s, %s, %s",
		spread(clocks(took)), spread(clocks(byHand)), spread(clocks(inThree)),
		round(median(processors(took))), round(median(processors(byHand))), round(median(processors(inThree))))
	r.record(realmPlans, float64(plans), "plans", 1, "of Terraform for one changed attribute, from merged to applied; one more afterwards proves that the module converges")
	return nil
}

// planShowApply changes the attribute once more by hand, in three commands as whoever reads a plan before it is applied.
func (m *realms) planShowApply(ctx context.Context, i int) (whole spent, err error) {
	text := strings.Replace(manyModule, manyFirst, fmt.Sprintf(`"read before, %d times"`, i+1), 1)
	if err := os.WriteFile(filepath.Join(m.hand, "main.tf"), []byte(text), 0o600); err != nil {
		return whole, err
	}
	for _, args := range [][]string{
		{"plan", "-input=false", "-parallelism=20", "-var=many=1", "-refresh=false", "-out=one.tfplan"}, {"show", "-json", "one.tfplan"}, {"apply", "-input=false", "one.tfplan"},
	} {
		one, err := m.terraform(ctx, args...)
		if err != nil {
			return whole, err
		}
		whole.took, whole.cpu = whole.took+one.took, whole.cpu+one.cpu
	}
	return whole, nil
}

// untouched merges five revisions that change the schedule on which the realm is compared: of the component, and neither of the
// module nor of what it is given.
func (m *realms) untouched(ctx context.Context, r *run) error {
	calls, err := m.spoke.terraformCalls()
	if err != nil {
		return err
	}
	var means []time.Duration
	for i := range 5 {
		one, err := m.lookAfter(ctx, fmt.Sprintf("@every %dh", 25+i))
		if err != nil {
			return err
		}
		means = append(means, one)
	}
	now, err := m.spoke.terraformCalls()
	if err != nil {
		return err
	}
	if now != calls {
		return fmt.Errorf("%d processes of Terraform for revisions that do not touch the realm", now-calls)
	}
	r.record(realmUntouched, milliseconds(median(means)), "ms", 5, "a look at the realm with a revision that touches neither module nor inputs, no process; %s", spread(means))
	return nil
}

// lookAfter merges another schedule, and gives how long the looks at the realm took that came of it.
func (m *realms) lookAfter(ctx context.Context, schedule string) (time.Duration, error) {
	looks, sum, err := m.lookTime(ctx)
	if err != nil {
		return 0, err
	}
	if err := m.look(ctx, schedule); err != nil {
		return 0, err
	}
	nowLooks, nowSum, err := m.lookTime(ctx)
	if err != nil {
		return 0, err
	}
	if nowLooks == looks {
		return 0, errors.New("the agent did not look at the realm")
	}
	return (nowSum - sum) / time.Duration(nowLooks-looks), nil
}

// lookTime reads how many looks at the realm there were, and how long they took together.
func (m *realms) lookTime(ctx context.Context) (int, time.Duration, error) {
	return m.spoke.timeOf(ctx, "dive_agent_look_duration_seconds", fmt.Sprintf(`{instance=%q,node=%q}`, spoke, m.node))
}

// drift has the agent look at the live realm each full minute, twice.
func (m *realms) drift(ctx context.Context, r *run) error {
	if err := m.look(ctx, "* * * * *"); err != nil {
		return err
	}
	var took, byHand []spent
	for range 2 {
		one, err := m.nextDrift(ctx)
		if err != nil {
			return err
		}
		took = append(took, one)
		if one, err = m.terraform(ctx, "plan", "-input=false", "-parallelism=20", "-var=many=1"); err != nil {
			return err
		}
		byHand = append(byHand, one)
	}
	r.ratio(realmDrift, slices.Min(clocks(took)), slices.Min(clocks(byHand)), 1.05,
		"from the full minute that the schedule names to the end of the round, against terraform plan; the better of two; %s; by hand %s; CPU with the look at all other parts %s against %s",
		spread(clocks(took)), spread(clocks(byHand)), round(slices.Min(processors(took))), round(slices.Min(processors(byHand))))
	return m.look(ctx, "@every 24h")
}

// look merges another schedule for looks at the live realm.
func (m *realms) look(ctx context.Context, schedule string) error {
	commit, err := m.merge("Look for drift "+schedule, m.component(1, schedule))
	if err != nil {
		return err
	}
	return m.settle(ctx, commit)
}

// nextDrift waits for the next look that the schedule brings.
func (m *realms) nextDrift(ctx context.Context) (one spent, err error) {
	due := time.Now().Truncate(time.Minute).Add(time.Minute)
	before, err := familyCPU(m.spoke.cmd.Process.Pid)
	if err != nil {
		return one, err
	}
	var counted error
	done, err := m.spoke.await(ctx, "a look for drift", func(e event) bool {
		if e.Instance != spoke || e.Kind != "round" || e.Time.Before(due) {
			return false
		}
		made, err := m.plans(due, e.Time)
		counted = err
		return err != nil || made > 0
	})
	if err = errors.Join(err, counted); err != nil {
		return one, err
	}
	one.took = done.Time.Sub(due)
	now, err := familyCPU(m.spoke.cmd.Process.Pid)
	one.cpu = now - before
	return one, err
}

// plans is how often the agent told Terraform to plan in a time.
func (m *realms) plans(from, to time.Time) (n int, err error) {
	text, err := os.ReadFile(m.spoke.calls)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[1] != "plan" {
			continue
		}
		at, err := strconv.ParseFloat(fields[0], 64)
		if err != nil {
			return 0, err
		}
		if when := time.UnixMilli(int64(at * 1000)); when.After(from) && when.Before(to) {
			n++
		}
	}
	return n, nil
}

// component is the fleet with the agent's realm in the spoke's blueprint.
func (m *realms) component(many int, schedule string) gitserver.Files {
	files := gitserver.Files{spokeBlueprint: m.files[spokeBlueprint], manyFile: m.module}
	const mark = "  components:\n"
	begin := mark + "    " + m.node + ":\n"
	text := fmt.Sprintf(`      kind: Keycloak
      service: keycloak
      module: terraform-many
      driftSchedule: %q
      variables: {keycloak_admin_password: "${KEYCLOAK_ADMIN_PASSWORD}", code: agent, many: %q}
`, schedule, fmt.Sprint(many))
	before, rest, found := strings.Cut(files[spokeBlueprint], begin)
	if found {
		lines := strings.SplitAfter(rest, "\n")
		files[spokeBlueprint] = before + begin + text + strings.Join(lines[strings.Count(text, "\n"):], "")
	} else {
		files[spokeBlueprint] = strings.Replace(files[spokeBlueprint], mark, begin+text, 1)
	}
	return files
}

// bring merges, orders a look, and gives the time until the realm is done; it returns when the instance is Ready.
func (m *realms) bring(ctx context.Context, files gitserver.Files) (one spent, err error) {
	commit, err := m.merge("Change the large realm", files)
	if err != nil {
		return one, err
	}
	before, err := familyCPU(m.spoke.cmd.Process.Pid)
	if err != nil {
		return one, err
	}
	begun := time.Now()
	after, err := m.spoke.order(ctx, "/v1/instances/"+spoke+"/sync")
	if err != nil {
		return one, err
	}
	done, err := m.spoke.await(ctx, m.node+" is done", func(e event) bool {
		return e.Node == m.node && e.Kind == "node" && e.State == "done" && e.Time.After(begun)
	})
	if err != nil {
		return one, err
	}
	now, err := familyCPU(m.spoke.cmd.Process.Pid)
	if err != nil {
		return one, err
	}
	one = spent{done.Time.Sub(begun), now - before}
	// The plan that proves it comes after what is measured, and is over before anything is made by hand.
	if err := m.spoke.awaitRound(ctx, spoke, after); err != nil {
		return one, err
	}
	return one, m.spoke.awaitReady(ctx, time.Minute, spoke, commit)
}

// write puts the module where it is applied by hand.
func (m *realms) write() error { return writeFile(filepath.Join(m.hand, "main.tf"), m.module) }

// terraform runs Terraform as a person would.
func (m *realms) terraform(ctx context.Context, args ...string) (spent, error) {
	cmd := exec.CommandContext(ctx, "terraform", args...)
	cmd.Dir = m.hand
	took, err := m.byHand(cmd)
	if err != nil {
		return spent{}, err
	}
	return spent{took, usedBy(cmd)}, nil
}
