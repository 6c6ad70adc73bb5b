package mongo_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/reconcilers"
	"dive-agent/testbed"
)

// keyIs gives the manifest a key file of these keys, and the files that were before it, newest first.
func (s *set) keyIs(file string, former ...string) {
	s.t.Helper()
	x, problems := desired.ParseExpr("${KEY}", desired.Position{})
	require.Empty(s.t, problems)
	s.spec.Keyfile = x
	before := map[string][]desired.Value{}
	for _, text := range former {
		before["KEY"] = append(before["KEY"], desired.Secret(text))
	}
	s.target.Scope = desired.NewScope(map[string]desired.Value{"KEY": desired.Secret(file)}).WithFormer(before)
}

// runKeyed starts a member on its volume with a key file.
func (s *set) runKeyed(service, file string) {
	s.t.Helper()
	one := s.mongod("rs0")
	one.Volumes = map[string]string{"data-" + service: "/data/db"}
	keys := one.Files["/etc/mongo-keyfile"]
	keys.Content = file
	one.Files["/etc/mongo-keyfile"] = keys
	s.lab.Run(service, one)
}

// tells looks until the words stand in what the set waits for, or, when it waits for nothing, in its notes.
func (s *set) tells(r reconcilers.Reconciler, words string) reconcilers.Observed {
	s.t.Helper()
	var o reconcilers.Observed
	testbed.Eventually(s.t, time.Minute, words, func() error {
		var err error
		o, err = r.Observe(s.t.Context(), s.target)
		if text := fmt.Sprintf("%v %s", o.Err, strings.Join(o.Facts.Notes, " ")); err == nil && !strings.Contains(text, words) {
			return errors.New(text)
		}
		return err
	})
	return o
}

// TestMembersAreAskedHowFarAKeyfileIs: a rotation is where each member's server is, whatever anybody remembers.
func TestMembersAreAskedHowFarAKeyfileIs(t *testing.T) {
	t.Parallel()
	s := plainSet(t, three...)
	old, next := s.key, "NextKeyOfTheSet0123456789+/"
	both := desired.KeyfileOf(old, next)
	for _, name := range three {
		s.runKeyed(name, old)
	}
	s.keyIs(old)
	r := reconciler(t)
	o := s.settle(r)
	require.Equal(t, []string{"KEY"}, o.Holds)
	require.Equal(t, "rs0 PRIMARY, 3 members", o.Facts.Summary)
	turn := func(part string) error { return s.turn(r, reconcilers.Turn{Part: part, Others: three}) }

	s.keyIs(both, old)
	o = s.tells(r, "mongodb-1:27017, mongodb-2:27017, mongodb-3:27017 to be restarted with the new key (keyfile: 0 of 3 members know the new key)")
	var wait *reconcilers.WaitError
	require.ErrorAs(t, o.Err, &wait)
	require.Empty(t, o.Holds)
	require.NotEmpty(t, o.Outputs)
	require.Equal(t, "rs0 PRIMARY, 3 members, key being rotated", o.Facts.Summary)
	primary := primaryOf(t, o)
	others := beside(primary)
	for i, name := range others {
		testbed.Eventually(t, time.Minute, "a turn for "+name, func() error { return turn(name) })
		s.runKeyed(name, both)
		s.tells(r, fmt.Sprintf("keyfile: %d of 3 members know the new key", i+1))
	}

	s.lab.Stop(others[0])
	s.runKeyed(primary, both)
	o = s.tells(r, "2 of 3 members know the new key; not yet: "+others[0]+":27017")
	require.Empty(t, o.Holds, "one that is stopped may come back as it was")
	require.Error(t, o.Err)
	s.lab.Start(others[0])
	testbed.Eventually(t, time.Minute, "one note, and none of a member that is behind at first", func() error {
		if o = s.settle(r); !slices.Equal(o.Facts.Notes, []string{"keyfile: 3 of 3 members know the new key"}) {
			return fmt.Errorf("notes %q", o.Facts.Notes)
		}
		return nil
	})
	require.Equal(t, []string{"KEY"}, o.Holds)

	s.keyIs(next, both, old)
	o = s.tells(reconciler(t), "restarted without the former key (keyfile: 0 of 3 members let go of the former key)")
	require.Empty(t, o.Holds)
	s.keyIs("AThirdKeyOfNobody", old)
	var blocked *reconcilers.BlockedError
	testbed.Eventually(t, time.Minute, "a turn that is refused", func() error {
		if err := turn(others[0]); !errors.As(err, &blocked) {
			return fmt.Errorf("not refused: %w", err)
		}
		return nil
	})
	require.Equal(t, "KeyfileNotShared", blocked.Reason)
	require.Contains(t, blocked.Message, others[0]+":27017 is to be restarted with a key file of which")
	require.Contains(t, blocked.Do, "(KEY)")
	for _, key := range []string{old, next, "AThirdKeyOfNobody"} {
		require.NotContains(t, blocked.Error()+blocked.Do, key)
	}
}

// TestTheFirstUserIsMadeInEachPhaseOfARotation: whichever of its keys the server was started with.
func TestTheFirstUserIsMadeInEachPhaseOfARotation(t *testing.T) {
	t.Parallel()
	const old, next = "FormerKeyOfTheSet012", "NextKeyOfTheSet01234"
	both := desired.KeyfileOf(old, next)
	for name, c := range map[string]struct {
		has, file string
		former    []string
	}{
		"the file has both, the server the former one": {old, both, []string{old}},
		"the file has the new one, the server both":    {both, next, []string{both, old}},
		"the file has the new one, the server the old": {old, next, []string{both, old}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := plainSet(t, "mongodb")
			service := s.mongod("rs0")
			service.Env = nil
			keys := service.Files["/etc/mongo-keyfile"]
			keys.Content = c.has
			service.Files["/etc/mongo-keyfile"] = keys
			s.lab.Run("mongodb", service)
			s.keyIs(c.file, c.former...)
			r := reconciler(t)
			testbed.Eventually(t, time.Minute, "its first user", func() error {
				if _, _, err := s.pass(r); err != nil {
					var wait *reconcilers.WaitError
					if !errors.As(err, &wait) || !strings.Contains(wait.For, "to be restarted with") {
						return err
					}
				}
				return nil
			})
			require.Contains(t, s.picture("mongodb"), "admin.admin")
		})
	}
}

// TestAKeyThatNoServerAsksForHoldsUpNobody: members that know each other by certificates alone are restarted as ever.
func TestAKeyThatNoServerAsksForHoldsUpNobody(t *testing.T) {
	t.Parallel()
	s := newSecureSet(t, three[:2]...)
	for _, name := range three[:2] {
		s.lab.Run(name, s.secure(name, "requireTLS", "x509", s.member))
	}
	r := reconciler(t)
	s.settle(r)
	s.keyIs(desired.KeyfileOf("FormerKeyOfNobody", "NextKeyOfNobody"), "FormerKeyOfNobody")
	o := s.settle(r)
	require.Equal(t, []string{"KEY"}, o.Holds)
	one := three[0]
	if one == primaryOf(t, o) {
		one = three[1]
	}
	turn := reconcilers.Turn{Part: one, Others: three[:2]}
	testbed.Eventually(t, time.Minute, "a turn for "+one, func() error {
		return r.(reconcilers.Roller).Turn(t.Context(), s.target, turn, &progress{t: t})
	})
}
