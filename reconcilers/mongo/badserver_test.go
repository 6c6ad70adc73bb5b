package mongo_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/reconcilers"
	"dive-agent/reconcilers/mongo"
	"dive-agent/testbed"
)

// A server that cannot start is named soon, and before another member joins or a set is made.
func TestServerThatCannotStartIsNamedFirst(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(s *set) []string{
		"unknown flag":          func(s *set) []string { return append(s.mongod("rs0").Command, "--noSuchFlag") },
		"other image's command": func(*set) []string { return []string{"false"} },
	} {
		t.Run(name, func(t *testing.T) {
			s := plainSet(t, three[0]).run(three[:2]...)
			bad := s.mongod("rs0")
			bad.Command = spoil(s)
			s.lab.Run(three[2], bad)
			testbed.Eventually(t, 20*time.Second, "the end of the bad server", func() error {
				if _, err := s.lab.Find(t.Context(), three[2]); err == nil {
					return errors.New("it runs")
				}
				return nil
			})
			named := func(words string) {
				t.Helper()
				var wait *reconcilers.WaitError
				began := time.Now()
				_, _, err := s.pass(reconciler(t))
				require.ErrorAs(t, err, &wait)
				require.Contains(t, err.Error(), words)
				require.Less(t, time.Since(began), 15*time.Second)
			}
			alone := s.spec.Members
			all := append(alone[:1:1], mongo.Member{Service: three[1]}, mongo.Member{Service: three[2]})
			s.spec.Members = all
			named("mongodb-3:27017 to answer before rs0 is initiated")
			require.Equal(t, "no replica set", s.picture(three[0]))

			s.spec.Members = alone
			s.settle(reconciler(t))
			s.spec.Members = all
			named("mongodb-3:27017 to run before mongodb-2:27017 joins")
			require.NotContains(t, s.picture(three[0]), three[1])

			s.run(three[2]) // mended
			require.Equal(t, "rs0 PRIMARY, 3 members", s.settle(reconciler(t)).Facts.Summary)
		})
	}
}
