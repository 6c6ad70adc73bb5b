package mongo

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// shape is what the configuration says of a member beside its name.
type shape struct {
	votes    int
	priority float64
	hidden   bool
	arbiter  bool
	delay    int // seconds
	tags     map[string]string
}

// electable says whether a member of this shape may become primary.
func (s shape) electable() bool { return s.votes > 0 && s.priority > 0 && !s.arbiter }

// joining is the shape that a member of shape s is added with: it cannot vote or be elected before it has the data. An
// arbiter has no data, and the server does not take one without a vote.
func (s shape) joining() shape {
	if s.arbiter {
		return s
	}
	s.votes, s.priority = 0, 0
	return s
}

func (s shape) equal(o shape) bool {
	return s.votes == o.votes && s.priority == o.priority && s.hidden == o.hidden && s.arbiter == o.arbiter &&
		s.delay == o.delay && maps.Equal(s.tags, o.tags)
}

// differs lists in words what has to change for a member of shape s to be of shape to.
func (s shape) differs(to shape) []string {
	var list []string
	add := func(name string, have, want any) { list = append(list, fmt.Sprintf("%s %v -> %v", name, have, want)) }
	if s.hidden != to.hidden {
		add("hidden", s.hidden, to.hidden)
	}
	if s.delay != to.delay {
		add("delay", fmt.Sprintf("%d s", s.delay), fmt.Sprintf("%d s", to.delay))
	}
	if s.votes != to.votes {
		add("votes", s.votes, to.votes)
	}
	if s.priority != to.priority {
		add("priority", s.priority, to.priority)
	}
	if !maps.Equal(s.tags, to.tags) {
		add("tags", tagText(s.tags), tagText(to.tags))
	}
	return list
}

func tagText(tags map[string]string) string {
	var words []string
	for _, name := range slices.Sorted(maps.Keys(tags)) {
		words = append(words, name+"="+tags[name])
	}
	if len(words) == 0 {
		return "none"
	}
	return strings.Join(words, ",")
}

// seat is a member as the topology planner sees it.
type seat struct {
	host    string
	shape   shape
	primary bool
	away    bool // nobody reaches it
}

// move is one reconfiguration of the set: exactly one member is added, changed or removed, and at most one vote.
type move struct {
	action action // addMember, changeMember or removeMember
	host   string
	from   shape // zero for addMember
	to     shape // zero for removeMember
}

// planTopology lists the reconfigurations from the members that are to those that are wanted. After each of them the
// set is one that the server takes (manual, "Replica Set Configuration": at most 50 members of which 7 vote, one that
// may become primary) and no weaker than it must be: members join before others leave, those that are away leave
// first, and the primary leaves last. It says whether that leads to what is wanted. No member may be an arbiter in one and
// have data in the other.
func planTopology(have []seat, want []wantMember) (moves []move, reached bool) {
	t := &topology{members: slices.Clone(have), want: want}
	for limit := 6 * (len(have) + len(want)); limit > 0 && t.next(); {
		limit--
	}
	reached = len(t.members) == len(want)
	for _, m := range want {
		i := t.find(m.host)
		reached = reached && i >= 0 && t.members[i].shape.equal(m.shape)
	}
	return t.moves, reached
}

type topology struct {
	members []seat
	want    []wantMember
	moves   []move
}

// next makes the first move that is possible, in the order in which they are best made.
func (t *topology) next() bool {
	return t.join() || t.gain() || t.adjust() || t.lose() || t.makeRoom()
}

// join adds the first wanted member that is not there, while there is room for it.
func (t *topology) join() bool {
	for _, m := range t.want {
		if t.find(m.host) >= 0 || len(t.members) >= maxMembers || m.arbiter && (t.voters() >= maxVoters || t.hasArbiter()) {
			continue
		}
		t.moves = append(t.moves, move{action: addMember, host: m.host, to: m.joining()})
		t.members = append(t.members, seat{host: m.host, shape: m.joining()})
		return true
	}
	return false
}

// gain gives a member that should vote its vote, while there is room for it: those that may be primary first. The second
// one with data beside an arbiter gets its priority in a step of its own: the server takes both at once for a risk (manual,
// "rs.reconfigForPSASet").
func (t *topology) gain() bool {
	for _, electable := range []bool{true, false} {
		for _, m := range t.want {
			i := t.find(m.host)
			if i >= 0 && m.electable() == electable && m.votes > t.members[i].shape.votes && t.voters() < maxVoters {
				to := m.shape
				if t.voters() == 2 && t.hasArbiter() {
					to.priority = 0
				}
				return t.change(i, to)
			}
		}
	}
	return false
}

// adjust changes what a member is otherwise, its vote left aside, as long as another one may be primary.
func (t *topology) adjust() bool {
	for _, m := range t.want {
		i := t.find(m.host)
		if i < 0 || t.members[i].shape.votes != m.votes || t.members[i].shape.equal(m.shape) {
			continue
		}
		if m.electable() || t.othersElectable(i) {
			return t.change(i, m.shape)
		}
	}
	return false
}

// lose takes a vote or a member away that is not wanted, the best first: one that is away, one without a vote, the
// primary last. Another one must remain that may be primary.
func (t *topology) lose() bool {
	var candidates []int
	for i, p := range t.members {
		m, wanted := t.wanted(p.host)
		leaves := !wanted || m.votes < p.shape.votes
		if leaves && (!p.shape.electable() || t.othersElectable(i)) {
			candidates = append(candidates, i)
		}
	}
	if len(candidates) == 0 {
		return false
	}
	rank := func(i int) int {
		switch p := t.members[i]; {
		case p.primary:
			return 3
		case p.away:
			return 0
		case p.shape.votes == 0:
			return 1
		}
		return 2
	}
	slices.SortStableFunc(candidates, func(a, b int) int { return cmp.Compare(rank(a), rank(b)) })
	i := candidates[0]
	if m, wanted := t.wanted(t.members[i].host); wanted {
		return t.change(i, m.shape)
	}
	return t.remove(i)
}

// makeRoom takes the vote of a wanted member for a while: all seven are taken, and the only one that could go is the
// only one that may be primary. The member gets it back by gain.
func (t *topology) makeRoom() bool {
	if !t.pending() || t.voters() < maxVoters {
		return false
	}
	for i := len(t.members) - 1; i >= 0; i-- {
		p := t.members[i]
		if m, wanted := t.wanted(p.host); !wanted || p.shape.votes == 0 || p.shape.arbiter || p.primary || p.shape.electable() && !t.othersElectable(i) || m.electable() {
			continue
		}
		return t.change(i, p.shape.joining())
	}
	return false
}

// pending says whether a member waits for a vote.
func (t *topology) pending() bool {
	for _, m := range t.want {
		if i := t.find(m.host); m.votes > 0 && (i < 0 || t.members[i].shape.votes == 0) {
			return true
		}
	}
	return false
}

func (t *topology) change(i int, to shape) bool {
	p := &t.members[i]
	t.moves = append(t.moves, move{action: changeMember, host: p.host, from: p.shape, to: to})
	p.shape = to
	if !to.electable() {
		p.primary = false
	}
	return true
}

func (t *topology) remove(i int) bool {
	p := t.members[i]
	t.moves = append(t.moves, move{action: removeMember, host: p.host, from: p.shape})
	t.members = slices.Delete(t.members, i, i+1)
	return true
}

func (t *topology) find(host string) int {
	return slices.IndexFunc(t.members, func(p seat) bool { return p.host == host })
}

func (t *topology) wanted(host string) (wantMember, bool) {
	for _, m := range t.want {
		if m.host == host {
			return m, true
		}
	}
	return wantMember{}, false
}

func (t *topology) voters() int {
	n := 0
	for _, p := range t.members {
		n += p.shape.votes
	}
	return n
}

// hasArbiter says whether there is one: servers from 5.3 on take no second.
func (t *topology) hasArbiter() bool {
	return slices.ContainsFunc(t.members, func(p seat) bool { return p.shape.arbiter })
}

func (t *topology) othersElectable(i int) bool {
	for j, p := range t.members {
		if j != i && p.shape.electable() {
			return true
		}
	}
	return false
}
