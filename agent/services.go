package agent

import (
	"context"
	"fmt"
	"io"
	"time"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

// stacks are the services of all stacks of an instance, each found by its name in the graph.
type stacks struct {
	graph *desired.Graph
	of    map[string]reconcilers.Services // by component
}

// stack gives the one that runs a service. The graph let no name through that is in several and was asked for.
func (s stacks) stack(service string) reconcilers.Services {
	for _, node := range s.graph.Nodes {
		if found := s.of[node.Component.Name]; found != nil && node.Part == service {
			return found
		}
	}
	for _, one := range s.of {
		return one // which says that it has none
	}
	return noServices{}
}

func (s stacks) Find(ctx context.Context, service string) (reconcilers.Container, error) {
	return s.stack(service).Find(ctx, service)
}

func (s stacks) Logs(ctx context.Context, service string, since time.Time, lines int) (io.ReadCloser, error) {
	return s.stack(service).Logs(ctx, service, since, lines)
}

func (s stacks) Exec(ctx context.Context, service string, argv, env []string, stdin io.Reader) ([]byte, int, error) {
	return s.stack(service).Exec(ctx, service, argv, env, stdin)
}

// noServices is the answer for an instance without a stack.
type noServices struct{}

func (noServices) Find(_ context.Context, service string) (reconcilers.Container, error) {
	return reconcilers.Container{}, fmt.Errorf("no service %q: the instance has no stack", service)
}

func (noServices) Logs(_ context.Context, service string, _ time.Time, _ int) (io.ReadCloser, error) {
	return nil, fmt.Errorf("no service %q: the instance has no stack", service)
}

func (noServices) Exec(_ context.Context, service string, _, _ []string, _ io.Reader) ([]byte, int, error) {
	return nil, 0, fmt.Errorf("no service %q: the instance has no stack", service)
}
