package reconcilers

import (
	"context"
	"sync"
	"time"
)

// Survey is a look at all parts of an instance while nothing is changed. What several of them ask an engine for, such as the
// list of a stack's containers, is asked for once. It is safe for concurrent use.
type Survey struct {
	mu    sync.Mutex
	looks map[any]*glance
}

// SurveyAge is how long an answer holds within a survey: one that takes longer, since it plans a realm, asks again.
const SurveyAge = time.Second

type glance struct {
	mu    sync.Mutex
	asked time.Time
	value any
}

type surveyKey struct{}

// In gives a context of the survey, in which Once asks once.
func (s *Survey) In(ctx context.Context) context.Context {
	return context.WithValue(ctx, surveyKey{}, s)
}

func surveyOf(ctx context.Context) *Survey {
	s, _ := ctx.Value(surveyKey{}).(*Survey) // none: nil
	return s
}

// InSurvey says whether the context is that of a survey: who looks may take what was seen a moment ago, since each event makes
// another survey due.
func InSurvey(ctx context.Context) bool {
	return surveyOf(ctx) != nil
}

// Alone gives a context like the one given, and outside of its survey.
func Alone(ctx context.Context) context.Context {
	return context.WithValue(ctx, surveyKey{}, (*Survey)(nil))
}

// Once gives what read gives: in a survey the same to all who ask by the same key within SurveyAge, elsewhere a new one each
// time. The key is of a type of the caller's package; what is given is shared and must not be changed. Errors are not kept.
func Once[T any](ctx context.Context, key any, read func() (T, error)) (T, error) {
	s := surveyOf(ctx)
	if s == nil {
		return read()
	}
	s.mu.Lock()
	if s.looks == nil {
		s.looks = map[any]*glance{}
	}
	g := s.looks[key]
	if g == nil {
		g = &glance{}
		s.looks[key] = g
	}
	s.mu.Unlock()
	g.mu.Lock()
	defer g.mu.Unlock()
	if value, ok := g.value.(T); ok && time.Since(g.asked) < SurveyAge {
		return value, nil
	}
	asked := time.Now()
	value, err := read()
	if err == nil {
		g.asked, g.value = asked, value
	}
	return value, err
}
