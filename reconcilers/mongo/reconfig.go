package mongo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"

	"dive-agent/reconcilers"
)

// The server waits for the new configuration to be committed, at most maxReconfigTime; a frozen member can hold the
// command longer than that, so the client waits longer.
const (
	maxReconfigTime = 60 * time.Second
	reconfigLimit   = maxReconfigTime + 30*time.Second
	settleLimit     = 3 * time.Minute
)

// reconfigure changes the configuration by one step: it reads it, lets change work on it, and sends it as the next
// version. When change finds nothing to do, nothing is sent. It returns when the configuration is committed.
func (s *session) reconfigure(ctx context.Context, change func(c *config) (bool, error)) error {
	limited, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	for {
		m, err := s.ownPrimary(limited)
		if err != nil {
			return err
		}
		client, err := s.logInRoot(limited, m)
		if isCredentials(err) {
			return s.refusedRoot(ctx, m)
		}
		done, sent := false, false
		if err == nil {
			done, sent, err = s.reconfigureOnce(limited, m.host, client, change)
		}
		if done || err != nil && !s.mayPass(err) {
			return err
		}
		if sent {
			continue
		}
		if waitErr := pause(limited, retryEvery); waitErr != nil {
			wait := &reconcilers.WaitError{For: "the configuration of " + s.want.set + " to be committed", Again: 5 * time.Second, Err: err}
			if ctx.Err() != nil { // what it waited for is of use to people all the same
				return errors.Join(ctx.Err(), wait)
			}
			return wait
		}
	}
}

func (s *session) mayPass(err error) bool {
	return !isBlocked(err) && (isPassing(err) || hasCode(err, settling...) || hasCode(err, codeNodeNotFound))
}

// reconfigureOnce says done when the wanted configuration is there and committed, and sent when the server took a new one.
func (s *session) reconfigureOnce(ctx context.Context, host string, client *driver.Client,
	change func(c *config) (bool, error),
) (done, sent bool, err error) {
	c, committed, err := getConfig(ctx, client, true)
	if err != nil {
		return false, false, err
	}
	if err := s.recognise(host, c); err != nil {
		return false, false, err
	}
	next := c
	next.Members = append([]memberConfig(nil), c.Members...)
	needed, err := change(&next)
	if err != nil {
		return false, false, err
	}
	if !needed {
		return committed, false, nil
	}
	if !committed {
		return false, false, nil
	}
	if err := mayLead(host, c, next); err != nil {
		return false, false, err
	}
	next.Version = c.Version + 1
	if err := ctx.Err(); err != nil {
		return false, false, err
	}
	// Before it is sent: an _id is never used twice, and a member that was added before a crash is not a stranger's.
	s.memory.LastMemberID = max(s.memory.LastMemberID, next.highestID())
	if err := s.rememberMembers(next); err != nil {
		return false, false, err
	}
	command := bson.D{{Key: "replSetReconfig", Value: next}, {Key: "maxTimeMS", Value: maxReconfigTime.Milliseconds()}}
	err = runFor(context.WithoutCancel(ctx), reconfigLimit, client, adminDatabase, command, nil)
	if hasCode(err, codeIncompatibleConfig) && s.wasStale(ctx, client, c.Version) {
		return false, false, nil
	}
	if hasCode(err, codeInvalidReplicaSetConfig, codeIncompatibleConfig, codeNewReplicaSetConfigMismatch, codeNoSuchNode,
		codeNoReplicationEnabled, codeBadValue, codeInvalidOptions) {
		return false, false, &reconcilers.BlockedError{
			Reason: "ConfigurationRefused", Message: fmt.Sprintf("the primary refuses version %d of the configuration of %s", next.Version, s.want.set),
			Do: "Change the members in the manifest so that the server takes them", Err: err,
		}
	}
	return false, err == nil, err
}

// mayLead says whether the primary may be one in the next configuration too: the server takes no other one from it. It was
// asked to step down before, and was elected since.
func mayLead(host string, c, next config) error {
	at, there := c.member(host)
	if !there {
		return nil
	}
	for _, m := range next.Members {
		if m.ID == c.Members[at].ID && m.Priority > 0 {
			return nil
		}
	}
	return &reconcilers.WaitError{For: "another primary than " + host, Again: time.Second}
}

// wasStale says whether another one has changed the configuration since it was read.
func (s *session) wasStale(ctx context.Context, client *driver.Client, read int64) bool {
	c, _, err := getConfig(ctx, client, false)
	return err == nil && c.Version != read
}
