package compose

import (
	"fmt"
	"maps"
	"slices"
)

// anyStep is one change of the stack, of a container by somebody else, or a fault.
func (s *walk) anyStep() (name string, do func()) {
	switch at := s.random.IntN(100); {
	case at < 45:
		edits := s.edits()
		key := slices.Sorted(maps.Keys(edits))[s.random.IntN(len(edits))]
		return "manifest, " + key, func() {
			next := s.declared.clone()
			edits[key](&next)
			s.declare(next)
		}
	case at < 55:
		bad := []string{badExits, badUnhealthy, badProgram, badImage, badLater}[s.random.IntN(5)]
		return "a new version, " + bad, func() { s.badVersion(bad) }
	case at < 58:
		return "an image's tag moves", s.moveTag
	case at < 63:
		cases := s.cases()
		key := slices.Sorted(maps.Keys(cases))[s.random.IntN(len(cases))]
		return key, cases[key]
	}
	faults := s.faults()
	key := slices.Sorted(maps.Keys(faults))[s.random.IntN(len(faults))]
	return key, faults[key]
}

// edit changes one service of a stack.
func (s *walk) edit(change func(*walkService)) func(*walkStack) {
	return func(next *walkStack) {
		name := s.anyOf(next.order())
		service := next.Services[name]
		change(&service)
		next.Services[name] = service
	}
}

func (s *walk) anyOf(list []string) string { return list[s.random.IntN(len(list))] }

// someOf draws a part of a list, which may be all or, where it may be empty, nothing.
func (s *walk) someOf(list []string, least int) []string {
	var some []string
	for _, at := range s.random.Perm(len(list)) {
		if len(some) < least || s.random.IntN(2) == 0 {
			some = append(some, list[at])
		}
	}
	return some
}

func (s *walk) edits() map[string]func(*walkStack) {
	return map[string]func(*walkStack){
		"environment":    s.edit(func(v *walkService) { v.Env++ }),
		"label":          s.edit(func(v *walkService) { v.Label++ }),
		"command":        s.edit(func(v *walkService) { v.Command++ }),
		"image":          s.edit(func(v *walkService) { v.Image = s.random.IntN(len(s.images)) }),
		"health check":   s.edit(func(v *walkService) { v.Check = !v.Check && !v.Job }),
		"memory limit":   s.edit(func(v *walkService) { v.Memory = 64 * s.random.IntN(3) }),
		"stop time":      s.edit(func(v *walkService) { v.Grace = s.random.IntN(3) }),
		"container name": s.edit(func(v *walkService) { v.Named = !v.Named && v.Scale == 0 }),
		"replicas": s.edit(func(v *walkService) {
			if !v.Job && !v.Named {
				v.Scale = s.random.IntN(3)
			}
		}),
		"order of updates": s.edit(func(v *walkService) {
			v.Order, v.AtATime = s.anyOf([]string{orderStartFirst, orderStopFirst}), s.random.IntN(3)
		}),
		"what follows on a failure": s.edit(func(v *walkService) {
			v.OnFailure = s.anyOf([]string{onFailureRollback, onFailurePause, onFailureContinue})
		}),
		"time to watch": s.edit(func(v *walkService) { v.Monitor = s.random.IntN(3) }),
		"volumes":       s.edit(func(v *walkService) { v.Volumes = s.someOf([]string{"more"}, 0) }),
		"networks of it": func(next *walkStack) {
			s.edit(func(v *walkService) { v.Networks = s.someOf(slices.Sorted(maps.Keys(next.Networks)), 1) })(next)
		},
		"restart policy": s.edit(func(v *walkService) {
			if !v.Job {
				v.Restart = s.anyOf([]string{"", "no", "always", "unless-stopped", "on-failure:5"})
			}
		}),
		"files of it": s.edit(func(v *walkService) { v.Uses = s.someOf([]string{"config", "secret", "bound"}, 0) }),
		"contents": func(next *walkStack) {
			if files := slices.Sorted(maps.Keys(next.files())); len(files) > 0 {
				next.Files[s.anyOf(files)]++
			}
		},
		"dependencies":       s.anyDependencies,
		"a service":          s.anyService,
		"a network":          s.anyNetwork,
		"a network's labels": func(next *walkStack) { next.Networks[s.anyOf(slices.Sorted(maps.Keys(next.Networks)))]++ },
		"nothing": func(next *walkStack) {
			next.Comment++ // a revision that says the same in other words
		},
		"several": func(next *walkStack) {
			for range 2 + s.random.IntN(2) {
				s.edit(func(v *walkService) { v.Env++ })(next)
			}
		},
	}
}

// anyDependencies are on services with a name before its own, so that there is no circle.
func (s *walk) anyDependencies(next *walkStack) {
	name := s.anyOf(next.order())
	service := next.Services[name]
	service.Depends = map[string]string{}
	for _, other := range next.order() {
		if other >= name || s.random.IntN(2) == 0 {
			continue
		}
		conditions := []string{"service_started", "restart"}
		if next.Services[other].Check {
			conditions = append(conditions, "service_healthy")
		}
		if next.Services[other].Job {
			conditions = []string{"service_completed_successfully"}
		}
		service.Depends[other] = s.anyOf(conditions)
	}
	next.Services[name] = service
}

// anyService comes or goes.
func (s *walk) anyService(next *walkStack) {
	name := s.anyOf([]string{"a", "b", "c", "d", "e"})
	if _, ok := next.Services[name]; ok && len(next.Services) > 2 {
		delete(next.Services, name)
		for other, service := range next.Services {
			delete(service.Depends, name)
			next.Services[other] = service
		}
		return
	} else if ok {
		return
	}
	next.Services[name] = walkService{Job: name == "d", Data: name != "c", Networks: s.someOf(slices.Sorted(maps.Keys(next.Networks)), 1), Check: name == "c"}
}

// anyNetwork comes, or goes with all that services say of it.
func (s *walk) anyNetwork(next *walkStack) {
	name := fmt.Sprintf("more%d", s.random.IntN(2))
	if _, ok := next.Networks[name]; !ok {
		next.Networks[name] = 0
		s.edit(func(v *walkService) { v.Networks = append(v.Networks, name) })(next)
		return
	}
	delete(next.Networks, name)
	for other, service := range next.Services {
		service.Networks = slices.DeleteFunc(service.Networks, func(n string) bool { return n == name })
		if len(service.Networks) == 0 {
			service.Networks = []string{"default"}
		}
		next.Services[other] = service
	}
}

// badVersion is merged on top of a stack that was reached: else the one to go back to would have more in it than this.
func (s *walk) badVersion(how string) {
	s.calm()
	next := s.declared.clone()
	long := slices.DeleteFunc(next.order(), func(name string) bool { return next.Services[name].Job })
	name := s.anyOf(long)
	service := next.Services[name]
	service.Bad = how
	if how == badLater {
		service.Monitor = 6
	}
	next.Services[name] = service
	s.declare(next)
}

// moveTag gives a tag another image, which works as well.
func (s *walk) moveTag() {
	s.moved++
	s.tagged(1+s.random.IntN(len(s.images)-1), fmt.Sprintf("ENV TAG=moved%d", s.moved))
}
