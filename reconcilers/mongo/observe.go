package mongo

import (
	"context"
	"fmt"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"

	"dive-agent/reconcilers"
)

// Limits of an observation's waits.
const (
	acceptLimit  = 10 * time.Second // for a mongod that is starting
	electLimit   = 3 * time.Second  // for a primary
	calmLimit    = time.Second      // the same where every member answers: an election takes less
	youngLimit   = time.Minute      // a container younger than this may still run the image's temporary mongod
	patience     = 15 * time.Second // a member may be away this long before it counts as lost
	majorityWait = 30 * time.Second
)

type phase int

const (
	absent   phase = iota // nothing runs and no set is known: everything is to be done
	empty                 // the initial member answers and has no configuration
	running               // there is a primary
	headless              // there is none
)

// observation is what Plan works from.
type observation struct {
	want     want
	phase    phase
	keeper   string // the agent that changes the set; empty: this one
	config   config
	root     bool // the administrator is to be made
	stale    bool // the administrator has a former password
	roles    []roleGap
	users    []userGap
	indexes  []indexGap
	backup   bool // one is due
	seeds    []seedGap
	blank    map[string]bool   // hosts that are as new as the initial one; nil: nobody runs yet, and all are hoped to be
	renames  map[string]string // host in the configuration -> wanted host
	known    []string          // hosts that were members by the manifest's will
	primary  string
	version  string // of the primary's server
	fcv      series
	away     map[string]bool // hosts that nobody reaches
	idleTurn string          // a member of this host that has a turn no restart is using
	force    *Force          // the order that is to be carried out
	heir     string          // the member that should stand for election; empty: none should
	tooStale []staleMember
	crossed  []crossing // members whose connections are to be made anew

	writeConcern string // of clients that name none; empty: nobody has set one
}

// usable says whether what answers is a mongod made for a replica set, and not the temporary one of a first boot.
func usable(h hello) bool { return h.SetName != "" || h.IsReplicaSet }

func (s *session) observe(ctx context.Context) (reconcilers.Observed, error) {
	seen := s.look(ctx)
	anyFound := false
	for _, one := range seen {
		anyFound = anyFound || one.found && (one.member.local() || one.hello.SetName == s.want.set)
	}
	if !anyFound || s.want.unknown != "" {
		return s.observeNothing(seen)
	}
	trouble := connectionTrouble(seen)
	if trouble != nil && !slices.ContainsFunc(seen, sighting.answers) {
		return reconcilers.Observed{Started: true}, trouble
	}
	o, err := s.observeAnswers(ctx, seen)
	if trouble != nil && !isBlocked(err) && ctx.Err() == nil {
		o.State, err = nil, trouble
	}
	return o, err
}

// observeAnswers goes on where at least one service runs.
func (s *session) observeAnswers(ctx context.Context, seen []sighting) (reconcilers.Observed, error) {
	seen, err := s.settleStart(ctx, seen)
	o := reconcilers.Observed{}
	for _, one := range seen {
		o.Started = o.Started || one.answers()
	}
	if err != nil {
		return o, err
	}
	ours := false
	for _, one := range seen {
		if one.answers() {
			if err := s.checkHello(one); err != nil {
				return o, err
			}
			ours = ours || one.hello.SetName == s.want.set
		}
	}
	if !ours {
		initiated, state, err := s.observeGhosts(ctx, seen)
		if err != nil || !initiated {
			o.State = state
			o.Facts.Summary = s.want.set + " not initiated"
			return o, err
		}
	}
	return s.observeSet(ctx, o, seen)
}

// observeNothing is for services that do not run yet: a set that was never made is planned as a whole.
func (s *session) observeNothing(seen []sighting) (reconcilers.Observed, error) {
	o := reconcilers.Observed{}
	if s.memory.ReplicaSetID == "" {
		o.State = observation{want: s.want, phase: absent, keeper: s.want.keeper(s.want.initial())}
	}
	if s.want.unknown != "" {
		return o, &reconcilers.WaitError{For: s.want.unknown}
	}
	at := max(0, slices.IndexFunc(seen, func(one sighting) bool { return one.member.local() }))
	return o, fmt.Errorf("observe member %s: %w", seen[at].member.host, seen[at].err)
}

// settleStart waits for a mongod that is starting: while none answers as one of a replica set, for the first that does;
// while those that answer are in no set, for the initial member, without which nothing can begin.
func (s *session) settleStart(ctx context.Context, seen []sighting) ([]sighting, error) {
	limited, cancel := context.WithTimeout(ctx, acceptLimit)
	defer cancel()
	for {
		starting, hoped := s.starting(seen)
		if len(starting) == 0 {
			return seen, nil
		}
		last, err := s.await(limited, acceptLimit, starting, hoped)
		if ctx.Err() != nil {
			return seen, ctx.Err()
		}
		if err != nil {
			return seen, &reconcilers.WaitError{For: last.member.host + " to accept connections", Again: time.Second, Err: err}
		}
		seen = s.look(ctx)
	}
}

// starting are the members that settleStart waits for, and what it hopes to hear of one of them.
func (s *session) starting(seen []sighting) (starting []wantMember, hoped func(hello) bool) {
	hoped = func(hello) bool { return true }
	anyUsable := false
	for _, one := range seen {
		if one.hello.SetName != "" {
			return nil, nil
		}
		anyUsable = anyUsable || one.answers() && usable(one.hello)
		if one.found && (!one.answers() || s.isYoung(one)) {
			starting = append(starting, one.member)
			if s.isYoung(one) {
				hoped = usable
			}
		}
	}
	if !anyUsable {
		return starting, hoped
	}
	for _, one := range seen {
		if one.member.host == s.want.initial().host && one.found && !one.answers() && s.isYoung(one) {
			return []wantMember{one.member}, usable
		}
	}
	return nil, nil
}

func (s *session) isYoung(one sighting) bool {
	return s.r.deps.Clock.Now().Sub(one.place.container.StartedAt) < youngLimit
}

// checkHello refuses what can be told without login.
func (s *session) checkHello(one sighting) error {
	h := one.hello
	switch {
	case h.SetName != "" && h.SetName != s.want.set:
		return s.foreignSet(one.member.host, h.SetName)
	case h.Message == "isdbgrid":
		return &reconcilers.BlockedError{
			Reason: "NoReplicaSet", Message: one.member.host + " is a mongos (a router of a sharded cluster), not a member",
			Do: "Name the mongod's service as member",
		}
	case !usable(h) && s.isYoung(one):
		return &reconcilers.WaitError{For: one.member.host + " to start as a member (its first boot is not over)", Again: 500 * time.Millisecond}
	case !usable(h):
		return s.noReplSet(one.member.host)
	}
	return nil
}

// observeGhosts finds out why no member tells of a set: never initiated, emptied, removed, or another set's data.
func (s *session) observeGhosts(ctx context.Context, seen []sighting) (initiated bool, state any, err error) {
	initial := s.want.initial()
	for _, one := range seen {
		if one.member.host == initial.host && one.err != nil {
			return false, nil, &reconcilers.WaitError{For: initial.title() + " to accept connections", Again: time.Second, Err: one.err}
		}
	}
	fresh, isRoot, err := s.isFresh(ctx, initial)
	if isBlocked(err) {
		return false, nil, s.lostWhileOthersStart(seen, err)
	}
	var blank map[string]bool
	if err == nil && fresh {
		blank = s.seeBlank(ctx, seen)
		fresh, err = s.othersFresh(ctx, seen, blank)
	}
	if err != nil || !fresh {
		return err == nil, nil, err
	}
	if err := s.mayInitiate(s.want.keeper(initial), seen); err != nil {
		return false, nil, err
	}
	return false, observation{want: s.want, phase: empty, root: !isRoot, blank: blank}, nil
}

// observeSet reads everything of a set that has been initiated.
func (s *session) observeSet(ctx context.Context, o reconcilers.Observed, seen []sighting) (reconcilers.Observed, error) {
	primary, err := s.findPrimary(ctx, seen)
	if err != nil {
		return s.observeHeadless(ctx, o, seen, err)
	}
	s.r.overcome(s.component)
	client, isRoot, err := s.enter(ctx, primary)
	if err != nil {
		return o, err
	}
	state := observation{want: s.want, phase: running, keeper: s.want.keeper(primary), root: !isRoot}
	if isRoot {
		if state.stale, err = s.rootIsStale(ctx, primary); err != nil {
			return o, err
		}
	}
	if state.config, _, err = getConfig(ctx, client, false); err != nil {
		return o, fmt.Errorf("read the replica set's configuration: %w", err)
	}
	same, err := s.sameSet(ctx, primary, state.config, seen)
	if err != nil {
		return o, err
	}
	if err := s.recognise(primary.host, state.config); err != nil {
		return o, err
	}
	st, err := getStatus(ctx, client)
	if err != nil {
		return o, fmt.Errorf("read the replica set's status: %w", err)
	}
	s.hearMembers(ctx, st, same)
	state.crossed, state.tooStale = s.crossings(st, state.config, same), s.staleMembers(ctx, st)
	for _, one := range seen {
		if one.member.host == primary.host {
			state.version = one.version
		}
	}
	if state.version == "" { // it was no primary, or not asked, when all were looked at
		if state.version, err = getVersion(ctx, client); err != nil {
			return o, err
		}
	}
	if state.fcv, err = getFCV(ctx, client); err != nil {
		return o, err
	}
	notes, err := s.observeAccess(ctx, client, primary, &state)
	if err != nil {
		return o, err
	}
	if state.indexes, err = s.observeIndexes(ctx, client); err != nil {
		return o, err
	}
	if state.seeds, err = s.observeSeeds(ctx, client); err != nil {
		return o, err
	}
	state.renames = s.findRenames(same, state.config)
	state.known = s.memory.Hosts
	state.primary, state.away = primaryHost(st), awayHosts(st)
	if s.want.writeConcern() != "" {
		if state.writeConcern, err = getWriteConcern(ctx, client); err != nil {
			return o, err
		}
	}
	if err := s.tellClients(seen); err != nil {
		return o, err
	}
	s.keepClients(seen, primary.host)
	o.Facts = s.facts(st, state.config, seen)
	o.Facts.Notes = append(s.ailing(ctx, st, seen), s.want.force.note(s.memory)...)
	o.Facts.Values["version"] = state.version
	o.Facts.Set.Oplog = oplogWindow(ctx, client, newestOptime(st))
	if state.fcv != (series{}) {
		o.Facts.Set.FCV = state.fcv.String()
	}
	if s.want.tls != nil {
		runs, err := getModes(ctx, client)
		if err != nil {
			return o, err
		}
		o.Facts.Set.TLS = runs.String()
		o.Facts.Notes = append(o.Facts.Notes, s.endings(seen)...)
	}
	o.Holds = s.holds(state, isRoot && !state.stale)
	turn, err := s.observeTurn(ctx, client, st, &state)
	if err != nil {
		return o, err
	}
	shared := s.share(ctx)
	if shared.words != "" {
		o.Facts.Summary += ", key being rotated"
	}
	if len(shared.pending) == 0 {
		o.Holds = append(o.Holds, s.spec().SharedKeys()...)
	}
	o.Facts.Notes = slices.Concat(shared.notes(), crossedNotes(state.crossed), o.Facts.Notes, notes, turn)
	s.backupFacts(&o.Facts, st)
	state.backup = s.backupDue() && s.backupIsOurs(st)
	if isRoot && !state.lacks(s.want.uriUser) {
		o.Outputs = s.outputs(state)
	}
	trouble := s.whileRenewed(s.memberTrouble(st), state)
	if trouble == nil && state.primary == "" { // it stepped down, or was elected, between two of the questions
		trouble = &reconcilers.WaitError{For: "a primary of " + s.want.set, Again: time.Second}
	}
	if trouble == nil {
		trouble = shared.trouble()
	}
	if isBlocked(trouble) {
		return o, trouble
	}
	if left := leftToKeeper(state); left != nil {
		trouble, state.backup = left, false
	}
	o.State = state
	if stale := s.staleTrouble(state.tooStale); stale != nil { // what else is to change goes on, also without that member
		trouble = stale
	}
	return o, trouble
}

// keepClients closes what is held open to members that are no longer wanted.
func (s *session) keepClients(seen []sighting, primary string) {
	hosts := map[string]bool{primary: true}
	for _, one := range seen {
		hosts[one.member.host] = true
	}
	s.r.pool.keep(s.component, hosts)
}

func getVersion(ctx context.Context, client *driver.Client) (string, error) {
	var build struct {
		Version string `bson:"version"`
	}
	err := run(ctx, client, adminDatabase, bson.D{{Key: "buildInfo", Value: 1}}, &build)
	return build.Version, err
}

// recognise holds the configuration against what is remembered, and remembers what is new.
func (s *session) recognise(host string, c config) error {
	id := c.setID()
	if s.memory.ReplicaSetID != "" && id != "" && id != s.memory.ReplicaSetID {
		return &reconcilers.BlockedError{
			Reason:  "ForeignReplicaSet",
			Message: fmt.Sprintf("%s is in a set that is named %s too, but is another one (%s, known here is %s)", host, c.Name, id, s.memory.ReplicaSetID),
			Do:      "Put the right volume back; if this set is meant, remove " + s.memory.path(),
		}
	}
	if id != "" {
		s.memory.ReplicaSetID = id
	}
	s.memory.LastMemberID = max(s.memory.LastMemberID, c.highestID())
	return s.rememberMembers(c)
}

// rememberMembers remembers which members of a configuration the manifest wanted, and where they are.
func (s *session) rememberMembers(c config) error {
	for _, one := range c.Members {
		m, wanted := s.want.member(one.Host)
		if !wanted {
			continue
		}
		if !slices.Contains(s.memory.Hosts, m.host) {
			s.memory.Hosts = append(s.memory.Hosts, m.host)
		}
		if s.memory.Places == nil {
			s.memory.Places = map[string]hostPlace{}
		}
		s.memory.Places[m.host] = hostPlace{m.service, m.port}
	}
	return s.memory.save()
}

// findRenames pairs configured hosts that nobody wants with wanted members that say they are them.
func (s *session) findRenames(seen []sighting, c config) map[string]string {
	renames := map[string]string{}
	for _, one := range seen {
		_, configured := c.member(one.member.host)
		if configured || !one.answers() || one.hello.SetName != s.want.set || one.hello.Me == "" {
			continue
		}
		_, wanted := s.want.member(one.hello.Me)
		if _, known := c.member(one.hello.Me); known && !wanted {
			renames[one.hello.Me] = one.member.host
		}
	}
	return renames
}
