package mongo_test

import (
	"bufio"
	"io"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// journal is what one container tells of the configurations that it took.
type journal struct {
	service string
	since   time.Time
	kept    []walkConfig // of a container that is gone
	gone    bool
}

// keepJournal reads what a container that is to be removed has told.
func (s *walk) keepJournal(service string) {
	for i := range s.journals {
		if j := &s.journals[i]; j.service == service && !j.gone {
			j.kept, j.gone = s.readJournal(*j), true
		}
	}
}

// Entries of the server's log.
const (
	newConfig       = `"id":21392` // "New replica set config in use"
	heartbeatFailed = `"id":23974` // "Heartbeat failed after max retries"
)

func (s *walk) readJournal(j journal) (list []walkConfig) {
	s.t.Helper()
	log, err := s.lab.Logs(s.t.Context(), j.service, j.since.Add(-time.Minute), 0)
	require.NoError(s.t, err)
	defer func() { _ = log.Close() }()
	lines := bufio.NewReader(log)
	for {
		line, err := lines.ReadString('\n')
		if err == io.EOF {
			return list
		}
		require.NoError(s.t, err)
		if !strings.Contains(line, newConfig) {
			continue
		}
		var entry struct {
			Attributes struct {
				Config rawConfig `bson:"config"`
			} `bson:"attr"`
		}
		require.NoError(s.t, bson.UnmarshalExtJSON([]byte(line), false, &entry), line)
		list = append(list, entry.Attributes.Config.read())
	}
}

// checkJournals looks at every configuration that any member ever took: all are of one set, none was forced, none gives
// an _id to another member, and one that follows on another differs from it by one vote.
func (s *walk) checkJournals() {
	s.t.Helper()
	ids, byVersion, count := map[int]string{}, map[[2]int64]walkConfig{}, 0
	for _, j := range s.journals {
		if !j.gone {
			j.kept = s.readJournal(j)
		}
		for i, now := range j.kept {
			count++
			require.Equal(s.t, s.config.set, now.set)
			require.GreaterOrEqual(s.t, now.term, int64(0), "forced: %+v", now)
			for id, service := range now.ids {
				if ids[id] == "" {
					ids[id] = service
				}
				require.Equal(s.t, ids[id], service, "_id %d was used twice", id)
			}
			key := [2]int64{now.term, now.version}
			if same, known := byVersion[key]; known {
				require.Equal(s.t, same.members, now.members, "version %d of term %d was two", now.version, now.term)
			}
			byVersion[key] = now
			if i > 0 && now.version == j.kept[i-1].version+1 {
				require.LessOrEqual(s.t, votesBetween(j.kept[i-1], now), 1, "%+v to %+v", j.kept[i-1], now)
			}
		}
	}
	for key, now := range byVersion {
		if before, known := byVersion[[2]int64{key[0], key[1] - 1}]; known {
			require.LessOrEqual(s.t, votesBetween(before, now), 1, "%+v to %+v", before, now)
		}
	}
	require.NotZero(s.t, count)
	s.t.Logf("%d configurations were looked at, %d of them different", count, len(byVersion))
}
