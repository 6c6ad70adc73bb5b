package keycloak

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	tfjson "github.com/hashicorp/terraform-json"
	"github.com/robfig/cron/v3"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

// The manifest's own gates come on top of the agent's one: whatever destroys waits for the approval of exactly that plan.
// protect, allow and maxChanges move that line; mode and applyWindow hold a plan, approved or not.

// Window is when changes may be applied.
type Window struct {
	Schedule string           `yaml:"schedule" required:"true" doc:"When it opens: five fields as in cron, in UTC unless it begins with CRON_TZ=Europe/Brussels or another zone, such as 0 2 * * 0 for Sundays at two. always: it is never closed."`
	Duration desired.Duration `yaml:"duration" default:"1h" doc:"How long it stays open. An apply that was begun in it is brought to its end."`
}

// The modes of a component.
const (
	modeApply    = "apply"
	modePlanOnly = "plan-only"
)

// always is a window that is never closed.
const always = "always"

// opens says whether the window is open, and when it opens next. An error says that the schedule is none.
func (w *Window) opens(now time.Time) (open bool, next time.Time, err error) {
	if w == nil || w.Schedule == always {
		return true, time.Time{}, nil
	}
	s, err := schedule(w.Schedule)
	if err != nil {
		return false, time.Time{}, err
	}
	if _, ok := s.(cron.ConstantDelaySchedule); ok {
		return false, time.Time{}, fmt.Errorf("@every counts from nowhere: give the hours and days")
	}
	now = now.UTC()
	next = s.Next(now.Add(-w.Duration.Std()))
	if next.IsZero() {
		return false, next, fmt.Errorf("it never opens")
	}
	return !next.After(now), next, nil
}

var resourceType = regexp.MustCompile(`^[a-z][a-z0-9]*_[a-z0-9_]+$`)

// validateGates checks the rules, and against the module's types what looks like a slip. A type that the module does not have
// (any more) is none: what goes with the last of it is what the rule is for.
func (s *Spec) validateGates(c *desired.Check, module moduleFiles) {
	for field, types := range map[string][]string{"protect": s.Protect, "allow": s.Allow} {
		for i, name := range types {
			at := c.At(field, fmt.Sprint(i))
			if !resourceType.MatchString(name) {
				c.Errorf(at, "%s: %q is not a type of resources, such as keycloak_realm", field, name)
			} else if near := slipOf(name, module.types); near != "" {
				c.Errorf(at, "%s: module %s has no resource of type %q%s", field, s.Module, name, near)
			}
			if field == "allow" && slices.Contains(s.Protect, name) {
				c.Errorf(at, "%s is protected and allowed at once", name)
			}
		}
	}
	if s.MaxChanges < 0 {
		c.Errorf(c.At("maxChanges"), "maxChanges must not be negative")
	}
	if s.ApplyWindow == nil {
		return
	}
	if _, _, err := s.ApplyWindow.opens(time.Unix(0, 0)); err != nil {
		c.Errorf(c.At("applyWindow", "schedule"), "schedule %q of applyWindow: %v", s.ApplyWindow.Schedule, err)
	}
	if s.ApplyWindow.Duration.Std() < time.Minute {
		c.Errorf(c.At("applyWindow", "duration"), "an applyWindow of less than a minute is never used")
	}
}

// slipOf suggests a type of the module that is near one that the module does not have. All begin with the provider's name,
// which says nothing.
func slipOf(name string, types []string) string {
	provider, rest, _ := strings.Cut(name, "_")
	var rests []string
	for _, one := range types {
		if one == name {
			return ""
		}
		if end, ok := strings.CutPrefix(one, provider+"_"); ok {
			rests = append(rests, end)
		}
	}
	return strings.Replace(desired.Suggest(rest, rests), `"`, `"`+provider+"_", 1)
}

// guard marks a change by the manifest's rules for its type.
func (s *Spec) guard(rc *tfjson.ResourceChange, c *reconcilers.Change) {
	switch {
	case c.Destroys && slices.Contains(s.Allow, rc.Type):
		c.Destroys = false
		c.Reason += "; allowed for " + rc.Type
	case c.Destroys || c.Action == reconcilers.Create || !slices.Contains(s.Protect, rc.Type):
	case rc.Change.Importing != nil && len(c.Details) == 0: // taken over as it is
	default:
		c.Asks = rc.Type + " is protected"
	}
}

// asks says why a plan as a whole waits for approval. A first apply into an empty realm changes nothing that is there.
func (l *look) asks(changes []reconcilers.Change) []string {
	n, first := 0, l.state == nil || l.state.managed() == 0
	for _, c := range changes {
		if isOutput(c) {
			continue
		}
		n++
		first = first && c.Action == reconcilers.Create && !c.Destroys
	}
	var why []string
	if l.lost != nil && l.record.Adopt {
		why = append(why, fmt.Sprintf("the Terraform state was lost (%v), and `adopt: true` stood in the manifest before that", l.lost))
	}
	if l.spec.MaxChanges == 0 || n <= l.spec.MaxChanges || first {
		return why
	}
	return append(why, fmt.Sprintf("%d changes, and maxChanges is %d", n, l.spec.MaxChanges))
}

func isOutput(c reconcilers.Change) bool { return strings.HasPrefix(c.Address, "output.") }

// held says what keeps a plan from being applied now.
func (l *look) held(changes []reconcilers.Change) error {
	if l.spec.Mode == modePlanOnly {
		return &reconcilers.BlockedError{
			Reason: "PlanOnly", Message: fmt.Sprintf("%s planned and not applied: the mode is plan-only", countOf(changes)),
			Do: "To have it applied, merge " + l.mergeLine("mode: "+modeApply),
		}
	}
	now := l.deps.Clock.Now()
	open, next, err := l.spec.ApplyWindow.opens(now)
	if open || l.cut != nil && l.record.Begun == l.in.digest {
		return err
	}
	return &reconcilers.WaitError{
		For: "its window, which opens " + next.Format("Mon 2006-01-02 15:04 MST"), Until: next,
		Do: "To have it applied before, merge " + l.mergeLine("applyWindow: {schedule: "+always+"}"),
	}
}

// mergeLine is what to merge to change a field of the component.
func (l *look) mergeLine(field string) string {
	return fmt.Sprintf("into %s: %s", l.target.Instance.Position.File, l.mergeText(field))
}

func (l *look) mergeText(field string) string {
	return fmt.Sprintf("spec: {components: {%s: {%s}}}", l.target.Component.Name, field)
}

// countOf is "2 to create, 1 to update" of a plan's resources.
func countOf(changes []reconcilers.Change) string {
	return counted(changes, map[reconcilers.Action]string{reconcilers.Create: "to create", reconcilers.Update: "to update", reconcilers.Replace: "to replace", reconcilers.Delete: "to delete"})
}

// madeOf is "2 created, 1 updated" of what was applied.
func madeOf(changes []reconcilers.Change) string {
	return counted(changes, map[reconcilers.Action]string{reconcilers.Create: "created", reconcilers.Update: "updated", reconcilers.Replace: "replaced", reconcilers.Delete: "deleted"})
}

func counted(changes []reconcilers.Change, words map[reconcilers.Action]string) string {
	counts := map[reconcilers.Action]int{}
	outputs := 0
	for _, c := range changes {
		if isOutput(c) {
			outputs++
			continue
		}
		counts[c.Action]++
	}
	var parts []string
	for _, action := range []reconcilers.Action{reconcilers.Create, reconcilers.Update, reconcilers.Replace, reconcilers.Delete} {
		if n := counts[action]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, words[action]))
		}
	}
	if len(parts) == 0 {
		return fmt.Sprintf("%d of outputs", outputs)
	}
	return strings.Join(parts, ", ")
}
