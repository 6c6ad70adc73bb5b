package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/moby/moby/client"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"dive-agent/testbed"
	"dive-agent/testbed/gitserver"
)

// How soon a replica set of one is of use.
const (
	mongoPrimary = "writable-primary"
	mongoUsers   = "writable-with-users"
)

// measurePrimary has an agent bring up three replica sets of one member, one after the other, and asks each mongod all the
// time, as nobody else does.
func measurePrimary(ctx context.Context, r *run) error {
	w := r.world
	a, err := w.launch(ctx, "mongo-01")
	if err != nil {
		return err
	}
	log := w.listen(ctx)
	var took, withUsers []time.Duration
	for i := range 3 {
		primary, users, err := w.timePrimary(ctx, a, log, fmt.Sprintf("mongo%d", i+1))
		if err != nil {
			return err
		}
		took, withUsers = append(took, primary), append(withUsers, users)
	}
	r.record(mongoUsers, median(withUsers).Seconds(), "s", 0.5, "from the first answer over the network until the user that services log in as is there; %s", spread(withUsers))
	r.record(mongoPrimary, median(took).Seconds(), "s", 1, "from the first answer over the network to isWritablePrimary; %s", spread(took))
	if err := a.stop(ctx); err != nil {
		return err
	}
	for i := range took { // what comes next wants a quiet machine
		if err := testbed.RemoveProject(ctx, w.engine, fmt.Sprintf("dive-bench-mongo%d", i+1)); err != nil {
			return err
		}
	}
	return nil
}

// timePrimary gives the times from when mongod takes connections until it is a writable primary, and until its user is
// there too, so that the start of the container and of mongod itself do not count.
func (w *world) timePrimary(ctx context.Context, a *agentProcess, log *engineLog, name string) (primary, users time.Duration, err error) {
	project := "dive-bench-" + name
	begun := time.Now()
	commit, err := w.merge("Add "+name, gitserver.Files{"instances/" + name + ".yaml": instanceManifest(name, "small-set", a.name, "project: "+project)})
	if err != nil {
		return 0, 0, err
	}
	if _, err := a.order(ctx, "/v1/poll"); err != nil {
		return 0, 0, err
	}
	started, err := log.await(ctx, project, "mongodb", "start", begun)
	if err != nil {
		return 0, 0, fmt.Errorf("%w\n%s", err, a.lastWords())
	}
	address, err := w.address(ctx, started.id)
	if err != nil {
		return 0, 0, err
	}
	var accepted time.Time
	err = testbed.Until(ctx, time.Minute, 2*time.Millisecond, name+" has a writable primary", func() error {
		said, err := hello(ctx, address)
		if err != nil {
			return err
		}
		if accepted.IsZero() {
			accepted = time.Now()
		}
		if !said.Primary {
			return errors.New("not yet")
		}
		return nil
	})
	if err != nil {
		return 0, 0, fmt.Errorf("%w\n%s", err, a.lastWords())
	}
	primary = time.Since(accepted)
	if err := awaitUser(ctx, a, name, address); err != nil {
		return 0, 0, fmt.Errorf("%w\n%s", err, a.lastWords())
	}
	users = time.Since(accepted)
	return primary, users, a.awaitReady(ctx, time.Minute, name, commit)
}

// awaitUser waits until the server knows the user of the set's services.
func awaitUser(ctx context.Context, a *agentProcess, name, address string) (err error) {
	password, err := a.secret(name, "MONGO_PASSWORD")
	if err != nil {
		return err
	}
	admin, err := mongo.Connect(options.Client().SetHosts([]string{address}).SetDirect(true).
		SetAuth(options.Credential{AuthSource: "admin", Username: "admin", Password: password}))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, admin.Disconnect(context.WithoutCancel(ctx))) }()
	return testbed.Until(ctx, time.Minute, 2*time.Millisecond, name+" knows its user", func() error {
		var answer struct {
			Users []bson.Raw `bson:"users"`
		}
		err := admin.Database("admin").RunCommand(ctx, bson.D{{Key: "usersInfo", Value: "app"}}).Decode(&answer)
		if err == nil && len(answer.Users) == 0 {
			return errors.New("not yet")
		}
		return err
	})
}

func (w *world) address(ctx context.Context, id string) (string, error) {
	shown, err := w.engine.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if err != nil {
		return "", err
	}
	for _, network := range shown.Container.NetworkSettings.Networks {
		return net.JoinHostPort(network.IPAddress.String(), "27017"), nil
	}
	return "", fmt.Errorf("container %.12s is in no network", id)
}

// helloAnswer is what a mongod says of itself.
type helloAnswer struct {
	Primary   bool `bson:"isWritablePrimary"`
	Secondary bool `bson:"secondary"`
}

// hello asks a mongod over a connection of its own: a driver would look twice a second only.
func hello(ctx context.Context, address string) (said helloAnswer, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return said, err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return said, err
	}
	body, err := bson.Marshal(bson.D{{Key: "hello", Value: 1}, {Key: "$db", Value: "admin"}})
	if err != nil {
		return said, err
	}
	const head, opMsg = 16, 2013
	message := make([]byte, head+5, head+5+len(body)) // header, flags, one section of kind 0
	binary.LittleEndian.PutUint32(message, uint32(cap(message)))
	binary.LittleEndian.PutUint32(message[12:], opMsg)
	if _, err := conn.Write(append(message, body...)); err != nil {
		return said, err
	}
	if _, err := io.ReadFull(conn, message); err != nil {
		return said, err
	}
	size := int(binary.LittleEndian.Uint32(message)) - len(message)
	if size < 5 || size > 1<<20 {
		return said, fmt.Errorf("an answer of %d bytes", size)
	}
	answer := make([]byte, size)
	if _, err := io.ReadFull(conn, answer); err != nil {
		return said, err
	}
	return said, bson.Unmarshal(answer, &said)
}
