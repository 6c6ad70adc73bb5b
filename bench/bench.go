package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Options say what is measured and where the results go.
type Options struct {
	Agent string    // the agent's stripped program
	Only  string    // figures with this in their name, or with one of several, separated by commas; empty: all
	File  string    // where the figures are written as JSON
	Out   io.Writer // for people
}

// limit bounds a whole run.
const limit = 60 * time.Minute

// part measures some figures in one go.
type part struct {
	figures []string
	limit   time.Duration
	run     func(context.Context, *run) error
}

// parts gives all, in the order in which they run: those that want a quiet machine before those that start servers.
func parts() []part {
	return []part{
		{[]string{binarySize}, time.Minute, measureBinary},
		{[]string{loadLight, loadWhole}, 3 * time.Minute, measureLoad},
		{[]string{pollCPU, pollAfterCommits, pollBranches, roundCPU, roundAfterCommits}, 5 * time.Minute, measureFollowing},
		{[]string{statusesRead}, 3 * time.Minute, measureStatuses},
		{[]string{mongoPrimary, mongoUsers}, 3 * time.Minute, measurePrimary},
		{[]string{mongoNothing}, 3 * time.Minute, measureMongoNothing},
		{[]string{mongoThree}, 3 * time.Minute, measureThree},
		{[]string{upgradeStall, rollStall, primaryNamed}, 6 * time.Minute, measureStalls},
		{[]string{cleanSlate}, 6 * time.Minute, measureCleanSlate},
		{[]string{idleMemory, idleCPU}, 4 * time.Minute, measureIdle},
		{[]string{reconcileNothing, terraformNothing}, 2 * time.Minute, measureNothing},
		{healNames(), 3 * time.Minute, measureHealing},
		{[]string{changeService}, 4 * time.Minute, measureChange},
		{[]string{stackNothing, stackLists, stackCalls}, 4 * time.Minute, measureStackNothing},
		{[]string{changeOne, changeFive}, 5 * time.Minute, measurePlainChange},
		{[]string{driftMended}, 4 * time.Minute, measureDrift},
		{[]string{stormMissed, stormMemory}, 6 * time.Minute, measureStorm},
		{[]string{manyMemory, manyCPU}, 9 * time.Minute, measureMany},
		{[]string{requestsLost}, 3 * time.Minute, measureRequests},
		{[]string{terraformFirst}, 4 * time.Minute, measureFirstApply},
		{[]string{realmFirst, realmMemory, realmAttribute, realmPlans, realmUntouched, realmDrift}, 8 * time.Minute, measureRealm},
		{[]string{joinHooked, joinPolled}, 5 * time.Minute, measureJoining}, // the rest: with more and more spokes in the fleet
		{[]string{tokenGap}, 5 * time.Minute, measureRotation},
		{[]string{hubMemory}, 5 * time.Minute, measureFifty},
		{[]string{hubNothing}, 8 * time.Minute, measureFiveHundred},
	}
}

// run is one run of the benchmarks.
type run struct {
	*Results
	agent string
	dir   string // of the run, removed at its end
	world *world
}

// ErrIncomplete says that something could not be measured; what, was printed.
var ErrIncomplete = errors.New("not everything could be measured")

// Run measures, prints and writes. The error is ErrIncomplete when a figure is missing, whatever the others are.
func Run(ctx context.Context, o Options) (err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	agent, err := filepath.Abs(o.Agent)
	if err != nil {
		return err
	}
	selected := choose(o.Only)
	if len(selected) == 0 {
		return fmt.Errorf("no figure has %q in its name; there are: %s", o.Only, strings.Join(allFigures(), ", "))
	}
	dir, err := os.MkdirTemp("", "dive-bench-")
	if err != nil {
		return err
	}
	r := &run{Results: &Results{out: o.Out, only: o.Only}, agent: agent, dir: dir}
	r.world = newWorld(r)
	defer func() {
		ending, done := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer done()
		err = errors.Join(err, r.world.remove(ending), os.RemoveAll(dir))
	}()
	for _, p := range selected {
		r.measure(ctx, p)
	}
	r.table()
	if err := r.write(o.File); err != nil {
		return err
	}
	if len(r.failed) > 0 {
		return ErrIncomplete
	}
	return nil
}

// measure runs one part; what it cannot measure does not keep the others from it.
func (r *run) measure(ctx context.Context, p part) {
	ctx, cancel := context.WithTimeout(ctx, p.limit)
	defer cancel()
	what := strings.Join(p.figures, ", ")
	r.say("measuring %s", what)
	started := time.Now()
	if err := p.run(ctx, r); err != nil {
		r.fail(what, err)
	}
	r.say("took %s", round(time.Since(started)))
}

// choose gives the parts with a figure that has the text in its name.
func choose(only string) (chosen []part) {
	for _, p := range parts() {
		if slices.ContainsFunc(p.figures, func(name string) bool { return wanted(name, only) }) {
			chosen = append(chosen, p)
		}
	}
	return chosen
}

// wanted says whether a figure's name has one of the texts.
func wanted(name, only string) bool {
	return slices.ContainsFunc(strings.Split(only, ","), func(text string) bool { return strings.Contains(name, text) })
}

func allFigures() (names []string) {
	for _, p := range parts() {
		names = append(names, p.figures...)
	}
	return names
}
