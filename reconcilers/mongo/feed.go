package mongo

import (
	"context"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"dive-agent/reconcilers"
)

// Members copy the oplog from the primary or from each other (manual, "Replica Set Data Synchronization"). One whose source
// goes away looks for another one for a second or two, and where a majority needs that member all writers wait as long. So
// it is given the primary as its source before.
//
// A member changes its source with the next entry of the oplog. It turns down a new one that has no more than itself just
// then, has none for a second, and may take the former one again (seen on 4.4.2 and 6.0.5). Who is asked while it has none
// finds the primary ahead, as long as somebody writes. Where nobody does, nothing changes, and nobody waits.
const (
	feedLimit = 5 * time.Second         // for all members
	feedQuiet = 1500 * time.Millisecond // without a change after a request: nobody writes
)

// refeed has the members that copy from m, which is about to be restarted, copy from the primary. It has no error: what
// does not get there costs writers some seconds, and is no reason to leave m as it is.
func (s *session) refeed(ctx context.Context, m wantMember, progress reconcilers.Progress) {
	limited, cancel := context.WithTimeout(ctx, feedLimit)
	defer cancel()
	primary, err := s.primary(limited)
	if err != nil || primary.host == m.host {
		return
	}
	left := make([]bool, len(s.want.members))
	var all sync.WaitGroup
	for i, other := range s.want.members {
		if other.host != m.host && other.host != primary.host && !other.arbiter && other.delay == 0 {
			all.Go(func() { left[i] = s.feed(limited, other, m.host, primary.host) })
		}
	}
	all.Wait()
	for i, other := range s.want.members {
		if left[i] && ctx.Err() == nil {
			progress.Say("%s still copies from %s, which is restarted: writers may wait some seconds", other.host, m.host)
		}
	}
}

// feed has a member copy from the primary if it copies from the former source, and says whether it still copies from that
// when the context ends. A source that it is given counts when it is there at two looks: the member may turn it down after the first.
func (s *session) feed(ctx context.Context, other wantMember, former, primary string) (left bool) {
	client, err := s.logInRoot(ctx, other)
	if err != nil {
		return false
	}
	const unseen = "unseen"
	last, since := unseen, time.Time{} // what it copies from, empty: from nobody
	for {
		st, err := getStatus(ctx, client)
		if err != nil {
			return last == former
		}
		found := st.Source != former && st.Source != ""
		if found && last == unseen || st.Source == last && (found || time.Since(since) > feedQuiet) {
			return false
		}
		if st.Source != last {
			if st.Source == former || st.Source == "" && last == former {
				err = run(ctx, client, adminDatabase, bson.D{{Key: "replSetSyncFrom", Value: primary}}, nil)
			}
			last, since = st.Source, time.Now()
		}
		if err != nil || pause(ctx, retryEvery) != nil {
			return last == former
		}
	}
}
