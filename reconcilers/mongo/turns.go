package mongo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"

	"dive-agent/reconcilers"
)

// Agents on several hosts must not restart two members of a set at once. Each sees only its own host's plans, so the set
// itself holds the turn: one document, written with a majority. Whoever inserted it restarts its member, and all others
// wait for that agent by name. After it was inserted every member is asked once more whether it serves.
//
// No clock decides: nobody takes the turn from a member that is in the set, however long it takes. An agent that was
// killed goes on with its own turn when it is back, or gives it back when there is nothing left to do; a member that was
// taken out of the set has none. An acknowledged insert or removal is seen by every later primary, so two agents cannot
// both have it, and a primary that was cut off acknowledges none.
const (
	turnCollection = "dive_agent_turn" // in database admin
	turnLimit      = 10 * time.Second  // for the majority to take a write of it
	turnOver       = 2 * backLimit     // without a word of a restart that was begun here: it is over
	primaryPause   = 40 * time.Second  // how long nobody else may have had a turn before the primary has its own: longer than agents take to see a merge
)

// heldTurn is the document. The member is known by its _id in the configuration, which a rename leaves as it is.
type heldTurn struct {
	ID     string    `bson:"_id"` // name of the set
	Member int       `bson:"member"`
	Host   string    `bson:"host"` // for people, as what follows
	On     string    `bson:"on"`
	Since  time.Time `bson:"since"`
}

func (h heldTurn) title() string { return wantMember{host: h.Host, on: h.On}.title() }

// wait is for the others, as long as it is held.
func (h heldTurn) wait() error {
	return &reconcilers.WaitError{For: "the restart of " + h.title() + " to be over, whose turn it is", Again: rollAgain}
}

func turns(client *driver.Client) *driver.Collection {
	return client.Database(adminDatabase).Collection(turnCollection)
}

// readTurn gives the turn that a member of the set has; nil: nobody.
func (s *session) readTurn(ctx context.Context, client *driver.Client, st status) (*heldTurn, error) {
	if !s.want.spread() {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, turnLimit)
	defer cancel()
	var held heldTurn
	err := turns(client).FindOne(ctx, bson.D{{Key: "_id", Value: s.want.set}}).Decode(&held)
	switch {
	case errors.Is(err, driver.ErrNoDocuments):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read whose turn it is to be restarted: %w", err)
	case st.host(held.Member) == "":
		return nil, nil
	}
	return &held, nil
}

// takeTurn gives the member the turn, or says who has it.
func (s *session) takeTurn(ctx context.Context, client *driver.Client, m wantMember, st status) error {
	limited, cancel := context.WithTimeout(ctx, turnLimit)
	defer cancel()
	own := heldTurn{ID: s.want.set, Member: st.id(m.host), Host: m.host, On: s.host(), Since: s.r.deps.Clock.Now().UTC()}
	_, err := turns(client).InsertOne(limited, own)
	if !driver.IsDuplicateKeyError(err) {
		return wrapTurn(m, err)
	}
	var held heldTurn
	err = turns(client).FindOne(limited, bson.D{{Key: "_id", Value: own.ID}}).Decode(&held)
	if err == nil && (held.Member == own.Member || st.host(held.Member) == "") { // of before, which no majority may have taken; or of nobody
		was := bson.D{{Key: "_id", Value: own.ID}, {Key: "member", Value: held.Member}, {Key: "since", Value: held.Since}}
		if done, err := turns(client).ReplaceOne(limited, was, own); err != nil || done.MatchedCount == 1 {
			return wrapTurn(m, err)
		}
	}
	if errors.Is(err, driver.ErrNoDocuments) { // it has just ended
		held.Host = "another member"
	} else if err != nil {
		return wrapTurn(m, err)
	}
	return held.wait()
}

func wrapTurn(m wantMember, err error) error {
	switch {
	case err == nil:
		return nil
	case isPassing(err):
		return &reconcilers.WaitError{For: "a majority to know of the turn of " + m.host, Again: rollAgain, Err: err}
	}
	return fmt.Errorf("take the turn of %s: %w", m.host, err)
}

// dropTurn ends the turn of a member of that _id, if it has it.
func (s *session) dropTurn(ctx context.Context, client *driver.Client, member int) error {
	ctx, cancel := context.WithTimeout(ctx, turnLimit)
	defer cancel()
	if _, err := turns(client).DeleteOne(ctx, bson.D{{Key: "_id", Value: s.want.set}, {Key: "member", Value: member}}); err != nil {
		return fmt.Errorf("end a turn to be restarted: %w", err)
	}
	return nil
}

// turnAmongHosts gives the member the turn among those of all hosts, as long as all others serve when it has it. The error
// says whom it waits for.
func (s *session) turnAmongHosts(ctx context.Context, client *driver.Client, m wantMember, last bool) error {
	if !s.want.spread() {
		return nil
	}
	st, err := getStatus(ctx, client)
	if err != nil {
		return fmt.Errorf("read the replica set's status: %w", err)
	}
	if st.id(m.host) < 0 {
		return nil
	}
	if last {
		if err := s.afterOthers(ctx, client, m, st); err != nil {
			return err
		}
	}
	if err := s.takeTurn(ctx, client, m, st); err != nil {
		return err
	}
	if _, err := s.othersReady(ctx, client, m); err != nil {
		return errors.Join(err, s.dropTurn(ctx, client, st.id(m.host)))
	}
	s.r.setTurning(s.component, m.host, true)
	return nil
}

// turnOfIdle is for a member that does not serve: it takes nothing from the set, but may begin to serve at any moment, and
// another host's agent count on it. Where no primary can tell whose turn it is there is nothing to hold apart.
func (s *session) turnOfIdle(ctx context.Context, m wantMember) error {
	if !s.want.spread() {
		return ctx.Err()
	}
	limited, cancel := context.WithTimeout(ctx, turnLimit)
	defer cancel()
	primary, ok := s.writable(s.look(limited))
	if !ok {
		return ctx.Err()
	}
	client, _, err := s.enter(limited, primary)
	if err != nil {
		return ctx.Err()
	}
	st, err := getStatus(limited, client)
	if err != nil || st.id(m.host) < 0 {
		return ctx.Err()
	}
	var wait *reconcilers.WaitError
	if err := s.takeTurn(limited, client, m, st); errors.As(err, &wait) {
		return err
	} else if err == nil {
		s.r.setTurning(s.component, m.host, true)
	}
	return ctx.Err()
}

// afterOthers lets the members of other hosts go first: with the primary last, a change of all members costs one step-down.
func (s *session) afterOthers(ctx context.Context, client *driver.Client, m wantMember, st status) error {
	key := s.component + "/primary's turn"
	held, err := s.readTurn(ctx, client, st)
	switch {
	case err != nil:
		return err
	case held != nil && held.Host == m.host:
		return nil
	case held != nil:
		s.r.overcome(key)
		return held.wait()
	case s.r.deps.Clock.Now().Sub(s.r.firstSeen(key)) < primaryPause:
		return &reconcilers.WaitError{For: fmt.Sprintf("members of other hosts to be restarted first, if they are to be, for %s: %s is the primary", primaryPause, m.host), Again: rollAgain}
	}
	s.r.overcome(key)
	return nil
}

// endTurn gives the turn back after the restart. Where that fails a step of the next plan makes up for it.
func (s *session) endTurn(ctx context.Context, m wantMember) error {
	if !s.want.spread() {
		return nil
	}
	defer s.r.setTurning(s.component, m.host, false)
	primary, err := s.primary(ctx)
	if err != nil {
		return err
	}
	client, err := s.logInRoot(ctx, primary)
	if err != nil {
		return err
	}
	st, err := getStatus(ctx, client)
	if err == nil {
		err = s.dropTurn(ctx, client, st.id(m.host))
	}
	return err
}

// observeTurn tells of the turn that somebody has. One of this host's that no restart is using is to be given back.
func (s *session) observeTurn(ctx context.Context, client *driver.Client, st status, o *observation) (notes []string, err error) {
	held, err := s.readTurn(ctx, client, st)
	if err != nil || held == nil {
		return nil, err
	}
	host := st.host(held.Member)
	if m, ours := s.want.member(host); ours && m.local() && !s.r.isTurning(s.component, host) {
		o.idleTurn = host
	}
	return []string{fmt.Sprintf("%s has its turn to be restarted since %s; no other member is restarted before its agent ends it", held.title(), timeText(held.Since))}, nil
}

func (p *planner) planTurn(o observation) {
	if o.idleTurn != "" {
		p.add(step{action: giveTurnBack, host: o.idleTurn}, reconcilers.Update, "turn of "+o.idleTurn, "given back: its restart is over, or no longer wanted")
	}
}

// giveTurnBack ends a turn that no restart uses, now as when it was planned.
func (s *session) giveTurnBack(ctx context.Context, host string) error {
	m, err := s.declared(host)
	if err != nil || s.r.isTurning(s.component, host) {
		return err
	}
	return s.endTurn(ctx, m)
}

// setTurning remembers that a member of this host may be about to be restarted.
func (r *Reconciler) setTurning(component, host string, is bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !is {
		delete(r.turning, component+"/"+host)
		return
	}
	r.turning[component+"/"+host] = r.deps.Clock.Now()
}

func (r *Reconciler) isTurning(component, host string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	at, is := r.turning[component+"/"+host]
	return is && r.deps.Clock.Now().Sub(at) < turnOver
}

// id is a member's _id in the configuration; -1 where it is no member.
func (s status) id(host string) int {
	if m, there := s.member(host); there {
		return m.ID
	}
	return -1
}

// host is the host name of a member by its _id; empty where there is none.
func (s status) host(id int) string {
	for _, m := range s.Members {
		if m.ID == id {
			return m.Host
		}
	}
	return ""
}

// host is this host's name, as the fleet knows it.
func (s *session) host() string {
	if s.target.Instance == nil {
		return ""
	}
	return s.target.Instance.Host
}
