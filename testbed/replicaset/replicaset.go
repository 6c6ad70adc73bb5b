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

// Set is where a replica set runs: services of a Compose project, under their names and the usual port.
type Set struct {
	Engine   *client.Client
	Project  string
	Name     string // of the set
	Password string // of its user admin
}

// Connect gives a client of the administrator that follows the set's primary and writes with majority concern. No
// connection is made yet.
func (s Set) Connect(services ...string) (*mongo.Client, error) {
	var hosts []string
	for _, service := range services {
		hosts = append(hosts, service+":27017")
	}
	return mongo.Connect(options.Client().SetHosts(hosts).SetReplicaSet(s.Name).SetDialer(s).
		SetServerSelectionTimeout(time.Minute).SetHeartbeatInterval(500 * time.Millisecond).SetWriteConcern(writeconcern.Majority()).
		SetAuth(options.Credential{Username: "admin", Password: s.Password, AuthSource: "admin"}))
}

// DialContext reaches a service where its container is at the time.
func (s Set) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	list, err := s.Engine.ContainerList(ctx, client.ContainerListOptions{Filters: testbed.OfProject(s.Project).Add("label", "com.docker.compose.service="+host)})
	if err != nil {
		return nil, err
	}
	for _, c := range list.Items {
		for _, n := range c.NetworkSettings.Networks {
			return (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort(n.IPAddress.String(), port))
		}
	}
	return nil, fmt.Errorf("no container runs %s", host)
}

// Term counts the set's elections.
func Term(ctx context.Context, c *mongo.Client) (int64, error) {
	var answer struct {
		Term int64 `bson:"term"`
	}
	err := c.Database("admin").RunCommand(ctx, bson.D{{Key: "replSetGetStatus", Value: 1}}).Decode(&answer)
	return answer.Term, err
}
