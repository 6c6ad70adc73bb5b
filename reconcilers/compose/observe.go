package compose

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/containerd/errdefs"
	"github.com/docker/compose/v5/pkg/api"
	sdk "github.com/docker/compose/v5/pkg/compose"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"dive-agent/reconcilers"
)

// serviceState is what one look at a service saw, and all that its plan and apply need.
type serviceState struct {
	*stack
	name     string
	now      time.Time // of the look
	service  types.ServiceConfig
	wantName string // of the container

	// A service has as many of these as it has replicas: the first holds the others, and what they have in common.
	number  int // from 1
	rest    []*serviceState
	first   *serviceState               // of the others
	surplus []container.InspectResponse // of the first: containers beyond the number of replicas

	container *container.InspectResponse  // the one that counts; nil when there is none
	differs   []string                    // why it must be made anew
	lead      string                      // what all of differs has in common, such as "changed by hand: "
	left      []deviation                 // what somebody changed on it and what is left so
	extras    []container.InspectResponse // leftovers of the same service
	foreign   string                      // a container of another owner that has our name, so that ours cannot have it

	hash     string
	image    *client.ImageInspectResult
	moved    *move  // of the image's tag, in the registry
	imageID  string // of the wanted image; empty when the host does not have it
	networks map[string]string
	reserved map[string]netip.Prefix // network name -> addresses in reserve, of networks that have some
	content  string
	contents map[string]string
	lacking  *reconcilers.BlockedError // a secret file that is not there (yet): nothing is applied without it
	parents  map[string]string
	oneShot  bool
	record   record

	policy policy
	made   string // ID of the container that was brought and is not noted yet
	beside string // ID of one that was started beside another

	unknown   []string // inputs that are not known yet
	variables []string // variables that they come in by
}

// observeService looks at all that decides whether the service is as wanted. A service that is not ready is no failure to
// observe: that is in Observed.Err, beside the facts.
func (r *Reconciler) observeService(ctx context.Context, s *stack) (reconcilers.Observed, error) {
	st := &serviceState{stack: s, name: s.target.Part, service: s.model.project.Services[s.target.Part], number: 1}
	st.unknown, st.variables = s.unknowns(st.name)
	st.oneShot = s.model.oneShot(st.name)
	st.policy = s.policyOf(st.name)
	var err error
	if st.record, err = readRecord(st.recordPath(st.name)); err != nil {
		return reconcilers.Observed{}, err
	}
	if st.record.Salt == "" {
		st.record.Salt = rand.Text()
	}
	if err := r.lookAround(ctx, st); err != nil {
		return reconcilers.Observed{}, err
	}
	st.now = r.clock.Now()
	if err := r.lookAtContainers(ctx, st); err != nil {
		return reconcilers.Observed{}, err
	}
	for _, replica := range st.replicas() {
		if err := r.countEnds(ctx, replica); err != nil {
			return reconcilers.Observed{}, err
		}
		if err := r.remember(replica); err != nil {
			return reconcilers.Observed{}, err
		}
		if err := r.keepDrift(replica); err != nil {
			return reconcilers.Observed{}, err
		}
	}
	return reconcilers.Observed{
		Facts: st.allFacts(), Started: st.allStarted(), Err: r.allNotReady(ctx, st), State: st,
	}, nil
}

// lookAround gathers what the wanted container depends on: image, networks, secret files, containers it is tied to.
func (r *Reconciler) lookAround(ctx context.Context, st *serviceState) error {
	image, err := r.inspectImage(ctx, st.service.Image)
	switch {
	case err == nil:
		st.imageID, st.image = image.ID, &image
		st.moved = st.movedTag()
	case !errdefs.IsNotFound(err):
		return fmt.Errorf("look at image %s: %w", st.service.Image, err)
	}
	if st.networks, st.reserved, err = r.networkIDs(ctx); err != nil {
		return err
	}
	if st.content, st.contents, err = st.model.content[st.name].contentDigest(); err != nil {
		st.lacking = &reconcilers.BlockedError{
			Reason: "SecretFileMissing", Message: "service " + st.name + " needs a file that is not there", Err: err,
			Do: "Declare the secret with a file, or put it on the host",
		}
	}
	return r.resolveParents(ctx, st)
}

// networkIDs gives all networks of the host by name, and the addresses in reserve of those that have some; of several with one
// name, the one made first.
func (r *Reconciler) networkIDs(ctx context.Context) (ids map[string]string, reserved map[string]netip.Prefix, err error) {
	list, err := r.allNetworks(ctx)
	if err != nil {
		return nil, nil, err
	}
	ids, reserved = map[string]string{}, map[string]netip.Prefix{}
	made := map[string]time.Time{}
	for _, network := range list {
		if first, ok := made[network.Name]; !ok || network.Created.Before(first) {
			ids[network.Name], made[network.Name] = network.ID, network.Created
			delete(reserved, network.Name)
			if reserve := reserveOf(network.Labels); reserve.IsValid() {
				reserved[network.Name] = reserve
			}
		}
	}
	return ids, reserved, nil
}

// resolveParents finds the containers that the service shares a namespace with or is restarted with, and gives the
// definition the hash that Compose stores: with references to services replaced by those containers.
func (r *Reconciler) resolveParents(ctx context.Context, st *serviceState) error {
	st.hash = st.model.hashes[st.name]
	st.parents = map[string]string{}
	service := st.service
	service.VolumesFrom = slices.Clone(service.VolumesFrom)
	refs := namespaceRefs(&service)
	for name, dependency := range service.DependsOn {
		if dependency.Restart {
			st.parents[name] = ""
		}
	}
	for _, ref := range refs {
		st.parents[ref.service] = ""
	}
	for name := range st.parents {
		list, err := r.serviceContainers(ctx, st.project, name)
		if err != nil {
			return err
		}
		list = slices.DeleteFunc(list, func(c container.Summary) bool { return c.Labels[api.OneoffLabel] != "False" })
		if len(list) > 0 {
			st.parents[name] = firstOf(list).ID
		}
	}
	if len(refs) == 0 {
		return nil
	}
	for _, ref := range refs {
		ref.set(st.parents[ref.service])
	}
	var err error
	st.hash, err = sdk.ServiceHash(service)
	return err
}

type namespaceRef struct {
	service string
	set     func(id string)
}

// namespaceRefs finds the references of a service to the containers of other services.
func namespaceRefs(service *types.ServiceConfig) []namespaceRef {
	var refs []namespaceRef
	for _, field := range []*string{&service.NetworkMode, &service.Ipc, &service.Pid} {
		if name, ok := strings.CutPrefix(*field, types.ServicePrefix); ok {
			refs = append(refs, namespaceRef{name, func(id string) { *field = types.ContainerPrefix + id }})
		}
	}
	for i, from := range service.VolumesFrom {
		if !strings.HasPrefix(from, types.ContainerPrefix) {
			name, _, _ := strings.Cut(from, ":")
			refs = append(refs, namespaceRef{name, func(id string) { service.VolumesFrom[i] = id }})
		}
	}
	return refs
}

// lookAtContainers finds the service's containers, and which of them counts for each replica.
func (r *Reconciler) lookAtContainers(ctx context.Context, st *serviceState) error {
	found, err := r.containersOf(ctx, st)
	if err != nil {
		return err
	}
	own, err := st.split(found)
	if err != nil {
		return err
	}
	for i, replica := range st.replicas() {
		if err := replica.choose(own[i]); err != nil {
			return err
		}
		replica.recoverRecord()
		if c := replica.container; c != nil && (c.Name == "/"+replica.wantName || replica.leaves()) {
			continue
		}
		taken, err := r.engine.ContainerInspect(ctx, replica.wantName, client.ContainerInspectOptions{})
		if err == nil && taken.Container.Name == "/"+replica.wantName && !isOneOf(taken.Container.ID, found) {
			replica.foreign = taken.Container.ID
		} else if err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("look for a container named %s: %w", replica.wantName, err)
		}
	}
	return nil
}

// containersOf inspects all containers of the service. Inspect, not the list, tells their state: right after a container
// died the list still says that it runs, while inspect answers when the state is settled.
func (r *Reconciler) containersOf(ctx context.Context, st *serviceState) ([]container.InspectResponse, error) {
	list, err := r.serviceContainers(ctx, st.project, st.name)
	if err != nil {
		return nil, err
	}
	var found []container.InspectResponse
	for _, item := range list {
		if item.Labels[api.OneoffLabel] == "True" || item.Labels[api.HookLabel] != "" {
			continue
		}
		c, err := r.inspect(ctx, item)
		if errdefs.IsNotFound(err) {
			if reconcilers.InSurvey(ctx) { // the list is from a moment ago: there may be another one
				return r.containersOf(reconcilers.Alone(ctx), st)
			}
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("inspect container %s: %w", item.ID[:12], err)
		}
		st.asDeclared(c)
		found = append(found, *c)
	}
	return found, nil
}

// choose picks the container that counts: one that is as it should be, else the one with the right name, else the
// newest. The others are leftovers of a change that was cut off.
func (st *serviceState) choose(found []container.InspectResponse) error {
	rank := func(c container.InspectResponse, found comparison) int {
		rank := 0
		if found.equal() {
			rank += 4
		}
		if c.State.Running {
			rank += 2
		}
		if c.Name == "/"+st.wantName {
			rank++
		}
		return rank
	}
	best := -1
	for i, c := range found {
		differences, err := st.compare(&c)
		if err != nil {
			return err
		}
		score := rank(c, differences)
		if st.container == nil || score > best || (score == best && c.Created > st.container.Created) {
			st.container, best = &found[i], score
			st.settle(differences)
		}
	}
	for _, c := range found {
		if c.ID != st.container.ID {
			st.extras = append(st.extras, c)
		}
	}
	return nil
}

// remember keeps how the container looks when it is as it should be and no change is pending: from then on changes
// made by hand are seen. Once it is ready it is the version to go back to. That is how a stack that was started by hand is
// taken over.
func (r *Reconciler) remember(st *serviceState) error {
	c := st.container
	if c == nil || st.lacking != nil || len(st.differs)+len(st.left) > 0 || len(st.extras) > 0 || st.record.Pending != nil || st.refuses() {
		return nil
	}
	noted := st.record.Container == c.ID && len(st.record.Live) > 0
	good := st.record.Good != nil && st.record.Good.Container == c.ID
	if noted && (good || !st.ready(r.clock.Now())) || !st.started() {
		return nil
	}
	if !good && st.ready(r.clock.Now()) {
		if err := st.keepGood(c); err != nil {
			return err
		}
	}
	return st.note(c)
}

// ready says whether the service runs and its health check, if it has one, says that it is well.
func (st *serviceState) ready(now time.Time) bool {
	c := st.container
	if !st.started() || st.oneShot && !st.completed() {
		return false
	}
	if hasHealthCheck(c) {
		return c.State.Health.Status == container.Healthy
	}
	at, err := time.Parse(time.RFC3339Nano, c.State.StartedAt)
	return st.completed() || err == nil && now.Sub(at) > stableTime
}

// isNoted says whether the record is of this container.
func (st *serviceState) isNoted(c *container.InspectResponse) bool {
	return st.record.Container == c.ID && len(st.record.Live) > 0
}

// note writes a record of the container as it is now. What is known of one that was there before stays: somebody may have
// changed it since it was looked at, and that is for the next look to find.
func (st *serviceState) note(c *container.InspectResponse) error {
	live := st.record.Live
	if !st.isNoted(c) {
		var err error
		if live, err = st.record.live(c); err != nil {
			return fmt.Errorf("digest container %s: %w", st.wantName, err)
		}
	}
	definition, err := st.record.definition(st.service)
	if err != nil {
		return fmt.Errorf("digest the definition of service %s: %w", st.name, err)
	}
	st.record.StandsFor = ""
	if c.Config.Labels[api.ConfigHashLabel] != st.hash {
		st.record.StandsFor = st.hash
	}
	st.record.Container, st.record.Live, st.record.Definition = c.ID, live, definition
	st.record.Content, st.record.Parents, st.record.Networks, st.record.Drift = st.contents, st.parents, map[string]string{}, nil
	for _, key := range sortedKeys(st.service.Networks) {
		name := st.model.project.Networks[key].Name
		st.record.Networks[name] = st.networks[name]
	}
	return st.record.write(st.recordPath(st.name))
}

// completed says whether the service has done all it is for.
func (st *serviceState) completed() bool {
	return st.container != nil && st.container.State.Status == container.StateExited && st.container.State.ExitCode == 0 &&
		(st.oneShot || mayComplete(st.service))
}

func (st *serviceState) started() bool {
	c := st.container
	return c != nil && len(st.differs) == 0 && (c.State.Running && !c.State.Paused && !c.State.Restarting || st.completed())
}
