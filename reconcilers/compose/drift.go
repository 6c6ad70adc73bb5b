package compose

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"

	"dive-agent/reconcilers"
)

// What is done about what was changed by hand (Spec.Drift).
const (
	driftCorrect = "correct"
	driftReport  = "report"
	driftIgnore  = "ignore"
)

// comparison is how a container differs from what is wanted.
type comparison struct {
	changed  []string    // by the revision, by a tag that moved, or by what it depends on
	byHand   []deviation // by somebody
	replaced bool        // what is byHand is of another container than the one that was made
}

func (found *comparison) equal() bool { return len(found.changed)+len(found.byHand) == 0 }

// deviation is one field of a container that somebody changed.
type deviation struct{ field, text string }

// drifted is what somebody changed and what is left so.
type drifted struct {
	What  string    `json:"what"`
	Since time.Time `json:"since"` // when it was first seen
}

// compareLive sees what was changed on the container itself since it was made, or that it was replaced by one that
// only looks the same by its labels.
func (st *serviceState) compareLive(c *container.InspectResponse, found *comparison) error {
	if st.record.Pending != nil {
		return st.comparePending(c, found)
	}
	if len(st.record.Live) == 0 {
		return nil
	}
	now, err := st.record.live(c)
	if err != nil {
		return fmt.Errorf("digest container %s: %w", st.wantName, err)
	}
	added, removed, changed := difference(st.record.Live, now)
	for _, name := range added {
		found.byHand = append(found.byHand, st.deviation(name, "added", now[name], ""))
	}
	for _, name := range removed {
		found.byHand = append(found.byHand, st.deviation(name, "removed", "", st.record.Live[name]))
	}
	for _, name := range changed {
		found.byHand = append(found.byHand, st.deviation(name, "changed", now[name], st.record.Live[name]))
	}
	if st.otherImage(c) && c.Config.Image == st.service.Image {
		text := fmt.Sprintf("image %s with digest %s instead of %s", c.Config.Image, shortImage(c.Image), shortImage(st.imageID))
		found.byHand = append(found.byHand, deviation{"image", text})
	}
	found.replaced = st.record.Container != c.ID
	found.byHand = st.telling(found.byHand)
	return nil
}

// comparePending sees what was changed by hand on a container whose change is still pending, because the agent was cut off. Its
// names on networks change with the update; that it has all of them is seen to before it is good.
func (st *serviceState) comparePending(c *container.InspectResponse, found *comparison) error {
	p := st.record.Pending
	if p.Made == "" || p.Wanted != st.wanted() {
		return nil
	}
	now, err := st.record.live(c)
	if err != nil {
		return fmt.Errorf("digest container %s: %w", st.wantName, err)
	}
	added, removed, changed := difference(p.Live, now)
	for _, name := range added {
		if network, ok := strings.CutPrefix(name, "network "); !ok || !st.isOn(network) {
			found.byHand = append(found.byHand, st.deviation(name, "added", now[name], ""))
		}
	}
	for _, name := range removed {
		if !strings.HasPrefix(name, "network ") {
			found.byHand = append(found.byHand, st.deviation(name, "removed", "", p.Live[name]))
		}
	}
	for _, name := range changed {
		if !strings.HasPrefix(name, "network ") {
			found.byHand = append(found.byHand, st.deviation(name, "changed", now[name], p.Live[name]))
		}
	}
	found.replaced = p.Made != c.ID
	found.byHand = st.telling(found.byHand)
	return nil
}

// isOn says whether the service is to be on a network, by the network's name.
func (st *serviceState) isOn(network string) bool {
	for key := range st.service.Networks {
		if st.model.project.Networks[key].Name == network {
			return true
		}
	}
	return false
}

// deviation words one field that differs.
func (st *serviceState) deviation(name, verb, now, before string) deviation {
	if network, ok := strings.CutPrefix(name, "network "); ok {
		for key, declared := range st.model.project.Networks {
			if declared.Name == network {
				network = key
			}
		}
		words := map[string]string{"added": "on network ", "removed": "not on network ", "changed": "other names or another address on network "}
		return deviation{"network " + network, words[verb] + network}
	}
	now, plain := strings.CutPrefix(now, plainMark)
	before, wasPlain := strings.CutPrefix(before, plainMark)
	if !plain && !wasPlain {
		return deviation{name, name + " " + verb}
	}
	return deviation{name, fmt.Sprintf("%s %s instead of %s", name, orNone(now), orNone(before))}
}

// telling gives what is to be told, each field once, the image first. What only follows from how a container was made is told
// when there is nothing else.
func (st *serviceState) telling(all []deviation) []deviation {
	all = slices.DeleteFunc(all, func(d deviation) bool { return leftAlone(st.leaveAlone(), d.field) })
	slices.SortStableFunc(all, func(a, b deviation) int {
		if (a.field == "image") != (b.field == "image") {
			return map[bool]int{true: -1, false: 1}[a.field == "image"]
		}
		return strings.Compare(a.field, b.field)
	})
	published := func(d deviation) bool { return strings.HasPrefix(d.field, "port ") }
	if slices.ContainsFunc(all, published) {
		all = slices.DeleteFunc(all, func(d deviation) bool { return d.field == "expose" }) // follows from it
	}
	all = slices.CompactFunc(all, func(a, b deviation) bool { return a.field == b.field })
	ofTools := func(d deviation) bool {
		return strings.HasPrefix(d.field, "label com.docker.compose.") || d.field == "label "+contentLabel
	}
	if own := slices.DeleteFunc(slices.Clone(all), ofTools); len(own) > 0 {
		return own
	}
	return all
}

// replacedByHand says whether a container was put in the place of the one that was made, while nothing else was to change.
func (st *serviceState) replacedByHand(c *container.InspectResponse) bool {
	r := st.record
	return r.Container != "" && r.Container != c.ID && r.Pending == nil && len(r.Live) > 0 && r.Good != nil && r.Good.Hash == st.hash
}

// otherImage says whether a container that was put there by hand runs another image, while the wanted name leads to the one it
// always did.
func (st *serviceState) otherImage(c *container.InspectResponse) bool {
	return st.replacedByHand(c) && c.Image != st.imageID && st.record.Good.ImageID == st.imageID
}

// settle decides what the differences of the service's container lead to.
func (st *serviceState) settle(found comparison) {
	st.differs, st.lead, st.left = nil, "", nil
	if len(found.changed) == 0 && st.driftMode() != driftCorrect {
		st.left = found.byHand
		return
	}
	st.differs = found.changed
	for _, d := range found.byHand {
		st.differs = append(st.differs, d.text)
	}
	if len(found.changed) == 0 && len(found.byHand) > 0 {
		st.lead = "changed by hand: "
		if found.replaced {
			st.lead = "replaced by hand: "
		}
	}
}

// driftMode is what is done about changes by hand to this service.
func (st *serviceState) driftMode() string {
	if mode := st.spec.Services[st.name].Drift; mode != "" {
		return mode
	}
	return st.spec.drift()
}

// leaveAlone are the fields of the service that nobody is to look at.
func (st *serviceState) leaveAlone() []string {
	return append(slices.Clone(st.spec.Ignore), st.spec.Services[st.name].Ignore...)
}

// leaves says whether what is done to the service by hand is left so: the manifest says it, and asks for nothing else than what
// was ready before.
func (st *serviceState) leaves() bool {
	return st.driftMode() != driftCorrect && !st.oneShot && st.record.Pending == nil && st.record.Good != nil && st.known()
}

// stoppedByHand says what keeps a service that is left as it is from working; "" when nothing does.
func (st *serviceState) stoppedByHand() string {
	c := st.container
	switch {
	case !st.leaves() || st.foreign != "":
		return ""
	case c == nil:
		return "removed"
	case c.State.Paused:
		return "paused"
	case c.State.Running || c.State.Restarting || st.completed() || c.State.Status == "removing":
		return ""
	case c.State.Status == container.StateCreated && st.record.Container != c.ID:
		return "" // an interrupted start
	}
	return fmt.Sprintf("stopped with exit code %d", c.State.ExitCode)
}

// handMade lists all that was done to a service that is left as it is.
func (st *serviceState) handMade() []string {
	var words []string
	if what := st.stoppedByHand(); what != "" {
		words = append(words, what)
	}
	for _, d := range st.left {
		words = append(words, d.text)
	}
	if c := st.container; c != nil && st.leaves() && c.Name != "/"+st.wantName {
		words = append(words, "renamed to "+strings.TrimPrefix(c.Name, "/"))
	}
	return words
}

// keepDrift remembers since when what is left as it is was seen.
func (r *Reconciler) keepDrift(st *serviceState) error {
	now := sinceWhen(st.record.Drift, st.handMade(), r.clock.Now())
	if slices.Equal(now, st.record.Drift) {
		return nil
	}
	st.record.Drift = now
	return st.record.write(st.recordPath(st.name))
}

// sinceWhen joins what was known with what is seen now.
func sinceWhen(known []drifted, seen []string, now time.Time) []drifted {
	var all []drifted
	for _, what := range seen {
		d := drifted{What: what, Since: now.UTC().Truncate(time.Second)}
		if i := slices.IndexFunc(known, func(old drifted) bool { return old.What == what }); i >= 0 {
			d = known[i]
		}
		all = append(all, d)
	}
	return all
}

// driftNotes are for the status.
func (st *serviceState) driftNotes() (notes []string) {
	if st.driftMode() != driftReport {
		return nil
	}
	for _, d := range st.record.Drift {
		notes = append(notes, driftNote("service "+st.address(), d))
	}
	return notes
}

func driftNote(of string, d drifted) string {
	return fmt.Sprintf("%s was changed by hand: %s, first seen %s; left as it is (drift: report)", of, d.What, d.Since.UTC().Format("2006-01-02 15:04 UTC"))
}

// leftStopped is what the status says of a service that does not work and is left so.
func (st *serviceState) leftStopped() error {
	what := st.stoppedByHand()
	if what == "" {
		return nil
	}
	do := "Start it: docker start " + st.wantName
	switch what {
	case "paused":
		do = "Let it go on: docker unpause " + st.wantName
	case "removed":
		return &reconcilers.BlockedError{
			Reason: "LeftByDrift", Message: fmt.Sprintf("service %s was removed by hand, and drift: %s leaves it so", st.name, st.driftMode()),
			Do: "Merge drift: correct for it, and it is made again",
		}
	}
	return &reconcilers.BlockedError{
		Reason: "LeftByDrift", Message: fmt.Sprintf("service %s was %s by hand, and drift: %s leaves it so", st.name, what, st.driftMode()),
		Do: do + ". Or merge drift: correct for it",
	}
}
