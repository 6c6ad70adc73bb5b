package compose

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/compose/v5/pkg/api"
	"github.com/moby/moby/api/types/container"

	"dive-agent/reconcilers"
)

// replicas gives the states of all replicas, in the order of their numbers. Each has a record, and a last good version, of
// its own, so that one that was changed or removed alone is mended alone.
func (st *serviceState) replicas() []*serviceState {
	return append([]*serviceState{st}, st.rest...)
}

// recordPath is where the replica's record lies. A service's name has no @ in it.
func (st *serviceState) recordPath(service string) string {
	if st.number > 1 {
		service += "@" + strconv.Itoa(st.number)
	}
	return st.stack.recordPath(service)
}

func (st *serviceState) goodPath() string {
	return strings.TrimSuffix(st.recordPath(st.name), ".json") + ".good.json"
}

// address names the replica in a plan: the service alone, where it has one container.
func (st *serviceState) address() string {
	if st.number > 1 {
		return st.name + " replica " + strconv.Itoa(st.number)
	}
	return st.name
}

// several puts the replica's number before an error of a service that has several.
func (st *serviceState) several(err error) error {
	if err == nil || st.first == nil && len(st.rest) == 0 {
		return err
	}
	return fmt.Errorf("replica %d: %w", st.number, err)
}

// split makes the states of all replicas and gives the containers of each: by their number, where nobody has two, and
// otherwise whichever replica lacks one. What is left over is surplus.
func (st *serviceState) split(found []container.InspectResponse) (own [][]container.InspectResponse, err error) {
	scale := st.service.GetScale()
	st.wantName = st.containerName(st.name, 1)
	for number := 2; number <= scale; number++ {
		replica := *st
		replica.number, replica.first, replica.rest = number, st, nil
		replica.wantName = st.containerName(st.name, number)
		if replica.record, err = readRecord(replica.recordPath(st.name)); err != nil {
			return nil, err
		}
		st.rest = append(st.rest, &replica)
	}
	st.shareSalt()
	own = make([][]container.InspectResponse, scale)
	var left []container.InspectResponse
	for _, c := range found {
		if number := numberOf(c.Config.Labels); number >= 1 && number <= scale {
			own[number-1] = append(own[number-1], c)
		} else {
			left = append(left, c)
		}
	}
	slices.SortFunc(left, func(a, b container.InspectResponse) int { return numberOf(a.Config.Labels) - numberOf(b.Config.Labels) })
	for i := range own {
		if len(own[i]) == 0 && len(left) > 0 {
			own[i], left = left[:1], left[1:]
		}
	}
	st.surplus = left
	return own, nil
}

// shareSalt gives all records the salt of the first one. Where that record was lost, it takes the one that the others have: by
// another they would all look as if somebody had changed them.
func (st *serviceState) shareSalt() {
	if lost := st.record.Container == "" && st.record.Good == nil && st.record.Pending == nil; lost {
		for _, replica := range st.rest {
			if replica.record.Salt != "" {
				st.record.Salt = replica.record.Salt
				break
			}
		}
	}
	for _, replica := range st.rest {
		replica.record.Salt = st.record.Salt
	}
}

// numberOf is the number that Compose gave a container; 0 when it has none.
func numberOf(labels map[string]string) int {
	number, err := strconv.Atoi(labels[api.ContainerNumberLabel])
	if err != nil {
		return 0
	}
	return number
}

func isOneOf(id string, list []container.InspectResponse) bool {
	return slices.ContainsFunc(list, func(c container.InspectResponse) bool { return c.ID == id })
}

// planAll is the plan of all replicas: at most one change of each, and one for each container that is too many.
func (st *serviceState) planAll() reconcilers.Plan {
	if st.isPaused() || st.refusesVersion() {
		return reconcilers.Plan{State: st}
	}
	p := st.plan()
	for _, replica := range st.rest {
		p.Changes = append(p.Changes, replica.plan().Changes...)
	}
	for i := range st.surplus {
		p.Changes = append(p.Changes, st.surplusChange(&st.surplus[i]))
	}
	return p
}

// surplusChange is the change that removes a container beyond the number of replicas. Where several have one number, each has a
// change of its own, under its name.
func (st *serviceState) surplusChange(c *container.InspectResponse) reconcilers.Change {
	_, ours := c.Config.Labels[contentLabel]
	reason := "the service has one container"
	if scale := st.service.GetScale(); scale > 1 {
		reason = fmt.Sprintf("the service has %d replicas", scale)
	}
	return reconcilers.Change{
		Action: reconcilers.Delete, Address: "container " + strings.TrimPrefix(c.Name, "/"), Reason: reason + "; its volumes stay",
		Destroys: !ours && st.takesOver(c),
	}
}

// allStarted says whether every replica was started.
func (st *serviceState) allStarted() bool {
	return !slices.ContainsFunc(st.replicas(), func(replica *serviceState) bool { return !replica.started() })
}

// allNotReady says what keeps the first replica that is not ready from it.
func (r *Reconciler) allNotReady(ctx context.Context, st *serviceState) error {
	if st.isPaused() {
		return st.pausedError()
	}
	if st.refusesVersion() {
		return st.notTakenErr()
	}
	for _, replica := range st.replicas() {
		if err := r.notReady(ctx, replica); err != nil {
			return replica.several(err)
		}
	}
	return nil
}

// allFacts is what the status tells of the service: of several replicas the sum, and the state of the worst.
func (st *serviceState) allFacts() reconcilers.Facts {
	facts := st.facts()
	if len(st.rest) == 0 {
		return facts
	}
	well := 0
	worst := facts
	restarts := 0
	facts.Notes = nil
	for _, replica := range st.replicas() {
		one := replica.facts()
		facts.Notes = append(facts.Notes, one.Notes...)
		restarts += one.Service.Restarts
		if worseThan(one.Service, worst.Service) {
			worst = one
		}
		if one.Service.State == string(container.StateRunning) && (one.Service.Health == "" || one.Service.Health == string(container.Healthy)) {
			well++
		}
	}
	total := 1 + len(st.rest)
	summary := worst.Summary
	facts.Service = worst.Service
	facts.Service.Restarts = restarts
	facts.Summary = fmt.Sprintf("%d replicas %s", total, summary)
	if well < total {
		facts.Summary = fmt.Sprintf("%d of %d replicas are well, one is %s", well, total, summary)
	}
	return facts
}

// worseThan says whether a container is further from doing its work than another.
func worseThan(a, b *reconcilers.ServiceFacts) bool {
	rank := func(f *reconcilers.ServiceFacts) int {
		switch {
		case f.State != string(container.StateRunning):
			return 0
		case f.Health == string(container.Unhealthy):
			return 1
		case f.Health == string(container.Starting):
			return 2
		}
		return 3
	}
	return rank(a) < rank(b)
}

// forget removes what is remembered of a replica that there is not any more.
func (st *serviceState) forget(number int) error {
	replica := serviceState{stack: st.stack, name: st.name, number: number}
	if number < 2 {
		return nil
	}
	for _, path := range []string{replica.recordPath(st.name), replica.goodPath()} {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("forget %s: %w", filepath.Base(path), err)
		}
	}
	return nil
}
