package bench

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"dive-agent/agent"
	"dive-agent/report"
	"dive-agent/testbed"
	"dive-agent/testbed/federation"
	"dive-agent/testbed/gitserver"
	"dive-agent/testbed/pki"
)

// A hub and its spokes.
const (
	joinHooked = "token-by-webhook"
	joinPolled = "token-by-poll"
	tokenGap   = "rotation-without-token"
)

const (
	edge          = "edge-01" // the host of the spokes that have nothing but their place in the federation
	callerProject = "dive-bench-caller"
)

// enrol has a host's keys made and merged, so that what is sealed to it can be, and gives the commit.
func (w *world) enrol(ctx context.Context, a *agentProcess) (string, error) {
	text, err := a.command(ctx, nil, "enroll")
	if err != nil {
		return "", err
	}
	return w.merge("Enroll "+a.name, gitserver.Files{"hosts/" + a.name + ".yaml": text})
}

// needEdge brings up the hub and the host of small spokes, once, with the hub as manifest says now.
func (w *world) needEdge(ctx context.Context) error {
	if err := w.needHub(ctx); err != nil || w.edge != nil {
		return err
	}
	files := gitserver.Files{}
	federation.AddMember(files)
	if _, err := w.merge("Have spokes that are nothing but members", files); err != nil {
		return err
	}
	if _, err := w.enrol(ctx, w.hub); err != nil {
		return err
	}
	a, err := w.newAgent(edge)
	if err != nil {
		return err
	}
	if err := a.start(ctx, true); err != nil {
		return err
	}
	w.edge = a
	_, err = w.enrol(ctx, a)
	return err
}

// again starts agents anew with another way to hear of merges, and waits until the hub's lacks nothing.
func (w *world) again(ctx context.Context, every string, hooked bool, agents ...*agentProcess) error {
	commit, err := w.head()
	if err != nil {
		return err
	}
	for _, a := range agents {
		a.every, a.hooked = every, hooked
		if err := a.stop(ctx); err != nil {
			return err
		}
		if err := a.start(ctx, true); err != nil {
			return err
		}
		if _, err := a.order(ctx, "/v1/poll"); err != nil {
			return err
		}
	}
	return w.hub.awaitReady(ctx, 2*time.Minute, "usa", commit)
}

// measureJoining times how long it takes from the merge of a spoke's manifest, which is its registration, until its agent has a
// token: with webhooks that tell both agents of the merge and polls that come to nothing, and with polls alone.
func measureJoining(ctx context.Context, r *run) error {
	w := r.world
	if err := w.needEdge(ctx); err != nil {
		return err
	}
	number := 0
	for _, way := range []struct {
		name, every string
		hooked      bool
		bar         time.Duration
		times       int
	}{{joinHooked, "1h", true, 2 * time.Second, 7}, {joinPolled, "10s", false, 25 * time.Second, 5}} {
		if !wanted(way.name, r.only) {
			continue
		}
		if err := w.again(ctx, way.every, way.hooked, w.hub, w.edge); err != nil {
			return err
		}
		var took, registered []time.Duration
		for range way.times {
			whole, after, err := w.timeJoining(ctx, federation.Name(number), way.hooked)
			if err != nil {
				return err
			}
			number, took, registered = number+1, append(took, whole), append(registered, after)
		}
		r.record(way.name, slices.Max(took).Seconds(), "s", way.bar.Seconds(), "from the merge to the token, the slowest; %s; from the registration on: %s; load %.1f",
			spread(took), spread(registered), testbed.LoadAverage())
	}
	return w.again(ctx, "", false, w.hub, w.edge)
}

// timeJoining gives the time from the merge on, and from the registration on. An agent's polls are a second apart, however many
// webhooks come: the merge is one that comes out of quiet.
func (w *world) timeJoining(ctx context.Context, name string, hooked bool) (whole, registered time.Duration, err error) {
	select {
	case <-time.After(1500 * time.Millisecond):
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	}
	files := gitserver.Files{}
	federation.Joins(files, name, edge)
	commit, err := w.merge("Add spoke "+name, files)
	if err != nil {
		return 0, 0, err
	}
	merged := time.Now()
	if hooked {
		for _, a := range []*agentProcess{w.hub, w.edge} {
			if err := a.hook(ctx); err != nil {
				return 0, 0, err
			}
		}
	}
	of := func(kind string) func(event) bool {
		return func(e event) bool { return e.Instance == name && e.Kind == kind }
	}
	begun, err := w.edge.await(ctx, name+" begins to register", of("run"))
	if err != nil {
		return 0, 0, err
	}
	has, err := w.edge.await(ctx, name+" has its token", func(e event) bool {
		return of("node")(e) && e.Node == "registration" && e.State == string(agent.NodeDone)
	})
	if err != nil {
		return 0, 0, err
	}
	return has.Time.Sub(merged), has.Time.Sub(begun.Time), w.edge.awaitReady(ctx, time.Minute, name, commit)
}

// tokenLife is that of the hub's tokens while a rotation is looked at.
const tokenLife = 45 * time.Second

// measureRotation has a backend asked 100 times a second for what its token has to be good for, until the token is another one
// and the first one has ended.
func measureRotation(ctx context.Context, r *run) error {
	w := r.world
	if err := w.needEdge(ctx); err != nil {
		return err
	}
	ca, err := pki.LoadOrCreate(w.path("pki"), "DIVE benchmark")
	if err != nil {
		return err
	}
	a, err := w.newAgent("caller-01")
	if err != nil {
		return err
	}
	a.every = "1s"
	if err := a.start(ctx, true); err != nil {
		return err
	}
	if _, err := w.enrol(ctx, a); err != nil {
		return err
	}
	hub := "instances/usa.yaml"
	before := w.files[hub]
	files := gitserver.Files{hub: strings.Replace(before, "code: USA", "code: USA, tokenLife: "+tokenLife.String(), 1), "instances/cal.yaml": instanceManifest("cal", "caller", a.name,
		"code: CAL", "country: Caller", "project: "+callerProject, fmt.Sprintf("hubURL: \"https://host.docker.internal:%d\"", 4000+hubOffset), "clientImage: "+string(testbed.Base))}
	federation.AddCaller(files, string(ca.PEM()), testbed.LoadClient)
	if _, err := w.merge("Add a spoke whose backend is asked, and have tokens end soon", files); err != nil {
		return err
	}
	for _, one := range []*agentProcess{w.hub, a} {
		if _, err := one.order(ctx, "/v1/poll"); err != nil {
			return err
		}
	}
	if err := w.countRotation(ctx, r, a); err != nil {
		return fmt.Errorf("%w\n%s", err, a.lastWords())
	}
	_, err = w.merge("Have tokens as before", gitserver.Files{hub: before})
	if err == nil {
		_, err = w.hub.order(ctx, "/v1/poll")
	}
	return err
}

func (w *world) countRotation(ctx context.Context, r *run, a *agentProcess) error {
	commit, err := w.head()
	if err != nil {
		return err
	}
	if err := a.awaitReady(ctx, 3*time.Minute, "cal", commit); err != nil {
		return err
	}
	s, err := a.status(ctx, "cal")
	if err != nil {
		return err
	}
	end := federation.TokenEnd(s)
	err = testbed.Until(ctx, 2*tokenLife, 200*time.Millisecond, "another token", func() error {
		s, err := a.status(ctx, "cal")
		if err == nil && (s.Phase != report.Ready || !federation.TokenEnd(s).After(end)) {
			err = fmt.Errorf("it is %s with one until %s", s.Phase, federation.TokenEnd(s))
		}
		return err
	})
	if err != nil {
		return err
	}
	select {
	case <-time.After(time.Until(end) + 2*time.Second):
	case <-ctx.Done():
		return ctx.Err()
	}
	counted, err := w.endRequests(ctx, a, callerProject)
	if err != nil {
		return err
	}
	r.record(tokenGap, milliseconds(counted.Barred), "ms", 0, "for which a backend was refused by the hub, asked 100 times a second with tokens that live %s: %s", tokenLife, counted.Said)
	return testbed.RemoveProject(ctx, w.engine, callerProject)
}
