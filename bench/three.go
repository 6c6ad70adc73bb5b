package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"dive-agent/testbed"
	"dive-agent/testbed/gitserver"
)

const mongoThree = "three-members"

// trio are the services of three-set.
var trio = []string{"mongodb", "mongodb-2", "mongodb-3"}

// measureThree times replica sets of three new members, from the moment at which all three answer until one is PRIMARY
// and two are SECONDARY: by the agent, and by the best script there is, one replSetInitiate of all and replSetStepUp.
func measureThree(ctx context.Context, r *run) error {
	w := r.world
	a, err := w.launch(ctx, "mongo-03")
	if err != nil {
		return err
	}
	log := w.listen(ctx)
	var byAgent, byHand []time.Duration
	for i := range 3 {
		for _, way := range []struct {
			blueprint string
			took      *[]time.Duration
		}{{"three-set", &byAgent}, {"three-alone", &byHand}} {
			took, err := w.timeThree(ctx, a, log, fmt.Sprintf("%s-%d", way.blueprint, i+1), way.blueprint)
			if err != nil {
				return err
			}
			*way.took = append(*way.took, took)
		}
	}
	r.ratio(mongoThree, median(byAgent), median(byHand), 1.3, "from all three accepting to PRIMARY and two SECONDARY; medians of %s and %s", spread(byAgent), spread(byHand))
	if err := a.stop(ctx); err != nil {
		return err
	}
	for i := range 3 { // what comes next wants a quiet machine
		for _, blueprint := range []string{"three-set", "three-alone"} {
			if err := testbed.RemoveProject(ctx, w.engine, fmt.Sprintf("dive-bench-%s-%d", blueprint, i+1)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *world) timeThree(ctx context.Context, a *agentProcess, log *engineLog, name, blueprint string) (time.Duration, error) {
	project := "dive-bench-" + name
	begun := time.Now()
	commit, err := w.merge("Add "+name, gitserver.Files{"instances/" + name + ".yaml": instanceManifest(name, blueprint, a.name, "project: "+project)})
	if err != nil {
		return 0, err
	}
	if _, err := a.order(ctx, "/v1/poll"); err != nil {
		return 0, err
	}
	members := map[string]string{}
	for _, service := range trio {
		started, err := log.await(ctx, project, service, "start", begun)
		if err != nil {
			return 0, fmt.Errorf("%w\n%s", err, a.lastWords())
		}
		if members[service], err = w.address(ctx, started.id); err != nil {
			return 0, err
		}
	}
	if err := awaitMembers(ctx, members, name+" accepts connections", func(helloAnswer) bool { return true }, 3); err != nil {
		return 0, err
	}
	accepted := time.Now()
	if blueprint == "three-alone" {
		password, err := a.secret(name, "MONGO_PASSWORD")
		if err != nil {
			return 0, err
		}
		if err := initiateByHand(ctx, members[trio[0]], password); err != nil {
			return 0, err
		}
	}
	err = awaitMembers(ctx, members, name+" has a primary", func(h helloAnswer) bool { return h.Primary }, 1)
	if err == nil {
		err = awaitMembers(ctx, members, name+" has two secondaries", func(h helloAnswer) bool { return h.Secondary }, 2)
	}
	took := time.Since(accepted)
	if err == nil {
		err = a.awaitReady(ctx, time.Minute, name, commit)
	}
	if err != nil {
		return 0, fmt.Errorf("%w\n%s", err, a.lastWords())
	}
	return took, nil
}

// awaitMembers waits until so many members say what is hoped for.
func awaitMembers(ctx context.Context, members map[string]string, what string, hoped func(helloAnswer) bool, wanted int) error {
	return testbed.Until(ctx, time.Minute, 2*time.Millisecond, what, func() error {
		n := 0
		for _, address := range members {
			if said, err := hello(ctx, address); err == nil && hoped(said) {
				n++
			}
		}
		if n < wanted {
			return fmt.Errorf("%d of %d", n, wanted)
		}
		return nil
	})
}

// initiateByHand is the script.
func initiateByHand(ctx context.Context, address, password string) (err error) {
	client, err := mongo.Connect(options.Client().SetHosts([]string{address}).SetDirect(true).
		SetAuth(options.Credential{AuthSource: "admin", Username: "admin", Password: password}))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Disconnect(context.WithoutCancel(ctx))) }()
	var members bson.A
	for i, name := range trio {
		members = append(members, bson.D{{Key: "_id", Value: i}, {Key: "host", Value: net.JoinHostPort(name, "27017")}})
	}
	admin := client.Database("admin")
	initiate := bson.D{{Key: "replSetInitiate", Value: bson.D{{Key: "_id", Value: "rs0"}, {Key: "members", Value: members}}}}
	if err := admin.RunCommand(ctx, initiate).Err(); err != nil {
		return err
	}
	return testbed.Until(ctx, time.Minute, 20*time.Millisecond, "the member may be elected", func() error {
		return admin.RunCommand(ctx, bson.D{{Key: "replSetStepUp", Value: 1}}).Err()
	})
}
