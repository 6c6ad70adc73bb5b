package mongo

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestTopologyReachesAnySetInLegalSteps plans between generated sets, and judges each move by the server's rules alone.
func TestTopologyReachesAnySetInLegalSteps(t *testing.T) {
	t.Parallel()
	seed := uint64(1)
	if text := os.Getenv("DIVE_SEED"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		require.NoError(t, err)
		seed = n
	}
	for n := range uint64(5_000) {
		random := rand.New(rand.NewPCG(seed, n))
		have, want := anySet(random), anySet(random)
		for i, m := range want { // nobody becomes an arbiter, or ends to be one, in place
			if at := slices.IndexFunc(have, func(h wantMember) bool { return h.host == m.host }); at >= 0 && have[at].arbiter != m.arbiter {
				want[i].host = "new-" + m.host
			}
		}
		var seats []seat
		for i, m := range have {
			seats = append(seats, seat{host: m.host, shape: m.shape, primary: i == 0, away: i > 0 && random.IntN(5) == 0})
		}
		moves, reached := planTopology(seats, want)
		if err := walk(have, want, moves); err != nil || !reached {
			t.Fatalf("seed %d, case %d, reached %t: %v\nfrom %+v\nto   %+v\nby   %+v", seed, n, reached, err, have, want, moves)
		}
		if again, _ := planTopology(seatsOf(want), want); len(again) > 0 {
			t.Fatalf("seed %d, case %d: a set that is as wanted gets %+v", seed, n, again)
		}
	}
}

// anySet is a set that the server takes; its first member may become primary.
func anySet(random *rand.Rand) []wantMember {
	size := 1 + random.IntN(9)
	if random.IntN(20) == 0 {
		size = 1 + random.IntN(maxMembers-1)
	}
	voters, arbiters := 1, 0
	names := random.Perm(maxMembers + 5)
	set := []wantMember{{host: host(names[0]), shape: shape{votes: 1, priority: float64(1 + random.IntN(3))}}}
	for _, name := range names[1:size] {
		m := wantMember{host: host(name)}
		if voters < maxVoters && random.IntN(4) > 0 {
			m.votes = 1
			voters++
		}
		switch kind := random.IntN(6); {
		case kind == 0 && m.votes == 1 && arbiters == 0:
			m.arbiter = true
			arbiters++
		case kind == 1:
			m.hidden = true
		case kind == 2:
			m.hidden, m.delay = true, 60
		case kind == 3 && m.votes == 1:
			m.priority = float64(random.IntN(3))
		case kind == 4:
			m.tags = map[string]string{"dc": strconv.Itoa(random.IntN(3))}
		}
		set = append(set, m)
	}
	return set
}

func host(n int) string { return fmt.Sprintf("mongodb-%d:27017", n) }

func seatsOf(set []wantMember) []seat {
	var seats []seat
	for i, m := range set {
		seats = append(seats, seat{host: m.host, shape: m.shape, primary: i == 0})
	}
	return seats
}

// votersOf counts those that vote, and those of them that have data.
func votersOf(set map[string]shape) (all, writable int) {
	for _, s := range set {
		all += s.votes
		if !s.arbiter {
			writable += s.votes
		}
	}
	return all, writable
}

// walk makes the moves one by one and says which rule one of them breaks. It shares nothing with the planner.
func walk(have, want []wantMember, moves []move) error {
	now := map[string]shape{}
	for _, m := range have {
		now[m.host] = m.shape
	}
	for i, m := range moves {
		before, there := now[m.host]
		switch {
		case m.action == addMember && there:
			return fmt.Errorf("move %d adds %s, which is there", i, m.host)
		case m.action != addMember && !there:
			return fmt.Errorf("move %d is about %s, which is not there", i, m.host)
		case m.action == addMember && m.to.votes > 0 && !m.to.arbiter:
			return fmt.Errorf("move %d lets %s vote before it has the data", i, m.host)
		case m.action == changeMember && before.arbiter != m.to.arbiter:
			return fmt.Errorf("move %d makes %s another kind of member in place", i, m.host)
		}
		_, writable := votersOf(now)
		now[m.host] = m.to
		if all, w := votersOf(now); all == 3 && w == 2 && writable == 1 && m.to.electable() {
			return fmt.Errorf("move %d gives %s vote and priority at once, beside one member with data and an arbiter", i, m.host)
		}
		if m.action == removeMember {
			delete(now, m.host)
		}
		if err := legal(now); err != nil {
			return fmt.Errorf("after move %d (%+v): %w", i, m, err)
		}
	}
	if len(now) != len(want) {
		return fmt.Errorf("ends with %d members, wanted are %d", len(now), len(want))
	}
	for _, m := range want {
		if !now[m.host].equal(m.shape) {
			return fmt.Errorf("%s ends as %+v, wanted is %+v", m.host, now[m.host], m.shape)
		}
	}
	return nil
}

func legal(set map[string]shape) error {
	voters, electable, arbiters := 0, 0, 0
	for name, s := range set {
		voters += s.votes
		if s.votes == 1 && s.priority > 0 && !s.arbiter {
			electable++
		}
		if s.arbiter {
			arbiters++
		}
		if s.priority > 0 && (s.votes == 0 || s.hidden || s.delay > 0 || s.arbiter) || s.arbiter && s.votes == 0 {
			return fmt.Errorf("%s is %+v", name, s)
		}
	}
	if len(set) > maxMembers || voters > maxVoters || electable == 0 || arbiters > 1 {
		return fmt.Errorf("%d members, %d voters, %d that may be primary, %d arbiters", len(set), voters, electable, arbiters)
	}
	return nil
}
