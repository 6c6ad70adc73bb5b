package compose

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

// classLabel says what a failure of a service does to its instance.
const classLabel = "dive.service.class"

// The classes of services. core, which is the default, and infrastructure hold up a revision that they do not work with; optional
// and stretch ones only degrade the instance; an init service is done once it has exited with 0.
var classes = []string{"core", "infrastructure", "optional", "stretch", "init"}

// isMinor says whether a failure of the service holds nothing else up.
func isMinor(service types.ServiceConfig) bool {
	class := service.Labels[classLabel]
	return class == "optional" || class == "stretch"
}

// checkClasses reports classes that there are not.
func (s *Spec) checkClasses(c *desired.Check, m *model) {
	at := s.places(c)
	for _, name := range sortedKeys(m.project.Services) {
		class, ok := m.project.Services[name].Labels[classLabel]
		if ok && !slices.Contains(classes, class) {
			c.Errorf(at.find("services", name, "labels", classLabel), "service %s has the class %q: %s is one of %s", name, class, classLabel, strings.Join(classes, ", "))
		}
	}
}

// notTaken is a version of a minor service that did not become ready while the rest of its revision went on.
type notTaken struct {
	Version string `json:"version"`
	Message string `json:"message"`
}

// refusesVersion says whether the version that is wanted was tried and is not tried again by itself: what runs is an earlier one,
// or this one, still not ready.
func (st *serviceState) refusesVersion() bool {
	n := st.record.NotTaken
	if n == nil || n.Version != st.wanted() || st.target.Retry || !isMinor(st.service) {
		return false
	}
	refused := false
	for _, replica := range st.replicas() {
		switch {
		case len(replica.differs) > 0 && replica.serves(), // put back
			len(replica.differs) == 0 && replica.container != nil && replica.record.Pending != nil && !replica.ready(st.now):
			refused = true
		case len(replica.differs) > 0 || !replica.serves(): // what was put back ended
			return false
		}
	}
	return refused
}

func (st *serviceState) notTakenErr() error {
	return &reconcilers.BlockedError{
		Reason: "VersionNotTaken", Message: st.record.NotTaken.Message,
		Do: fmt.Sprintf("Correct service %s and merge, or try it again: dive-agent sync %s --retry", st.name, st.target.Instance.Name),
	}
}

// holdsNothingUp turns the rejection of a minor service's version into a failure of that service alone.
func (st *serviceState) holdsNothingUp(err error) error {
	var rejected *reconcilers.RejectedError
	if !isMinor(st.service) || !errors.As(err, &rejected) {
		return err
	}
	st.record.NotTaken = &notTaken{Version: st.wanted(), Message: rejected.Error() + quoted(rejected.Logs)}
	if err := st.record.write(st.recordPath(st.name)); err != nil {
		return err
	}
	return st.notTakenErr()
}
