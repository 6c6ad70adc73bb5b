package bench

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"dive-agent/desired"
	"dive-agent/reconcilers/all"
	"dive-agent/report"
)

const cleanSlate = "clean-slate-spoke"

// story is how the spoke came up: when its revision was taken and when it was Ready, and what its nodes did meanwhile.
type story struct {
	taken, ready time.Time
	steps        map[string][]report.Step // by node
	starts       map[string]time.Time     // of containers, by service
}

// measureCleanSlate compares the time from the revision to Ready with the longest path through the graph, when each
// node takes as long as its own recorded steps took, and no time passes between them.
func measureCleanSlate(ctx context.Context, r *run) error {
	w := r.world
	if err := w.needSpoke(ctx); err != nil {
		return err
	}
	graph, err := w.graph(spoke)
	if err != nil {
		return err
	}
	length, path := w.story.longestPath(graph)
	if length == 0 {
		return fmt.Errorf("no step was recorded")
	}
	r.ratio(cleanSlate, w.story.ready.Sub(w.story.taken), length, 1.1, "longest path: %s", path)
	return nil
}

// tellStory reads the agent's events and its history.
func (w *world) tellStory(ctx context.Context, log *engineLog) (*story, error) {
	s := &story{steps: map[string][]report.Step{}, starts: log.starts(spokeProject)}
	ready, err := w.spoke.await(ctx, "deu is Ready", func(e event) bool { return e.Instance == spoke && e.Kind == "phase" && e.State == string(report.Ready) })
	if err != nil {
		return nil, err
	}
	s.ready = ready.Time
	w.spoke.mu.Lock()
	for _, e := range w.spoke.events {
		if e.Kind == "revision" && e.State == "taken" && e.Time.Before(s.ready) {
			s.taken = e.Time // the last one before it was Ready brought the spoke
		}
	}
	w.spoke.mu.Unlock()
	var runs []report.Run
	if err := w.spoke.get(ctx, "/v1/instances/"+spoke+"/history", url.Values{"limit": {"50"}}, &runs); err != nil {
		return nil, err
	}
	for _, run := range runs {
		for _, step := range run.Steps {
			s.steps[step.Node] = append(s.steps[step.Node], step)
		}
	}
	return s, nil
}

// graph is the instance's graph by the manifests as they are merged now.
func (w *world) graph(instance string) (*desired.Graph, error) {
	dir, err := w.checkout()
	if err != nil {
		return nil, err
	}
	fleet, err := desired.Load(dir, desired.Options{Kinds: all.Registry.Kinds()})
	if err != nil {
		return nil, err
	}
	return fleet.Instances[instance].Graph, nil
}

// longestPath walks the graph in its order, in which a node comes after those that it needs.
func (s *story) longestPath(graph *desired.Graph) (time.Duration, string) {
	type arrival struct {
		start, end time.Duration
		path       []string
	}
	at := map[string]arrival{}
	var place func(*desired.Node) arrival
	nodes := map[string]*desired.Node{}
	for _, n := range graph.Nodes {
		nodes[n.ID] = n
	}
	place = func(n *desired.Node) arrival {
		if done, ok := at[n.ID]; ok {
			return done
		}
		var a arrival
		for _, edge := range withShared(graph, n) {
			on := place(nodes[edge.On])
			met := on.end
			if edge.Started {
				met = on.start + s.untilStarted(edge.On)
			}
			if met > a.start {
				a.start, a.path = met, on.path
			}
		}
		own := s.own(n.ID)
		a.end = a.start + own
		if own > 0 {
			a.path = append(slices.Clone(a.path), fmt.Sprintf("%s %s", n.ID, round(own)))
		}
		at[n.ID] = a
		return a
	}
	var last arrival
	for _, n := range graph.Nodes {
		if a := place(n); a.end > last.end {
			last = a
		}
	}
	return last.end, strings.Join(last.path, ", ")
}

// withShared are a node's edges and those to what all others wait for: images and networks.
func withShared(graph *desired.Graph, n *desired.Node) []desired.Edge {
	edges := slices.Clone(n.Needs)
	if strings.HasPrefix(n.Part, "@") {
		return edges
	}
	for _, other := range graph.Nodes {
		if strings.HasPrefix(other.Part, "@") {
			edges = append(edges, desired.Edge{On: other.ID})
		}
	}
	return edges
}

// own is the time in which at least one of the node's steps was at work.
func (s *story) own(node string) (total time.Duration) {
	steps := slices.SortedFunc(slices.Values(s.steps[node]), func(a, b report.Step) int { return a.Started.Compare(b.Started) })
	var until time.Time
	for _, step := range steps {
		from, to := step.Started, step.Started.Add(step.Duration)
		if from.Before(until) {
			from = until
		}
		if to.After(from) {
			total += to.Sub(from)
			until = to
		}
	}
	return total
}

// untilStarted is how long after a service's first step its container was started.
func (s *story) untilStarted(node string) time.Duration {
	_, service, _ := strings.Cut(node, "/")
	started, ok := s.starts[service]
	steps := s.steps[node]
	if !ok || len(steps) == 0 {
		return 0
	}
	first := slices.MinFunc(steps, func(a, b report.Step) int { return a.Started.Compare(b.Started) })
	return max(0, started.Sub(first.Started))
}
