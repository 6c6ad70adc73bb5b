package mongo

import (
	"context"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
)

// config is a replica set's configuration. Fields that are not ours stay as they are.
type config struct {
	Name     string         `bson:"_id"`
	Version  int64          `bson:"version"`
	Members  []memberConfig `bson:"members"`
	Settings bson.M         `bson:"settings,omitempty"`
	Rest     bson.M         `bson:",inline"`
}

type memberConfig struct {
	ID       int     `bson:"_id"`
	Host     string  `bson:"host"`
	Votes    int     `bson:"votes"`
	Priority float64 `bson:"priority"`
	Hidden   bool    `bson:"hidden"`

	Arbiter bool              `bson:"arbiterOnly"`
	Tags    map[string]string `bson:"tags,omitempty"`
	Delay   *int64            `bson:"secondaryDelaySecs,omitempty"` // from 5.0 on
	Slave   *int64            `bson:"slaveDelay,omitempty"`         // the same, before
	Rest    bson.M            `bson:",inline"`
}

func (c config) member(host string) (int, bool) {
	for i, m := range c.Members {
		if m.Host == host {
			return i, true
		}
	}
	return 0, false
}

func (c config) setID() string {
	id, ok := c.Settings["replicaSetId"].(bson.ObjectID)
	if !ok {
		return ""
	}
	return id.Hex()
}

// setting reads a number or a truth of the settings; absent is nil.
func (c config) setting(name string) any {
	switch v := c.Settings[name].(type) {
	case int32:
		return int(v)
	case int64:
		return int(v)
	case float64:
		return int(v)
	case bool:
		return v
	}
	return nil
}

// term is 0 where the configuration has none, as after a forced one.
func (c config) term() int64 {
	switch v := c.Rest["term"].(type) {
	case int32:
		return int64(v)
	case int64:
		return max(v, 0)
	}
	return 0
}

func (c config) highestID() int {
	highest := 0
	for _, m := range c.Members {
		highest = max(highest, m.ID)
	}
	return highest
}

func (c config) voters() int {
	n := 0
	for _, m := range c.Members {
		n += m.Votes
	}
	return n
}

// getConfig reads the configuration. committed is known only of a primary that was asked for it.
func getConfig(ctx context.Context, client *driver.Client, askCommitted bool) (c config, committed bool, err error) {
	command := bson.D{{Key: "replSetGetConfig", Value: 1}}
	if askCommitted {
		command = append(command, bson.E{Key: "commitmentStatus", Value: true})
	}
	var answer struct {
		Config    config `bson:"config"`
		Committed bool   `bson:"commitmentStatus"`
	}
	if err := run(ctx, client, adminDatabase, command, &answer); err != nil {
		return config{}, false, err
	}
	return answer.Config, answer.Committed, nil
}

// status is the set as one member sees it.
type status struct {
	Members  []memberStatus `bson:"members"`
	Term     int64          `bson:"term"`
	TooStale bool           `bson:"tooStale"`       // for whom it copies from
	Source   string         `bson:"syncSourceHost"` // from where the asked member copies; empty: from nowhere
	Election struct {       // only of a primary that was elected since it started
		Reason string    `bson:"lastElectionReason"`
		Date   time.Time `bson:"lastElectionDate"`
	} `bson:"electionCandidateMetrics"`
}

type memberStatus struct {
	ID            int       `bson:"_id"`
	Host          string    `bson:"name"`
	Health        float64   `bson:"health"`
	State         int       `bson:"state"`
	StateName     string    `bson:"stateStr"`
	Optime        time.Time `bson:"optimeDate"`
	Uptime        int64     `bson:"uptime"`            // seconds; of others: since they are reached
	Heard         time.Time `bson:"lastHeartbeatRecv"` // when it last asked the member that tells this
	PingMs        int64     `bson:"pingMs"`            // of its heartbeats' way there and back, smoothed
	Authenticated *bool     `bson:"authenticated"`
}

// States of a member (manual, "Replica Set Member States").
const (
	statePrimary    = 1
	stateSecondary  = 2
	stateRecovering = 3
	stateUnknown    = 6
	stateArbiter    = 7
)

// serves says whether the member does what it is for.
func (m memberStatus) serves() bool {
	return m.Health == 1 && (m.State == statePrimary || m.State == stateSecondary || m.State == stateArbiter)
}

// refusesKey says whether the members do not accept each other's key.
func (m memberStatus) refusesKey() bool { return m.Authenticated != nil && !*m.Authenticated }

func (s status) member(host string) (memberStatus, bool) {
	for _, m := range s.Members {
		if m.Host == host {
			return m, true
		}
	}
	return memberStatus{}, false
}

func getStatus(ctx context.Context, client *driver.Client) (status, error) {
	var st status
	err := run(ctx, client, adminDatabase, bson.D{{Key: "replSetGetStatus", Value: 1}}, &st)
	return st, err
}

// shape is what the configuration says of the member, whatever the server's version calls it.
func (c memberConfig) shape() shape {
	s := shape{votes: c.Votes, priority: c.Priority, hidden: c.Hidden, arbiter: c.Arbiter, tags: c.Tags}
	for _, delay := range []*int64{c.Delay, c.Slave} {
		if delay != nil {
			s.delay = int(*delay)
		}
	}
	return s
}

// shaped gives the member another shape. A server says "secondaryDelaySecs" or "slaveDelay", and takes only its own word.
func (c memberConfig) shaped(s shape, old bool) memberConfig {
	c.Votes, c.Priority, c.Hidden, c.Arbiter, c.Tags = s.votes, s.priority, s.hidden, s.arbiter, s.tags
	if c.Tags == nil {
		c.Tags = map[string]string{} // the server takes no null
	}
	delay := int64(s.delay)
	c.Delay, c.Slave = &delay, nil
	if old {
		c.Delay, c.Slave = nil, &delay
	}
	return c
}

// saysSlave says whether the configuration comes from a server that calls the delay "slaveDelay": one before 5.0.
func (c config) saysSlave() bool {
	return slices.ContainsFunc(c.Members, func(m memberConfig) bool { return m.Slave != nil })
}
