package mongo

import (
	"fmt"
	"slices"
	"strings"

	"dive-agent/reconcilers"
)

type action int

const (
	initiate action = iota
	renameMember
	changeSettings
	makeRoot
	putRole
	putUser
	rotateRoot
	putIndex
	seedCollection
	setWriteConcern
	setFCV
	addMember
	changeMember
	removeMember
	runBackup
	standUp
	forceMajority
	giveTurnBack
	renewConnections
	copyFrom
)

// step is what Apply does for one change.
type step struct {
	action action
	host   string // of the member
	from   shape  // what a member is before it is changed
	to     shape  // what a member is added as, or changed to
	was    string // its host before a rename

	fellows []string // hosts that a set is initiated with beside host
	index   int      // of the role, user, index or seed that is wanted
}

// planner collects changes with their steps.
type planner struct {
	want    want
	changes []reconcilers.Change
	steps   []step
}

func (p *planner) add(s step, kind reconcilers.Action, address, reason string, details ...string) {
	p.steps = append(p.steps, s)
	p.changes = append(p.changes, reconcilers.Change{Action: kind, Address: address, Reason: reason, Details: details})
}

// Plan lists every step that is missing: the set first, then users and documents while it is small, then members one
// at a time. A member is added without a vote and gets it in a step of its own, when it has caught up. Of a set whose
// primary is on another host only this host's turn and the backup are this agent's.
func (r *Reconciler) Plan(_ reconcilers.Target, o reconcilers.Observed) (reconcilers.Plan, error) {
	state, ok := o.State.(observation)
	if !ok {
		return reconcilers.Plan{}, nil
	}
	p := &planner{want: state.want}
	var err error
	switch state.phase {
	case running:
		p.planTurn(state)
		if state.keeper == "" {
			err = p.planSet(state)
		} else {
			p.planBackup(state.backup)
		}
	case headless:
		p.planHeadless(state)
	case absent, empty:
		if state.keeper == "" {
			err = p.planNew(state)
		}
	}
	if err != nil {
		return reconcilers.Plan{}, err
	}
	plan := reconcilers.Plan{Changes: p.changes, State: p.steps}
	if state.want.unknown != "" {
		plan.Unknown = []string{state.want.unknown}
	}
	return plan, nil
}

func (p *planner) planNew(o observation) error {
	founders := p.want.founders(func(m wantMember) bool { return o.phase == absent || o.blank[m.host] })
	begin := step{action: initiate, host: founders[0].host}
	for _, m := range founders[1:] {
		begin.fellows = append(begin.fellows, m.host)
	}
	p.add(begin, reconcilers.Create, "replica set "+p.want.set, "initiate with "+hostList(founders))
	if o.root {
		p.planRoot()
	}
	for i := range p.want.roles {
		p.planRole(roleGap{index: i, missing: true})
	}
	for i, u := range p.want.users {
		p.planUser(userGap{index: i, user: u, missing: true})
	}
	for i := range p.want.indexes {
		p.planIndex(indexGap{index: i})
	}
	for i, s := range p.want.seeds {
		p.planSeed(seedGap{index: i, missing: len(s.documents)})
	}
	p.planWriteConcern("")
	var seats []seat
	for i, m := range founders {
		seats = append(seats, seat{host: m.host, shape: m.shape, primary: i == 0})
	}
	return p.planMembers(seats, nil)
}

func (p *planner) planSet(o observation) error {
	c := o.config
	c.Members = slices.Clone(c.Members)
	for _, primary := range []bool{false, true} { // last
		for i, m := range o.config.Members {
			if now, renamed := o.renames[m.Host]; renamed && primary == (m.Host == o.primary) {
				p.add(step{action: renameMember, host: now, was: m.Host}, reconcilers.Update, "member "+now, "renamed from "+m.Host)
				c.Members[i].Host = now
			}
		}
	}
	p.planCrossed(o.crossed)
	p.planStale(o.tooStale)
	p.planSettings(c)
	if o.root {
		p.planRoot()
	}
	for _, gap := range o.roles {
		p.planRole(gap)
	}
	for _, gap := range o.users {
		p.planUser(gap)
	}
	for _, gap := range o.indexes {
		p.planIndex(gap)
	}
	for _, gap := range o.seeds {
		p.planSeed(gap)
	}
	p.planWriteConcern(o.writeConcern)
	var seats []seat
	for i, m := range c.Members {
		was := o.config.Members[i].Host
		seats = append(seats, seat{host: m.Host, shape: m.shape(), primary: was == o.primary, away: o.away[was]})
	}
	if err := p.planMembers(seats, o.known); err != nil {
		return err
	}
	if err := p.planFCV(o); err != nil {
		return err
	}
	p.planRootPassword(o)
	p.planBackup(o.backup && len(p.changes) == 0) // what is to be done comes first: a dump takes its time
	return nil
}

// planHeadless helps a set that would wait for an election's timeout.
func (p *planner) planHeadless(o observation) {
	if o.force != nil {
		p.planForce(o)
		return
	}
	p.add(step{action: standUp, host: o.heir}, reconcilers.Run, "primary of "+p.want.set,
		fmt.Sprintf("there is none and all %d members answer: %s stands for election", len(o.config.Members), o.heir))
}

func (p *planner) planSettings(c config) {
	if differences := p.want.settings.differs(c); len(differences) > 0 {
		p.add(step{action: changeSettings}, reconcilers.Update, "settings of "+p.want.set, strings.Join(differences, ", "))
	}
}

func (p *planner) planRoot() {
	p.add(step{action: makeRoot}, reconcilers.Create, "user "+p.want.root.name, "administrator, the server has no user yet")
}

// planMembers plans the reconfigurations, one member and at most one vote at a time.
func (p *planner) planMembers(seats []seat, known []string) error {
	for _, one := range seats {
		if m, wanted := p.want.member(one.host); wanted && m.arbiter != one.shape.arbiter {
			return arbiterInPlace(m.host, m.arbiter)
		}
	}
	moves, reached := planTopology(seats, p.want.members)
	if !reached {
		return &reconcilers.BlockedError{
			Reason:  "NoWayToMembers",
			Message: fmt.Sprintf("%s cannot get from its %d members to the %d of the manifest in steps that the server takes", p.want.set, len(seats), len(p.want.members)),
			Do:      "Merge the change in two: first the members that join and may become primary, then the rest",
		}
	}
	joined := map[string]bool{}
	for _, m := range moves {
		s := step{action: m.action, host: m.host, from: m.from, to: m.to}
		address := "member " + m.host
		switch m.action {
		case addMember:
			joined[m.host] = true
			reason := "add to " + p.want.set + ", without a vote until it has caught up"
			if m.to.arbiter {
				reason = "add to " + p.want.set + " as arbiter"
			}
			p.add(s, reconcilers.Create, address, reason)
		case changeMember:
			reason := strings.Join(m.from.differs(m.to), ", ")
			if joined[m.host] {
				reason = "when it is SECONDARY: " + reason
			}
			p.add(s, reconcilers.Update, address, reason)
		case removeMember:
			reason, destroys := p.removal(m.host, known)
			p.add(s, reconcilers.Delete, address, reason)
			p.changes[len(p.changes)-1].Destroys = destroys
		}
	}
	return nil
}

// removal says why a member goes. One that the manifest never named goes only with approval.
func (p *planner) removal(host string, known []string) (reason string, destroys bool) {
	if slices.Contains(known, host) {
		return "no longer in the manifest (its volume stays)", false
	}
	return "was never in the manifest; somebody else added it (its volume stays)", true
}

// planWriteConcern comes before the members: the server refuses an arbiter that would change the default by its being
// there, as long as nobody has said what the default is.
func (p *planner) planWriteConcern(have string) {
	want := p.want.writeConcern()
	if want == "" || want == have {
		return
	}
	reason := "write concern of clients that name none: " + want
	if have != "" {
		reason = fmt.Sprintf("write concern of clients that name none: %s -> %s", have, want)
	}
	p.add(step{action: setWriteConcern}, reconcilers.Update, "default write concern", reason)
}
