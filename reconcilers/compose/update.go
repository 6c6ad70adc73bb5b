package compose

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"

	"dive-agent/desired"
)

// Update is how one service goes from a version to the next. What it does not say is as `deploy.update_config` of the Compose
// file says, and else as its defaults.
type Update struct {
	Order       string            `yaml:"order" enum:"stop-first,start-first" doc:"stop-first: the old container ends before the new one starts. start-first: the new one becomes healthy beside the old one, takes its names on the networks over, and only then the old one ends; not for a service with a port of the host, a container_name, an address of its own, or data that only one container may write. Default stop-first."`
	Parallelism *int              `yaml:"parallelism" doc:"How many replicas are changed at a time, 0 for all. Default 1."`
	Delay       *desired.Duration `yaml:"delay" doc:"How long to wait between them. Default none."`
	Monitor     *desired.Duration `yaml:"monitor" doc:"For how long a new container is watched after it became healthy: one that ends or gets unhealthy meanwhile does not work. Default none."`
	OnFailure   string            `yaml:"onFailure" enum:"rollback,pause,continue" doc:"What follows on a new container that does not work. rollback: the last good version is put back everywhere. pause: nothing more is changed until another version is merged. continue: it stays, and the others are changed too. Default rollback."`
}

const (
	orderStopFirst    = "stop-first"
	orderStartFirst   = "start-first"
	onFailureRollback = "rollback"
	onFailurePause    = "pause"
	onFailureContinue = "continue"
)

// policy is what holds for the updates of a service.
type policy struct {
	startFirst  bool
	parallelism int // 0: all
	delay       time.Duration
	monitor     time.Duration
	onFailure   string
}

// takePolicies takes out of the services what says how they are changed, not what they are: a container is not made anew for
// it. The number of replicas is none of it either, however it is written.
func (m *model) takePolicies() {
	m.updates, m.replicated = map[string]types.UpdateConfig{}, map[string]bool{}
	for name, service := range m.project.Services {
		if service.Deploy == nil {
			continue
		}
		deploy, scale := *service.Deploy, service.GetScale()
		if deploy.UpdateConfig != nil {
			m.updates[name] = *deploy.UpdateConfig
		}
		m.replicated[name] = deploy.Replicas != nil
		deploy.UpdateConfig, deploy.Replicas = nil, nil
		if m.replicated[name] {
			service.Scale = &scale
		}
		service.Deploy = &deploy
		if isNothing(deploy) {
			service.Deploy = nil
		}
		m.project.Services[name] = service
	}
}

// isNothing says whether a deploy section says nothing any more.
func isNothing(d types.DeployConfig) bool {
	fields, err := toFields(d)
	if err != nil {
		return false
	}
	for _, value := range fields {
		if !slices.Contains([]string{"{}", "null", `""`}, string(value)) {
			return false
		}
	}
	return true
}

// policyOf joins what the Compose file says of a service's updates and what the manifest says over it.
func (s *stack) policyOf(service string) policy {
	return s.spec.policyOf(service, s.model.updates[service])
}

func (s *Spec) policyOf(service string, composed types.UpdateConfig) policy {
	p := policy{
		startFirst: composed.Order == orderStartFirst, parallelism: 1,
		delay: time.Duration(composed.Delay), monitor: time.Duration(composed.Monitor), onFailure: onFailureRollback,
	}
	if composed.Parallelism != nil {
		p.parallelism = int(min(*composed.Parallelism, 1<<20))
	}
	if composed.FailureAction != "" {
		p.onFailure = composed.FailureAction
	}
	over, ok := s.Update[service]
	if !ok {
		return p
	}
	if over.Order != "" {
		p.startFirst = over.Order == orderStartFirst
	}
	if over.Parallelism != nil {
		p.parallelism = *over.Parallelism
	}
	if over.Delay != nil {
		p.delay = over.Delay.Std()
	}
	if over.Monitor != nil {
		p.monitor = over.Monitor.Std()
	}
	if over.OnFailure != "" {
		p.onFailure = over.OnFailure
	}
	return p
}

// obstacle says what of a service's definition stands against two containers of it at the same time; "" when nothing does.
// beside is how many more than its replicas there are for a while.
func obstacle(service types.ServiceConfig, beside int) string {
	if service.ContainerName != "" {
		return "it has the container_name " + service.ContainerName
	}
	for _, port := range service.Ports {
		if taken := portClaims(port); len(taken) > 0 && len(taken) < service.GetScale()+beside {
			return "it publishes port " + port.Published + " of the host"
		}
	}
	if mode := service.NetworkMode; mode == "host" || strings.HasPrefix(mode, types.ServicePrefix) || strings.HasPrefix(mode, types.ContainerPrefix) {
		return "it runs in the network of " + mode
	}
	if service.MacAddress != "" {
		return "it has the mac_address " + service.MacAddress
	}
	for _, key := range sortedKeys(service.Networks) {
		network := service.Networks[key]
		if network == nil {
			continue
		}
		for _, address := range []string{network.Ipv4Address, network.Ipv6Address, network.MacAddress} {
			if address != "" {
				return "it has the address " + address + " in network " + key
			}
		}
	}
	return ""
}

// dataOfOne says which of a service's data only one container may write; "" when there is none. Of a service with replicas
// several containers write to what it names.
func dataOfOne(service types.ServiceConfig) string {
	for _, volume := range service.Volumes {
		switch {
		case volume.Type == types.VolumeTypeVolume && volume.Source == "":
			return "volume " + volume.Target + " has no name, so the new container would begin with an empty one"
		case volume.ReadOnly || service.GetScale() > 1:
		case volume.Type == types.VolumeTypeVolume:
			return "it writes to volume " + volume.Source
		case volume.Type == types.VolumeTypeBind:
			return "it writes to " + volume.Target + ", a folder of the host"
		}
	}
	return ""
}

// againstStartFirst says what stands against a container that starts beside the old one; "" when nothing does.
func (st *serviceState) againstStartFirst() string {
	if against := obstacle(st.service, 1); against != "" {
		return against
	}
	if against := dataOfOne(st.service); against != "" {
		return against
	}
	if st.oneShot {
		return "it is done once it has run"
	}
	if st.image == nil || st.image.Config == nil {
		return ""
	}
	for target := range st.image.Config.Volumes {
		if !slices.ContainsFunc(st.service.Volumes, func(v types.ServiceVolumeConfig) bool { return v.Target == target }) {
			return "its image has volume " + target + ", which has no name, so the new container would begin with an empty one"
		}
	}
	return ""
}

// sayOrder is what the plan says of how a replica is replaced, where a start beside the old container is asked for.
func (st *serviceState) sayOrder() []string {
	if !st.policy.startFirst || !st.serves() {
		return nil
	}
	if against := st.againstStartFirst(); against != "" {
		return []string{"stop-first, not start-first as declared: " + against}
	}
	words := []string{"start-first: the old container serves until the new one is healthy"}
	if open := st.openNetworks(); len(open) > 0 {
		words = append(words, "network "+strings.Join(open, ", ")+" has no addresses in reserve, so names on it lead to the new container before it is healthy, and to the old one until it ends")
	}
	return words
}

// checkUpdates refuses what says nothing that could be done.
func (s *Spec) checkUpdates(c *desired.Check, m *model) {
	at := s.places(c)
	for _, name := range sortedKeys(s.Update) {
		service, ok := m.project.Services[name]
		if !ok {
			c.Errorf(c.At("update", name), "update: the Compose file has no active service %s", name)
			continue
		}
		u := s.Update[name]
		if u.Parallelism != nil && *u.Parallelism < 0 {
			c.Errorf(c.At("update", name, "parallelism"), "parallelism is %d: give the number of replicas that are changed at a time, or 0 for all", *u.Parallelism)
		}
		if u.Order != orderStartFirst {
			continue
		}
		against := obstacle(service, 1)
		if against == "" {
			against = dataOfOne(service)
		}
		if against != "" {
			c.Errorf(c.At("update", name, "order"), "service %s cannot start beside its old container: %s", name, against)
		}
	}
	for _, name := range sortedKeys(m.updates) {
		composed := m.updates[name]
		refuse := func(format string, args ...any) {
			c.Errorf(at.find("services", name, "deploy", "update_config"), "update_config of service "+name+": "+format, args...)
		}
		if !slices.Contains([]string{"", onFailureRollback, onFailurePause, onFailureContinue}, composed.FailureAction) {
			refuse("failure_action %q is none of rollback, pause, continue", composed.FailureAction)
		}
		if !slices.Contains([]string{"", orderStopFirst, orderStartFirst}, composed.Order) {
			refuse("order %q is none of stop-first, start-first", composed.Order)
		}
		if composed.MaxFailureRatio > 0 {
			refuse("max_failure_ratio is not supported: the first replica that does not work decides")
		}
	}
}

// checkReplicas refuses replicas that cannot run beside each other.
func (m *model) checkReplicas(name string, refuse func(key, format string, args ...any)) {
	service := m.project.Services[name]
	scale := service.GetScale()
	if scale == 1 {
		return
	}
	key := "scale"
	if m.replicated[name] {
		key = "deploy"
	}
	if scale < 1 || scale > maxReplicas {
		refuse(key, "service %s has %s replicas: give 1 to %d, and turn a service off by a profile", name, strconv.Itoa(scale), maxReplicas)
	} else if against := obstacle(service, 0); against != "" {
		refuse(key, "service %s cannot have %d replicas: %s", name, scale, against)
	}
}

// maxReplicas is how many containers one service of one host may have.
const maxReplicas = 100
