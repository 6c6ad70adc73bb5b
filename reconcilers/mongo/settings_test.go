package mongo_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/reconcilers/mongo"
)

// Beside an arbiter the primary stays when the other member with data is away, and a majority write waits for that one:
// the agent does not.
func TestWriteThatIsNeverAcknowledgedEnds(t *testing.T) {
	t.Parallel()
	s := plainSet(t, three[:2]...).run(three...)
	s.spec.Members = append(s.spec.Members, mongo.Member{Service: three[2], Arbiter: true})
	r := reconciler(t)
	primary := primaryOf(t, s.settle(r))
	for _, name := range three[:2] {
		if name != primary {
			s.lab.Stop(name)
		}
	}
	s.spec.Settings.DefaultWriteConcern = "1"
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_, plan := s.looks(r)
	require.NotEmpty(t, plan.Changes)
	_, err := r.Apply(ctx, s.target, plan, &progress{t: t})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Less(t, time.Since(began), 40*time.Second)
}
