package keycloak

import (
	"context"
	"fmt"
	"sync"

	"dive-agent/reconcilers"
)

// steps is a progress that a test can stop or listen to.
type steps struct {
	mu    sync.Mutex
	said  []string
	ended map[string]error
	on    func(said string)
	begin func() error
}

func (s *steps) Begin(ctx context.Context, _ ...reconcilers.Change) error {
	if s.begin != nil {
		return s.begin()
	}
	return ctx.Err()
}

func (s *steps) End(c reconcilers.Change, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended == nil {
		s.ended = map[string]error{}
	}
	s.ended[c.Address] = err
}

func (s *steps) Say(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	s.mu.Lock()
	s.said = append(s.said, text)
	s.mu.Unlock()
	if s.on != nil {
		s.on(text)
	}
}

func (s *steps) Started() {}
