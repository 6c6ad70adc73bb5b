package mongo

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

// A set over several hosts has one instance on each of them, all with the same list of members; each agent runs the
// members of its own host. Who does what needs no talk between agents: the agent beside the first member that may become
// primary initiates, the one beside the primary changes the set, and the server, which takes changes from its primary
// alone and each version of its configuration once, keeps apart two who both think it is their turn.

// place says on which host the member runs, where that is told, and whether it is another one than the instance's.
func (m Member) place(instance *desired.Instance, scope *desired.Scope) (on string, elsewhere bool) {
	if !m.On.IsZero() && instance != nil {
		if value, err := m.On.Eval(scope); err == nil && value.Known() {
			return value.Text(), value.Text() != instance.Host
		}
	}
	return "", m.Service == ""
}

// title names the member for people.
func (m Member) title() string {
	if m.Service != "" {
		return m.Service
	}
	return m.Host.Source()
}

// member evaluates a member as the instance sees it.
func (e *evaluator) member(m Member, host string, instance *desired.Instance) wantMember {
	w := wantMember{service: m.Service, host: host, port: m.port(), shape: m.shape()}
	if m.On.IsZero() {
		return w
	}
	if on := e.text(m.On); instance == nil || on != instance.Host {
		w.service, w.on = "", on
	}
	return w
}

// local says whether the member runs on this host.
func (m wantMember) local() bool { return m.service != "" }

// title names the member and, where it is another one, its host.
func (m wantMember) title() string {
	if m.on != "" {
		return m.host + " on " + m.on
	}
	return m.host
}

// title names the member of a host name as the manifest knows it.
func (w want) title(host string) string {
	if m, ok := w.member(host); ok {
		return m.title()
	}
	return host
}

// spread says whether the set has members on other hosts.
func (w want) spread() bool {
	return slices.ContainsFunc(w.members, func(m wantMember) bool { return !m.local() })
}

// keeper names the agent whose matter the set is while m is its primary (or is to be its first one); empty: this agent's.
// A primary that no agent runs, or that the manifests no longer name, is kept by the agent that would initiate.
func (w want) keeper(m wantMember) string {
	if m.local() {
		return ""
	}
	if _, wanted := w.member(m.host); !wanted || m.on == "" {
		if m = w.initial(); m.local() {
			return ""
		}
	}
	return "the agent on " + m.on
}

// ownPrimary is the primary, when it is for this agent to change the set.
func (s *session) ownPrimary(ctx context.Context) (wantMember, error) {
	m, err := s.primary(ctx)
	if err != nil {
		return m, err
	}
	if keeper := s.want.keeper(m); keeper != "" {
		return m, &reconcilers.WaitError{For: fmt.Sprintf("%s, beside the primary %s, to go on", keeper, m.host), Again: time.Second}
	}
	return m, nil
}

// leftToKeeper says what the agent beside the primary has to do, when that is another one.
func leftToKeeper(o observation) error {
	if o.keeper == "" {
		return nil
	}
	p := &planner{want: o.want}
	o.backup = false
	if err := p.planSet(o); err != nil || len(p.changes) == 0 {
		return err
	}
	what := fmt.Sprintf("%s %s (%s)", p.changes[0].Action, p.changes[0].Address, p.changes[0].Reason)
	if more := len(p.changes) - 1; more > 0 {
		what += fmt.Sprintf(" and %d more", more)
	}
	return &reconcilers.WaitError{For: fmt.Sprintf("%s, beside the primary %s: %s", o.keeper, o.primary, what), Again: time.Second}
}

// mayInitiate says who else has to do or say something before this agent initiates the set: a host that does not answer
// may hold the set's data.
func (s *session) mayInitiate(keeper string, seen []sighting) error {
	if keeper != "" {
		return &reconcilers.WaitError{For: fmt.Sprintf("%s to initiate %s, beside %s", keeper, s.want.set, s.want.initial().host), Again: time.Second}
	}
	for _, one := range seen {
		if !one.member.local() && !one.answers() {
			return &reconcilers.WaitError{
				For:   fmt.Sprintf("%s to answer before %s is initiated: it may hold the set's data", one.member.title(), s.want.set),
				Again: time.Second, Err: one.err,
			}
		}
	}
	return nil
}

// stranger is a configured host that no manifest names: where memberAt finds it, or, in a set over several hosts, what
// answers under it.
func (s *session) stranger(ctx context.Context, host string) (wantMember, error) {
	m, err := s.memberAt(host)
	if err == nil && m.local() && s.want.spread() {
		if _, here := s.target.Services.Find(ctx, m.service); here != nil {
			m.service = ""
		}
	}
	return m, err
}

// validatePlaces checks the members of a set over several hosts, and that the other hosts' instances say the same of it.
func (s *Spec) validatePlaces(c *desired.Check) {
	here, elsewhere, unknown := 0, 0, false
	for _, m := range s.Members {
		if value, err := m.On.Eval(c.Scope); !m.On.IsZero() && (err != nil || !value.Known() || value.Secret()) {
			if err == nil {
				c.Errorf(m.Position, "member %s: the host that it is on must be known before anything runs: no secret, no output", m.title())
			}
			unknown = true
			continue
		}
		if _, away := m.place(c.Instance, c.Scope); away {
			elsewhere++
			continue
		}
		if here++; m.Service == "" {
			c.Errorf(m.Position, "member %s is on this instance's host %s: name the service that runs it", m.title(), c.Instance.Host)
		}
	}
	if elsewhere == 0 || unknown {
		return
	}
	if here == 0 {
		c.Errorf(c.At("members"), "no member of %s is on this instance's host %s: leave the set to those that have one, or name it in on", s.setName(), c.Instance.Host)
	}
	for i, m := range s.Members {
		if m.Host.IsZero() {
			c.Errorf(m.Position, "member %s needs a host (name:port): other hosts do not know the names of this one's services", m.title())
		}
		if first := !slices.ContainsFunc(s.Members[:i], Member.electable); first && m.electable() && m.Service == "" && m.On.IsZero() {
			c.Errorf(m.Position, "member %s is the first that may become primary and no agent runs it, so nobody would initiate %s: name its host in on, or put another one first", m.title(), s.setName())
		}
	}
	s.compareSpread(c)
}

func (m Member) electable() bool { return m.shape().electable() }

// compareSpread looks for the instance that runs each member that is elsewhere, and compares what it says of the set.
func (s *Spec) compareSpread(c *desired.Check) {
	compared := map[*desired.Instance]bool{}
	for _, m := range s.Members {
		on, elsewhere := m.place(c.Instance, c.Scope)
		host, err := m.host(c.Scope)
		if !elsewhere || on == "" || err != nil || host == "" {
			continue
		}
		instance, other := runner(c, on, host)
		if instance == nil {
			c.Errorf(m.Position, "member %s: no instance on host %s runs it", host, on)
			continue
		}
		mine, theirs := s.picture(c.Instance, c.Scope), other.picture(instance, instance.Scope(nil))
		if !compared[instance] && mine != theirs {
			c.Errorf(m.Position, "instance %s (%s) has another %s: %s here, %s there. All instances of a set declare the same members and settings",
				instance.Name, instance.Position.File, s.setName(), mine, theirs)
		}
		compared[instance] = true
	}
}

// runner finds the instance on a host that runs the member.
func runner(c *desired.Check, on, host string) (*desired.Instance, *Spec) {
	for _, name := range slices.Sorted(maps.Keys(c.Fleet.Instances)) {
		instance := c.Fleet.Instances[name]
		if instance.Host != on {
			continue
		}
		scope := instance.Scope(nil)
		for _, component := range instance.Components {
			spec, ok := component.Spec.(*Spec)
			if !ok {
				continue
			}
			for _, m := range spec.Members {
				_, elsewhere := m.place(instance, scope)
				if known, err := m.host(scope); err == nil && known == host && !elsewhere {
					return instance, spec
				}
			}
		}
	}
	return nil, nil
}

// picture is what instances of one set must say alike, in words.
func (s *Spec) picture(instance *desired.Instance, scope *desired.Scope) string {
	var words []string
	for _, m := range s.Members {
		host, _ := m.host(scope)
		on, elsewhere := m.place(instance, scope)
		if !elsewhere {
			on = instance.Host // whether it says so or not
		}
		if on != "" {
			host += " on " + on
		}
		if differs := (shape{votes: 1, priority: 1}).differs(m.shape()); len(differs) > 0 || m.Arbiter {
			host += fmt.Sprintf(" (arbiter %t, %s)", m.Arbiter, strings.Join(differs, ", "))
		}
		words = append(words, host)
	}
	text := fmt.Sprintf("%s of %s", s.setName(), strings.Join(words, ", "))
	if s.Settings != nil {
		for _, one := range s.Settings.list() {
			text += fmt.Sprintf(", %s %v", one.name, one.value)
		}
		if w := s.Settings.DefaultWriteConcern; w != "" {
			text += ", defaultWriteConcern " + w
		}
	}
	return text
}
