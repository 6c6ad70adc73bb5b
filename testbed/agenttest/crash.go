package agenttest

import (
	"bufio"
	"fmt"
	"os"
	"testing"
	"time"
)

// manyKills is more often than any walk has places to be killed at.
const manyKills = 300

// Failpoints tells an agent that was built with the tag failpoint where to kill itself: before and after each recorded
// change, once at each place. File remembers the places at which it was.
type Failpoints struct {
	File   string
	Sparse string // "node=n": of a node's changes one in n counts; empty: all
	Sample string // "n/seed": of all places one in n counts, another choice for each seed; empty: all
}

// Env is what the agent needs to know of them.
func (f Failpoints) Env() []string {
	return []string{"DIVE_AGENT_FAILPOINTS=" + f.File, "DIVE_AGENT_FAILPOINT_SPARSE=" + f.Sparse, "DIVE_AGENT_FAILPOINT_SAMPLE=" + f.Sample}
}

// Places are those at which agents were killed, in order.
func (f Failpoints) Places(tb testing.TB) (places []string) {
	tb.Helper()
	file, err := os.Open(f.File)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		places = append(places, lines.Text())
	}
	return places
}

// UntilThrough starts an agent again and again until it gets through without being killed, each time within the limit,
// and gives how often it was. start gives what is closed at the agent's end; through says what is still lacking.
func UntilThrough(tb testing.TB, limit time.Duration, start func() (ended <-chan struct{}), through func() error) (kills int) {
	tb.Helper()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for ; kills < manyKills; kills++ {
		ended, late := start(), time.NewTimer(limit)
		lacking := fmt.Errorf("nobody has looked")
		for killed := false; !killed; {
			select {
			case <-ended:
				killed = true
			case <-late.C:
				tb.Fatalf("killed %d times, then neither through nor killed within %s: %v", kills, limit, lacking)
			case <-tb.Context().Done():
				tb.Fatal(tb.Context().Err())
			case <-tick.C:
				if lacking = through(); lacking == nil {
					late.Stop()
					return kills
				}
			}
		}
		late.Stop()
	}
	tb.Fatalf("killed %d times, without an end", kills)
	return kills
}
