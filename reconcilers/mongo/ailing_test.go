package mongo_test

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"

	"dive-agent/reconcilers"
	"dive-agent/reconcilers/mongo"
	"dive-agent/testbed"
)

// trial is a set of three with a writer, one secondary of which is to ail, and another that is to be restarted.
type trial struct {
	*set
	r       reconcilers.Reconciler
	w       *writer
	primary string
	ailing  string
	other   string
}

func newTrial(t *testing.T, s *set) *trial {
	t.Helper()
	tr := &trial{set: s, r: reconciler(t)}
	o := s.settle(tr.r)
	tr.primary = primaryOf(t, o)
	tr.ailing, tr.other = beside(tr.primary)[0], beside(tr.primary)[1]
	testbed.Eventually(t, time.Minute, "a set of which nobody ails", func() error { // on a busy machine one may be behind at first
		o, _, err := tr.pass(tr.r)
		if err == nil && len(o.Facts.Notes) > 0 {
			err = fmt.Errorf("told: %v", o.Facts.Notes)
		}
		return err
	})
	require.NoError(t, tr.turn())
	tr.w = s.write()
	return tr
}

// turn asks whether the other member may be restarted.
func (tr *trial) turn() error {
	return tr.set.turn(tr.r, reconcilers.Turn{Part: tr.other, Others: []string{tr.primary}})
}

// told waits until people are told of the ailing member, in one of the sentences, and gives what they are told of it beside.
func (tr *trial) told(sentences ...string) (fact reconcilers.MemberFacts) {
	tr.t.Helper()
	testbed.Eventually(tr.t, 2*time.Minute, "a note", func() error {
		o, _, err := tr.pass(tr.r)
		for _, m := range o.Facts.Members {
			if m.Host == tr.ailing+":27017" {
				fact = m
			}
		}
		for _, note := range o.Facts.Notes {
			if words, of := strings.CutPrefix(note, tr.ailing+":27017 "); of && slices.Contains(sentences, words) {
				return nil
			}
		}
		if err != nil && strings.Contains(err.Error(), "do not reach "+tr.ailing) {
			return nil // it does so little that it counts as away
		}
		return fmt.Errorf("notes %q, %w", o.Facts.Notes, err)
	})
	return fact
}

// waits holds a roll to waiting for the ailing member, which is named with what is wrong with it: at last, since one that was
// started anew has to catch up first.
func (tr *trial) waits(words string) {
	tr.t.Helper()
	testbed.Eventually(tr.t, time.Minute, "a roll that waits for "+words, func() error {
		err := tr.turn()
		var wait *reconcilers.WaitError
		require.ErrorAs(tr.t, err, &wait)
		require.Contains(tr.t, wait.For, tr.ailing+":27017 to ")
		require.Contains(tr.t, wait.For, "before "+tr.other+":27017 is restarted")
		if !regexp.MustCompile(words).MatchString(wait.For) {
			return err
		}
		return nil
	})
}

// goesOn waits until nothing is told any more and a roll goes on.
func (tr *trial) goesOn() {
	tr.t.Helper()
	testbed.Eventually(tr.t, 2*time.Minute, "a turn for "+tr.other, func() error {
		err := tr.turn()
		var wait *reconcilers.WaitError
		if errors.As(err, &wait) && strings.HasSuffix(wait.For, tr.other+":27017 is the primary") {
			return nil // a clock that is put back may cost an election: the roll goes on with the others
		}
		return err
	})
	testbed.Eventually(tr.t, time.Minute, "no notes", func() error {
		o, _, err := tr.pass(tr.r)
		if len(o.Facts.Notes) > 0 {
			return fmt.Errorf("%s", strings.Join(o.Facts.Notes, "; "))
		}
		return err
	})
	require.Empty(tr.t, tr.w.lost(tr.primary))
}

// A secondary whose disk takes no writes serves and falls behind; the lag is told, and no other member is restarted.
func TestMemberThatFallsBehind(t *testing.T) {
	t.Parallel()
	tr := newTrial(t, plainSet(t, three...).run(three...))
	tr.lock(tr.ailing)
	fact := tr.told("is more than 10 s behind the primary")
	require.True(t, fact.Health)
	require.Equal(t, "SECONDARY", fact.State)
	require.Greater(t, fact.Lag, 10*time.Second)
	tr.waits(`to catch up \(is \d+ s behind\)`)
	tr.command(tr.ailing, bson.D{{Key: "fsyncUnlock", Value: 1}})
	tr.goesOn()
}

// A former member serves as soon as it is back, however far behind. It votes when it has caught up: until then nobody waits
// for it to have a write.
func TestFormerMemberVotesWhenItHasCaughtUp(t *testing.T) {
	t.Parallel()
	s := plainSet(t, three[:2]...).run(three[:2]...)
	r := reconciler(t)
	s.settle(r)
	both := s.spec.Members
	s.spec.Members = both[:1]
	s.settle(r)

	s.spec.Members = both
	inserts := s.admin(three[0]).Database("dive").Collection("inserts", options.Collection().SetWriteConcern(writeconcern.Majority()))
	insert := func() {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err := inserts.InsertOne(ctx, bson.D{})
		require.NoError(t, err)
	}
	s.ended = func(c reconcilers.Change) {
		if c.Action != reconcilers.Create {
			return
		}
		testbed.Eventually(t, 20*time.Second, "the former member to serve", func() error {
			state, err := s.tryCommand(three[1], bson.D{{Key: "hello", Value: 1}}) // it closes connections on its way there
			if err == nil && state["secondary"] != true {
				err = fmt.Errorf("%v", state)
			}
			return err
		})
		s.lock(three[1])
		insert()
	}
	require.ErrorIs(t, s.soon(r), context.DeadlineExceeded)
	require.Contains(t, s.picture(three[0]), "{Host:mongodb-2:27017 Votes:0 ")
	insert()
	s.ended = nil
	s.command(three[1], bson.D{{Key: "fsyncUnlock", Value: 1}})
	s.settle(r)
	require.Contains(t, s.picture(three[0]), "{Host:mongodb-2:27017 Votes:1 ")
}

// A member that is slow in all it does answers late, or falls behind, or both: it is told of, and no other one is restarted.
func TestMemberThatAnswersLate(t *testing.T) {
	t.Parallel()
	tr := newTrial(t, plainSet(t, three...).run(three...))
	tr.lab.Throttle(tr.ailing)
	tr.told("answers the primary late: a heartbeat takes more than 1s", "is more than 10 s behind the primary")
	tr.waits(`to (do well|serve|catch up)`)
	tr.lab.Unthrottle(tr.ailing)
	tr.goesOn()
}

// A member whose clock is off replicates and votes as before; people are told, and no other member is restarted.
func TestMemberWithAnotherClock(t *testing.T) {
	t.Parallel()
	s := plainSet(t, three...)
	other := s.mongod("rs0")
	other.Image = testbed.Image(t, testbed.MongodClock)
	for _, name := range three {
		s.lab.Run(name, other)
	}
	tr := newTrial(t, s)
	put := func(offset string) { // and start it anew: a clock that steps while a server runs makes it call an election, or wait
		t.Helper()
		_, code, err := s.lab.Exec(t.Context(), tr.ailing, []string{"sh", "-c", "echo " + offset + " > " + testbed.ClockFile}, nil, nil)
		require.NoError(t, err)
		require.Zero(t, code)
		s.lab.Kill(tr.ailing)
		s.lab.Start(tr.ailing)
	}
	put("+240s")
	fact := tr.told("has a clock that is 4 min ahead of the others'")
	require.True(t, fact.Health)
	require.Equal(t, "SECONDARY", fact.State)
	require.Less(t, fact.Lag, time.Minute, "replication does not ask for the time of day")
	tr.waits("clock that is 4 min ahead")
	put("+0")
	tr.goesOn()
}

// Which clock is the wrong one is a matter of numbers; the agent's own may be it.
func TestClocksThatAreOff(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		ahead []int // of members, in seconds
		trip  int   // of each question
		off   map[string]time.Duration
	}{
		"none":                            {ahead: []int{0, 1, -20}},
		"one of three":                    {ahead: []int{0, 240, 1}, off: map[string]time.Duration{"b": 4 * time.Minute}},
		"behind":                          {ahead: []int{-3600, 0, 0}, off: map[string]time.Duration{"a": -time.Hour}},
		"this host's":                     {ahead: []int{100, 100, 100}, off: map[string]time.Duration{"": -100 * time.Second}},
		"of a single one":                 {ahead: []int{-50}, off: map[string]time.Duration{"a": -50 * time.Second}},
		"half of them: this host decides": {ahead: []int{-90, -90, 0}, off: map[string]time.Duration{"a": -90 * time.Second, "b": -90 * time.Second}},
		"less than the answer took":       {ahead: []int{0, 35, 0}, trip: 12},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			off := mongo.ClocksOff(c.ahead, time.Duration(c.trip)*time.Second)
			require.Len(t, off, len(c.off))
			for host, by := range c.off {
				require.Equal(t, by, off[host], host)
			}
		})
	}
}
