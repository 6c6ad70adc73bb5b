// Package replicaset is a client of replica sets that agents run in containers, for tests and benchmarks: it finds members
// wherever their containers are, and writes to them while something happens.
package replicaset

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/moby/moby/client"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"

	"dive-agent/testbed"
)

// Set is where a replica set runs: services of a Compose project, under their names and the usual port. It is a dialer, which
// reaches a service where its container is at the time.
type Set struct {
	Engine         *client.Client
	Project        string
	Name           string // of the set
	User, Password string
}

// Options are those of a client that follows the set's primary and writes with majority concern.
func (s Set) Options(hosts ...string) *options.ClientOptions {
	var addresses []string
	for _, host := range hosts {
		addresses = append(addresses, host+":27017")
	}
	return options.Client().SetHosts(addresses).SetReplicaSet(s.Name).SetDialer(s).
		SetServerSelectionTimeout(time.Minute).SetHeartbeatInterval(500 * time.Millisecond).SetWriteConcern(writeconcern.Majority()).
		SetAuth(options.Credential{Username: s.User, Password: s.Password, AuthSource: "admin"})
}

// DialContext reaches a service where its container is at the time.
func (s Set) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	service, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	running, err := testbed.Running(ctx, s.Engine, s.Project)
	if err != nil {
		return nil, err
	}
	address = testbed.Address(running[service])
	if address == "" {
		return nil, fmt.Errorf("no container runs %s", service)
	}
	return (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort(address, port))
}

// Term counts the set's elections.
func Term(ctx context.Context, c *mongo.Client) (int64, error) {
	var answer struct {
		Term int64 `bson:"term"`
	}
	err := c.Database("admin").RunCommand(ctx, bson.D{{Key: "replSetGetStatus", Value: 1}}).Decode(&answer)
	return answer.Term, err
}
