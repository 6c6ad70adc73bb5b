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
	putUser
	seedCollection
	addMember
	changeMember
	removeMember
)

// step is what Apply does for one change.
type step struct {
	action action
	host   string // of the member
	was    string // its host before a rename
	index  int    // of the user or seed in the spec
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
// at a time. A member is added without a vote and gets it in a step of its own, when it has caught up.
func (r *Reconciler) Plan(_ reconcilers.Target, o reconcilers.Observed) (reconcilers.Plan, error) {
	state, ok := o.State.(observation)
	if !ok {
		return reconcilers.Plan{}, nil
	}
	p := &planner{want: state.want}
	if state.phase == running {
		p.planSet(state)
	} else {
		p.planNew(state)
	}
	plan := reconcilers.Plan{Changes: p.changes, State: p.steps}
	if state.want.unknown != "" {
		plan.Unknown = []string{state.want.unknown}
	}
	return plan, nil
}

func (p *planner) planNew(o observation) {
	first := p.want.initial()
	p.add(step{action: initiate, host: first.host}, reconcilers.Create, "replica set "+p.want.set, "initiate with "+first.host)
	if o.root {
		p.planRoot()
	}
	for i, u := range p.want.users {
		p.planUser(userGap{index: i, user: u, missing: true})
	}
	for i, s := range p.want.seeds {
		p.planSeed(seedGap{index: i, missing: len(s.documents)})
	}
	for _, m := range p.want.members {
		if m.host != first.host {
			p.planMember(config{}, m, false)
		}
	}
}

func (p *planner) planSet(o observation) {
	c := o.config
	for i, m := range c.Members {
		if now, renamed := o.renames[m.Host]; renamed {
			p.add(step{action: renameMember, host: now, was: m.Host}, reconcilers.Update, "member "+now, "renamed from "+m.Host)
			c.Members = append([]memberConfig(nil), c.Members...)
			c.Members[i].Host = now
		}
	}
	p.planSettings(c)
	if o.root {
		p.planRoot()
	}
	for _, gap := range o.users {
		p.planUser(gap)
	}
	for _, gap := range o.seeds {
		p.planSeed(gap)
	}
	for _, m := range p.want.members {
		_, there := c.member(m.host)
		p.planMember(c, m, there)
	}
	for _, m := range c.Members {
		if _, wanted := p.want.member(m.Host); wanted {
			continue
		}
		reason := "no longer in the manifest (its volume stays)"
		if !slices.Contains(o.known, m.Host) {
			reason = "was never in the manifest; somebody else added it (its volume stays)"
		}
		p.add(step{action: removeMember, host: m.Host}, reconcilers.Delete, "member "+m.Host, reason)
		p.changes[len(p.changes)-1].Destroys = !slices.Contains(o.known, m.Host)
	}
}

func (p *planner) planSettings(c config) {
	if differences := p.want.settings.differs(c); len(differences) > 0 {
		p.add(step{action: changeSettings}, reconcilers.Update, "settings of "+p.want.set, strings.Join(differences, ", "))
	}
}

func (p *planner) planRoot() {
	p.add(step{action: makeRoot}, reconcilers.Create, "user "+p.want.root.name, "administrator, the server has no user yet")
}

func (p *planner) planUser(gap userGap) {
	address := "user " + gap.user.name
	if gap.user.database != adminDatabase {
		address += "@" + gap.user.database
	}
	s := step{action: putUser, index: gap.index}
	switch {
	case gap.missing:
		p.add(s, reconcilers.Create, address, "with roles "+roleNames(gap.user.roles))
	case gap.password && gap.roles != "":
		p.add(s, reconcilers.Update, address, "password changed, roles "+gap.roles+" -> "+roleNames(gap.user.roles))
	case gap.password:
		p.add(s, reconcilers.Update, address, "password changed")
	case gap.roles != "":
		p.add(s, reconcilers.Update, address, "roles "+gap.roles+" -> "+roleNames(gap.user.roles))
	}
}

func (p *planner) planSeed(gap seedGap) {
	if gap.missing == 0 {
		return
	}
	s := p.want.seeds[gap.index]
	reason := fmt.Sprintf("seed %d documents into %s", gap.missing, s.collection)
	if total := len(s.documents); gap.missing < total {
		reason = fmt.Sprintf("seed %d of %d documents into %s, the others are there", gap.missing, total, s.collection)
	}
	p.add(step{action: seedCollection, index: gap.index}, reconcilers.Create, "documents "+s.name(), reason)
}

func (p *planner) planMember(c config, m wantMember, there bool) {
	var now memberConfig
	if i, ok := c.member(m.host); ok {
		now = c.Members[i]
	}
	reasonPrefix := ""
	if !there {
		p.add(step{action: addMember, host: m.host}, reconcilers.Create, "member "+m.host, "add to "+p.want.set+", without a vote until it has caught up")
		now, reasonPrefix = memberConfig{Hidden: m.hidden}, "when it is SECONDARY: "
	}
	if differences := m.differs(now); len(differences) > 0 {
		p.add(step{action: changeMember, host: m.host}, reconcilers.Update, "member "+m.host, reasonPrefix+strings.Join(differences, ", "))
	}
}

// differs lists the settings that are set in the manifest and otherwise in the server.
func (s Settings) differs(c config) []string {
	var list []string
	for _, one := range s.list() {
		if have := c.setting(one.name); one.value != 0 && have != one.value {
			list = append(list, fmt.Sprintf("%s %d -> %d", one.name, have, one.value))
		}
	}
	return list
}

type setting struct {
	name  string
	value int
}

func (s Settings) list() []setting {
	return []setting{{"electionTimeoutMillis", s.ElectionTimeoutMillis}, {"heartbeatIntervalMillis", s.HeartbeatIntervalMillis}}
}
