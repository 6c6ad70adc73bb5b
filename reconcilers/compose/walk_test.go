package compose

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

const (
	walkSteps = 20
	calmTime  = 2 * time.Minute // for the stack to be as declared, faults mended
)

// TestShortWalk changes the stack and breaks it at random. DIVE_SEED repeats one.
func TestShortWalk(t *testing.T) {
	t.Parallel()
	walkAtRandom(t, walkSteps)
}

// walk is a stack that is changed and broken at random.
type walk struct {
	*world
	random *rand.Rand // of the step: what one step draws does not depend on what came of those before
	images []string   // references that services may use

	declared walkStack
	accepted walkStack // the last one that was reached: the agent goes back to it when a revision is rejected

	touched map[string]bool   // services that were changed or broken since the stack was as declared
	was     map[string][]life // containers at that time
	remade  map[string]bool   // networks that were changed or broken since then
	lost    map[string]bool   // volumes that somebody removed, and that may be made anew, empty
	taken   string            // service whose container's name somebody has taken
	made    map[string]bool   // volumes that there are
	written map[string]string // what services wrote into their volumes
	beside  bystander
	done    map[string]int
	calmed  bool
	passes  int
	targets sync.Mutex
	amid    func() // ends the agent, perhaps, at the points where it may be ended
	dead    func() bool
	moved   int            // how often tags of images did
	held    map[int]string // image whose tag leads to what does not work -> ID of the one before, which stays in use
	ending  string         // service that ends by itself
}

// life is one run of a service's container.
type life struct{ id, started string }

func walkAtRandom(t *testing.T, steps int) {
	t.Helper()
	seed := uint64(1)
	if text := os.Getenv("DIVE_SEED"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		require.NoError(t, err)
		seed = n
	}
	t.Logf("DIVE_SEED=%d", seed)
	s := newWalk(t)
	for n := range steps {
		s.random = rand.New(rand.NewPCG(seed, uint64(n)))
		name, step := s.anyStep()
		t.Logf("step %d: %s", n, name)
		s.done[name]++
		step()
		s.calmed = false
		switch at := s.random.IntN(10); {
		case at < 2: // the next step comes on top of it
		case at < 4:
			s.killedPass()
		case at < 6:
			s.pass(t.Context())
		default:
			s.calm()
		}
	}
	s.calm()
	t.Logf("steps: %v; %d passes", s.done, s.passes)
}

// newWalk brings up a stack of four services beside something that is none of its own.
func newWalk(t *testing.T) *walk {
	t.Helper()
	w := newWorld(t, "services: {}")
	s := &walk{
		world: w, random: rand.New(rand.NewPCG(0, 0)), images: []string{w.image, w.commit("1", "ENV TAG=1"), w.commit("2", "ENV TAG=2")},
		touched: map[string]bool{}, remade: map[string]bool{}, lost: map[string]bool{}, made: map[string]bool{},
		written: map[string]string{}, done: map[string]int{}, held: map[int]string{},
	}
	s.spec.Pull = "never"
	first := walkStack{
		Services: map[string]walkService{
			"a": {Data: true, Check: true, Networks: []string{"default", "back"}, Uses: []string{"config"}},
			"b": {Data: true, Networks: []string{"back"}, Uses: []string{"bound"}, Depends: map[string]string{"a": "restart"}},
			"c": {Scale: 1, Check: true, Networks: []string{"default"}, Order: orderStartFirst},
			"d": {Job: true, Data: true, Networks: []string{"default"}},
		},
		Networks: map[string]int{"default": 0, "back": 0}, Volumes: []string{"own-a", "own-b", "own-c", "own-d", "own-e", "more"},
		Files: map[string]int{},
	}
	s.beside = s.newBystander()
	s.declare(first)
	s.calm()
	return s
}

// declare makes a revision of the stack.
func (s *walk) declare(next walkStack) {
	s.t.Helper()
	for _, name := range append(s.declared.order(), next.order()...) {
		if s.declared.digest(name) != next.digest(name) {
			s.touched[name] = true
		}
	}
	for key := range next.Networks {
		if generation, ok := s.declared.Networks[key]; !ok || generation != next.Networks[key] { // a former one may still be there
			s.remade[key] = true
		}
	}
	s.declared, s.calmed = next.clone(), false
	text, err := next.render(s.project, s.images)
	require.NoError(s.t, err)
	files := next.files()
	files["compose.yaml"] = text
	s.write(files)
}

// outcome is what came of one part in one pass.
type outcome struct {
	part    string
	begun   []reconcilers.Change
	held    bool // it waits for an approval
	skipped string
	err     error
}

// pass does what an agent does: the shared part, then each service after those that it depends on, as many at a time as there
// are, then what is made last. It gives what came of each part.
func (s *walk) pass(ctx context.Context) map[string]*outcome {
	s.t.Helper()
	s.passes++
	s.calmed = false
	before := s.lives()
	all := map[string]*outcome{SharedPart: s.step(ctx, SharedPart)}
	if all[SharedPart].ok() {
		s.services(ctx, all)
	}
	s.judge(before, all, ctx.Err() != nil || s.dead != nil && s.dead())
	return all
}

func (o *outcome) ok() bool { return o.err == nil && !o.held && o.skipped == "" }

func (s *walk) services(ctx context.Context, all map[string]*outcome) {
	ended := map[string]chan struct{}{}
	for _, name := range s.declared.order() {
		ended[name] = make(chan struct{})
		all[name] = &outcome{part: name}
	}
	var group sync.WaitGroup
	for _, name := range s.declared.order() {
		depends := s.declared.Services[name].Depends
		group.Go(func() {
			defer close(ended[name])
			for other := range depends {
				<-ended[other]
				if !all[other].ok() {
					all[name].skipped = "waits for " + other
					return
				}
			}
			*all[name] = *s.step(ctx, name)
		})
	}
	group.Wait()
}

// step observes, plans and applies one part. What destroys something is applied when the walk is the one who did it.
func (s *walk) step(ctx context.Context, part string) *outcome {
	out := &outcome{part: part}
	target := s.targetOf(part)
	o, err := s.r.Observe(ctx, target)
	if err != nil {
		out.err = err
		return out
	}
	plan, err := s.r.Plan(target, o)
	if err != nil || len(plan.Changes) == 0 {
		out.err = errors.Join(err, o.Err)
		return out
	}
	if out.held = slices.ContainsFunc(plan.Changes, s.forbids); out.held {
		out.begun = plan.Changes
		return out
	}
	p := &walkProgress{heard: &heard{t: s.t}, amid: s.amid}
	_, out.err = s.r.Apply(ctx, target, plan, p)
	out.begun = p.begun
	return out
}

// targetOf is target, for several at a time.
func (s *walk) targetOf(part string) reconcilers.Target {
	s.targets.Lock()
	defer s.targets.Unlock()
	t := s.target("")
	instance, component := *t.Instance, *t.Component
	instance.Components = []*desired.Component{&component}
	t.Instance, t.Component, t.Part = &instance, &component, part
	return t
}

// forbids says whether nobody approves a change.
func (s *walk) forbids(c reconcilers.Change) bool {
	if !c.Destroys {
		return false
	}
	for key := range s.remade {
		if c.Address == "network "+s.project+"_"+key {
			return false
		}
	}
	for name := range s.lost {
		if c.Action == reconcilers.Create && c.Address == "volume "+name {
			return false
		}
	}
	return true
}

// judge holds what a pass did against what may be done in one.
func (s *walk) judge(before map[string][]life, all map[string]*outcome, cutOff bool) {
	s.t.Helper()
	after := s.lives()
	rejected := false
	for part, out := range all {
		for _, c := range out.begun {
			require.NotEmpty(s.t, c.Reason, "%s: %s without a reason", part, c.Action)
			name, ofVolume := strings.CutPrefix(c.Address, "volume ")
			require.False(s.t, ofVolume && s.made[name], "%s of volume %s, which is there", c.Action, name)
			require.False(s.t, out.held, "nobody did what %s of %s (%s) is for", c.Action, c.Address, c.Reason)
			require.True(s.t, part == SharedPart || s.touched[part] || s.follows(part), "%s of %s, which nobody touched: %s", c.Action, part, c.Reason)
		}
		if out.err != nil {
			s.t.Logf("  %s: %v", part, out.err)
		}
		var bad *reconcilers.RejectedError
		if errors.As(out.err, &bad) {
			require.NotEmpty(s.t, s.bad(part), "%s is as it was before: %v", part, bad)
			rejected = true
			continue
		}
		s.mayFail(part, out, cutOff)
		rejected = rejected || !cutOff && s.mergeBack(part, out.err)
	}
	for name, ran := range before {
		if out := all[name]; out != nil && len(out.begun) == 0 {
			require.Equal(s.t, ids(ran), ids(after[name]), "%s was replaced without a plan", name)
		}
	}
	s.nothingElse()
	if rejected {
		s.t.Log("  back to the revision before")
		s.declare(s.accepted)
	}
}

// bad says what is wrong with a declared part; the shared part looks for the images of all.
func (s *walk) bad(part string) string {
	if part != SharedPart {
		service := s.declared.Services[part]
		if service.Bad == "" && s.held[service.Image] != "" {
			return "its tag moved to what does not work"
		}
		return service.Bad
	}
	for _, service := range s.declared.Services {
		if service.Bad == badImage {
			return badImage
		}
	}
	return ""
}

// mergeBack says whether somebody merges the revision before: a service that does not work is not put back by the agent itself.
func (s *walk) mergeBack(part string, err error) bool {
	var wait *reconcilers.WaitError
	service, ok := s.declared.Services[part]
	return ok && err != nil && service.Bad != "" && !errors.As(err, &wait) &&
		(service.OnFailure == onFailurePause || service.OnFailure == onFailureContinue)
}

// mayFail tells failures that have a cause from others.
func (s *walk) mayFail(part string, out *outcome, cutOff bool) {
	s.t.Helper()
	var wait *reconcilers.WaitError
	var blocked *reconcilers.BlockedError
	switch {
	case out.err == nil, cutOff, errors.As(out.err, &wait):
	case errors.As(out.err, &blocked):
		service := map[string]string{"ContainerNameTaken": s.taken, "KeepsRestarting": s.ending}[blocked.Reason]
		if blocked.Reason == "UpdatePaused" && s.bad(part) != "" && s.declared.Services[part].OnFailure == onFailurePause {
			service = part
		}
		require.Equal(s.t, service, part, "%v", blocked)
	case s.ending == part:
	case s.bad(part) != "": // it may be the same container that failed before, after an interruption
	default:
		require.NoError(s.t, out.err, part)
	}
}

// follows says whether a service is restarted because one that it depends on was made anew.
func (s *walk) follows(name string) bool {
	for other, condition := range s.declared.Services[name].Depends {
		if condition == "restart" && (s.touched[other] || s.follows(other)) {
			return true
		}
	}
	return false
}

// calm ends what stands in the way, and passes until there is nothing to do. Then the stack is as declared.
func (s *walk) calm() {
	s.t.Helper()
	s.freeName()
	if s.calmed {
		return
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), calmTime)
	defer cancel()
	for quiet := false; !quiet; {
		require.NoError(s.t, ctx.Err(), "the stack is not as declared in %s", calmTime)
		quiet = true
		for _, out := range s.pass(ctx) {
			quiet = quiet && out.ok() && len(out.begun) == 0
		}
	}
	s.restart()
	for _, part := range append([]string{SharedPart}, s.declared.order()...) {
		s.inSync(part)
	}
	s.asDeclared()
	s.accepted, s.was, s.calmed = s.declared.clone(), s.lives(), true
	clear(s.touched)
	clear(s.remade)
	clear(s.lost)
}

// lives gives the containers of each service, by their IDs.
func (s *walk) lives() map[string][]life {
	s.t.Helper()
	all := map[string][]life{}
	list, err := s.engine.ContainerList(s.t.Context(), client.ContainerListOptions{All: true, Filters: projectFilter(s.project)})
	require.NoError(s.t, err)
	for _, item := range list.Items {
		c, err := s.engine.ContainerInspect(s.t.Context(), item.ID, client.ContainerInspectOptions{})
		if err == nil {
			name := item.Labels["com.docker.compose.service"]
			all[name] = append(all[name], life{c.Container.ID, c.Container.State.StartedAt})
		}
	}
	for _, list := range all {
		slices.SortFunc(list, func(a, b life) int { return strings.Compare(a.id, b.id) })
	}
	return all
}

func ids(list []life) (ids []string) {
	for _, one := range list {
		ids = append(ids, one.id)
	}
	return ids
}
