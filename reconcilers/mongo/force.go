package mongo

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

// Force is an order to go on without the members that are lost. It is carried out once, and only for the configuration
// that it names: whoever merges it knows what there is to lose.
type Force struct {
	Survivors []string `yaml:"survivors" required:"true" doc:"host:port of the members that are left, each as the status names it. All others that answer must be named too."`
	Version   int64    `yaml:"version" required:"true" doc:"Version of the configuration that the survivors have."`
	Term      int64    `yaml:"term" doc:"Term of that configuration. Left out where the configuration has none."`

	Position desired.Position
}

func (f *Force) validate(c *desired.Check, s *Spec) {
	if f == nil {
		return
	}
	if len(f.Survivors) == 0 {
		c.Errorf(f.Position, "an order to force a majority names the survivors")
	}
	if f.Version < 1 || f.Term < 0 {
		c.Errorf(f.Position, "an order to force a majority names the configuration's version (1 or more) and its term, as the status does")
	}
	for i, host := range f.Survivors {
		if slices.Contains(f.Survivors[:i], host) {
			c.Errorf(f.Position, "survivor %s stands twice", host)
		}
		known, unsure := false, false
		for _, m := range s.Members {
			h, err := m.host(c.Scope)
			unsure = unsure || err != nil || h == ""
			known = known || h == host
		}
		if !known && !unsure {
			c.Errorf(f.Position, "survivor %s is not the host (host:port) of a member", host)
		}
	}
}

// id tells one order from another in the memory.
func (f *Force) id() string {
	return fmt.Sprintf("version %d term %d survivors %s", f.Version, f.Term, strings.Join(slices.Sorted(slices.Values(f.Survivors)), ","))
}

// note says what an order in the manifest is for as long as there is a primary: nothing.
func (f *Force) note(m *memory) []string {
	switch {
	case f == nil:
		return nil
	case m.Forced == f.id():
		return []string{fmt.Sprintf("the order to force a majority (version %d) has been carried out and is not carried out again: take it out of the manifest", f.Version)}
	}
	return []string{fmt.Sprintf("the order to force a majority (version %d) is not needed, there is a primary: take it out of the manifest", f.Version)}
}

// survivor is what one member that answers knows.
type survivor struct {
	member wantMember
	config config
	hello  hello
}

// survivors asks every member that answers for its configuration.
func (s *session) survivors(ctx context.Context) ([]survivor, error) {
	var list []survivor
	for _, one := range s.look(ctx) {
		if !one.answers() || one.hello.SetName != s.want.set {
			continue
		}
		client, _, err := s.enter(ctx, one.member)
		if err != nil {
			return nil, err
		}
		c, _, err := getConfig(ctx, client, false)
		if err != nil {
			return nil, fmt.Errorf("read the configuration of %s: %w", one.member.host, err)
		}
		list = append(list, survivor{one.member, c, one.hello})
	}
	return list, ctx.Err()
}

// mayForce holds an order against what the members say, and gives the newest survivor that may be primary. The error
// says why the order is not carried out.
func (s *session) mayForce(order *Force, list []survivor) (survivor, error) {
	if s.memory.Forced == order.id() {
		return survivor{}, fmt.Errorf("the order in the manifest (version %d) has been carried out before", order.Version)
	}
	var answering []string
	var best survivor
	for _, one := range list {
		host := one.member.host
		answering = append(answering, host)
		if !slices.Contains(order.Survivors, host) {
			return survivor{}, fmt.Errorf("%s answers too and is not named as a survivor in the manifest", host)
		}
		if one.hello.IsWritablePrimary {
			return survivor{}, fmt.Errorf("%s is primary", host)
		}
		if one.config.Version != order.Version || one.config.term() != order.Term {
			return survivor{}, fmt.Errorf("the order in the manifest is for version %d, term %d, and %s has version %d, term %d",
				order.Version, order.Term, host, one.config.Version, one.config.term())
		}
		i, there := one.config.member(host)
		if !there {
			return survivor{}, fmt.Errorf("%s is not in its own configuration", host)
		}
		newest := best.member.host == "" || one.hello.LastWrite.Optime.Time.After(best.hello.LastWrite.Optime.Time)
		if one.config.Members[i].shape().electable() && newest {
			best = one
		}
	}
	for _, host := range order.Survivors {
		if !slices.Contains(answering, host) {
			return survivor{}, fmt.Errorf("%s, a survivor by the manifest, does not answer", host)
		}
	}
	if best.member.host == "" {
		return survivor{}, fmt.Errorf("none of the survivors may become primary")
	}
	return best, nil
}

// orderedForce gives the order, if the manifest has one that holds, and why it does not hold otherwise.
func (s *session) orderedForce(ctx context.Context) (*Force, error) {
	if s.want.force == nil {
		return nil, nil
	}
	list, err := s.survivors(ctx)
	if err != nil {
		return nil, err
	}
	best, err := s.mayForce(s.want.force, list)
	if err != nil {
		return nil, err
	}
	if keeper := s.want.keeper(best.member); keeper != "" {
		return nil, fmt.Errorf("the order in the manifest is for %s, beside %s, the newest of the survivors", keeper, best.member.host)
	}
	return s.want.force, nil
}

func (p *planner) planForce(o observation) {
	lost := []string{}
	for _, m := range o.config.Members {
		if !slices.Contains(o.force.Survivors, m.Host) {
			lost = append(lost, m.Host)
		}
	}
	p.add(step{action: forceMajority}, reconcilers.Run, "majority of "+p.want.set,
		fmt.Sprintf("forced once, from version %d, term %d: %s go on without %s. Writes that only those have are lost",
			o.force.Version, o.force.Term, strings.Join(o.force.Survivors, ", "), strings.Join(lost, ", ")))
	p.changes[len(p.changes)-1].Destroys = true
}

// forceMajority makes the survivors the whole set. Everything is asked again first: the order holds for what was merged
// and for nothing else. The server takes a version far above the last one, without a term, so it cannot be done twice.
func (s *session) forceMajority(ctx context.Context) error {
	list, err := s.survivors(ctx)
	if err != nil {
		return err
	}
	order := s.want.force
	best, err := s.mayForce(order, list)
	if err != nil {
		return &reconcilers.BlockedError{Reason: "LostMajority", Message: "a majority is not forced: " + err.Error(), Do: "Merge an order for what the status says now"}
	}
	if keeper := s.want.keeper(best.member); keeper != "" {
		return &reconcilers.WaitError{For: fmt.Sprintf("%s, beside %s, the newest of the survivors, to force a majority", keeper, best.member.host), Again: time.Second}
	}
	client, err := s.logInRoot(ctx, best.member)
	if err != nil {
		return err
	}
	next := best.config
	next.Members = slices.DeleteFunc(slices.Clone(next.Members), func(m memberConfig) bool { return !slices.Contains(order.Survivors, m.Host) })
	next.Version++
	if err := ctx.Err(); err != nil {
		return err
	}
	s.memory.LastMemberID = max(s.memory.LastMemberID, best.config.highestID())
	if err := s.memory.save(); err != nil {
		return err
	}
	if err := s.sendForced(context.WithoutCancel(ctx), client, next); err != nil {
		return fmt.Errorf("force a majority on %s: %w", best.member.host, err)
	}
	s.memory.Forced = order.id()
	if err := s.memory.save(); err != nil {
		return err
	}
	_, err = s.primary(ctx)
	return err
}

func (s *session) sendForced(ctx context.Context, client *driver.Client, c config) error {
	return runFor(ctx, reconfigLimit, client, adminDatabase, bson.D{{Key: "replSetReconfig", Value: c}, {Key: "force", Value: true}}, nil)
}
