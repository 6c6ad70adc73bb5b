package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/moby/moby/client"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"dive-agent/testbed"
	"dive-agent/testbed/gitserver"
	"dive-agent/testbed/replicaset"
)

// What clients of a replica set feel, and how soon people know.
const (
	upgradeStall = "upgrade-stall"
	rollStall    = "roll-stall"
	primaryNamed = "primary-named"
)

// living is a replica set of three members in use.
type living struct {
	world         *world
	agent         *agentProcess
	name, project string
	client        *mongo.Client
	commit        string // merged last
}

// measureStalls has an agent bring a set of three members from 4.4.2 to 6.0.27 and change a variable of each, while a writer
// waits for a majority; then it kills the primary, again and again.
func measureStalls(ctx context.Context, r *run) error {
	w := r.world
	a, err := w.launch(ctx, "mongo-05")
	if err != nil {
		return err
	}
	l := &living{world: w, agent: a, name: "lived-in", project: livingProject}
	if err := l.become(ctx, testbed.Mongod442, "4.4", "first"); err != nil {
		return err
	}
	password, err := a.secret(l.name, "MONGO_PASSWORD")
	if err != nil {
		return err
	}
	l.client, err = mongo.Connect(replicaset.Set{Engine: w.engine, Project: l.project, Name: "rs0", User: "admin", Password: password}.Options(trio...))
	if err != nil {
		return err
	}
	err = l.measure(ctx, r)
	err = errors.Join(err, l.client.Disconnect(context.WithoutCancel(ctx)))
	if err != nil {
		return err
	}
	if err := a.stop(ctx); err != nil {
		return err
	}
	return testbed.RemoveProject(ctx, w.engine, l.project)
}

func (l *living) measure(ctx context.Context, r *run) error {
	writer := replicaset.StartWriter(ctx, l.client.Database("bench"))
	defer func() { _, _ = writer.Stop() }() // once more, where something failed
	for _, to := range []struct {
		image testbed.ImageName
		fcv   string
	}{{testbed.Mongod504, "4.4"}, {testbed.Mongod504, "5.0"}, {testbed.Mongod605, "5.0"}, {testbed.Mongod605, "6.0"}, {testbed.Mongod6027, "6.0"}} {
		if err := l.become(ctx, to.image, to.fcv, "first"); err != nil {
			return err
		}
	}
	upgrade := writer.Stall()
	if err := l.become(ctx, testbed.Mongod6027, "6.0", "second"); err != nil {
		return err
	}
	roll := writer.Stall()
	acknowledged, err := writer.Stop()
	if err != nil {
		return err
	}
	lost, err := replicaset.Lost(ctx, l.client.Database("bench"), acknowledged)
	if err != nil {
		return err
	}
	if len(lost) > 0 {
		return fmt.Errorf("%d of %d acknowledged writes are lost", len(lost), len(acknowledged))
	}
	r.record(upgradeStall, upgrade.Seconds(), "s", 2.5, "longest wait of a majority writer from 4.4.2 to 6.0.27, three rolls and two feature compatibility versions; %d writes, none lost", len(acknowledged))
	r.record(rollStall, roll.Seconds(), "s", 2.5, "the same while a variable of all three members changes")
	var named, gone []time.Duration
	for range 3 {
		after, whole, err := l.losePrimary(ctx)
		if err != nil {
			return err
		}
		named, gone = append(named, after), append(gone, whole)
	}
	r.record(primaryNamed, median(named).Seconds(), "s", 1, "from the election of another primary to the status that names it; %s; from the death on: %s", spread(named), spread(gone))
	return nil
}

// become merges what the members should be and waits until they are.
func (l *living) become(ctx context.Context, image testbed.ImageName, fcv, label string) (err error) {
	l.commit, err = l.world.merge("To "+string(image)+" with "+fcv, gitserver.Files{"instances/" + l.name + ".yaml": instanceManifest(l.name, "lived-in-set", l.agent.name,
		"project: "+l.project, "mongoImage: "+string(image), fmt.Sprintf("fcv: %q", fcv), "label: "+label)})
	if err != nil {
		return err
	}
	if _, err := l.agent.order(ctx, "/v1/poll"); err != nil {
		return err
	}
	return l.agent.awaitReady(ctx, 3*time.Minute, l.name, l.commit)
}

// losePrimary kills the primary and waits until all is well again. It gives how long the status took to name the new one,
// from its election and from the death on.
func (l *living) losePrimary(ctx context.Context) (after, whole time.Duration, err error) {
	running, err := testbed.Running(ctx, l.world.engine, l.project)
	if err != nil {
		return 0, 0, err
	}
	addresses, primary := map[string]string{}, ""
	for _, service := range trio {
		c, runs := running[service]
		if !runs {
			return 0, 0, fmt.Errorf("no container runs %s", service)
		}
		addresses[service] = net.JoinHostPort(testbed.Address(c), "27017")
		if said, err := hello(ctx, addresses[service]); err == nil && said.Primary {
			primary = service
		}
	}
	killed := time.Now()
	if _, err := l.world.engine.ContainerKill(ctx, running[primary].ID, client.ContainerKillOptions{Signal: "KILL"}); err != nil {
		return 0, 0, fmt.Errorf("kill the primary %q: %w", primary, err)
	}
	next := ""
	err = testbed.Until(ctx, time.Minute, 5*time.Millisecond, "another primary", func() error {
		for service, address := range addresses {
			if said, err := hello(ctx, address); service != primary && err == nil && said.Primary {
				next = service
				return nil
			}
		}
		return errors.New("not yet")
	})
	if err != nil {
		return 0, 0, err
	}
	elected := time.Now()
	err = testbed.Until(ctx, time.Minute, 10*time.Millisecond, "a status that names "+next, func() error {
		s, err := l.agent.status(ctx, l.name)
		if err != nil {
			return err
		}
		for _, m := range s.Members {
			if m.Host == next+":27017" && m.State == "PRIMARY" {
				return nil
			}
		}
		return errors.New("not yet")
	})
	after, whole = time.Since(elected), time.Since(killed)
	if err != nil {
		return 0, 0, err
	}
	return after, whole, l.agent.awaitReady(ctx, 2*time.Minute, l.name, l.commit)
}
