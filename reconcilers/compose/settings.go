package compose

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"dive-agent/desired"
)

// Settings are what a manifest says of one service.
type Settings struct {
	Drift       string   `yaml:"drift" enum:"correct,report,ignore" doc:"What is done about what was changed by hand on this service. Default: as for the stack."`
	MaxRestarts *int     `yaml:"maxRestarts" doc:"How often this service may end in a row before it is given up. Default: as for the stack."`
	Ignore      []string `yaml:"ignore" doc:"Fields of this service that may be changed by hand, beside those of the stack."`
}

// checkPolicies reports what is no field that may be left alone, and no number of restarts.
func (s *Spec) checkPolicies(c *desired.Check) {
	checkFields(c, s.Ignore, "ignore")
	if s.MaxRestarts < 0 {
		c.Errorf(c.At("maxRestarts"), "maxRestarts: it counts from 1; 0: a service is never given up")
	}
	for _, service := range sortedKeys(s.Services) {
		checkFields(c, s.Services[service].Ignore, "services", service, "ignore")
		if own := s.Services[service].MaxRestarts; own != nil && *own < 0 {
			c.Errorf(c.At("services", service, "maxRestarts"), "maxRestarts: it counts from 1; 0: service %s is never given up", service)
		}
	}
}

func checkFields(c *desired.Check, list []string, at ...string) {
	whole, kinds := ignorable()
	for i, field := range list {
		kind, name, _ := strings.Cut(field, " ")
		if slices.Contains(whole, field) || slices.Contains(kinds, kind) && strings.TrimSpace(name) != "" {
			continue
		}
		c.Errorf(c.At(append(at, strconv.Itoa(i))...), "ignore: there is no field %q%s. Fields are named as in the reasons of a plan, such as memory limit, or environment LOG_LEVEL", field, hint(whole, field))
	}
}

// hint names the field that is meant, where one is close: the same words in another spelling, or a part of them.
func hint(whole []string, field string) string {
	plain := func(text string) string {
		return strings.NewReplacer("_", "", "-", "", " ", "").Replace(strings.ToLower(text))
	}
	near := []func(a, b string) bool{
		func(a, b string) bool { return a == b }, strings.HasPrefix, strings.Contains,
		func(a, b string) bool { return len(a) > 4 && strings.Contains(b, a) },
	}
	for _, is := range near {
		for _, name := range whole {
			if is(plain(name), plain(field)) {
				return fmt.Sprintf(" (did you mean %q?)", name)
			}
		}
	}
	return ""
}

// checkSettings reports settings of services that are not there.
func (s *Spec) checkSettings(c *desired.Check, m *model) {
	for _, service := range sortedKeys(s.Services) {
		_, active := m.project.Services[service]
		_, off := m.project.DisabledServices[service]
		if !active && !off {
			c.Errorf(c.At("services", service), "services: the Compose file has no service %s", service)
		}
	}
}
