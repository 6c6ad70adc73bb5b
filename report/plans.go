package report

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"dive-agent/state"
)

// Plan is a plan that waits for approval, or that did. It holds no secret.
type Plan struct {
	Node     string       `json:"node"`
	Digest   string       `json:"digest"`
	Manifest string       `json:"manifest"` // file of the fleet repository that an approval goes into
	Revision string       `json:"revision"` // full commit id of what it was made for
	Since    time.Time    `json:"since"`
	Ended    time.Time    `json:"ended,omitzero"` // when it was seen to wait no longer; zero: it waits
	Changes  []PlanChange `json:"changes"`
}

// PlanChange is one change of a plan.
type PlanChange struct {
	Action   string    `json:"action"`
	Address  string    `json:"address"`
	Reason   string    `json:"reason"`
	Destroys bool      `json:"destroys,omitempty"`
	Sets     []PlanSet `json:"sets,omitempty"`
}

// PlanSet is one attribute that a change sets.
type PlanSet struct {
	Path   string `json:"path"`
	Before string `json:"before,omitempty"`
	After  string `json:"after,omitempty"`
}

// PlanLink is what a status tells of a plan; the rest stands in the file that Page names, beside it.
type PlanLink struct {
	Node    string    `json:"node" yaml:"node"`
	Digest  string    `json:"digest" yaml:"digest"`
	Waits   bool      `json:"waits" yaml:"waits"`
	Changes int       `json:"changes" yaml:"changes"`
	Destroy int       `json:"destroy,omitempty" yaml:"destroy,omitempty"` // how many of the changes destroy
	Since   time.Time `json:"since" yaml:"since"`
	Into    string    `json:"into,omitempty" yaml:"into,omitempty"`       // the manifest that an approval goes into
	Approve string    `json:"approve,omitempty" yaml:"approve,omitempty"` // the line that lets exactly this plan through
	Page    string    `json:"page" yaml:"page"`
}

const (
	// plansKept is how many plans that wait no longer are kept.
	plansKept = 5
	// planPage bounds a page in bytes.
	planPage = 64 << 10
)

func plansKey(instance string) string { return state.Key(instance, "plans") }

// Plans reads the plans of an instance: those that wait first, then the newest.
func Plans(r state.Reader, instance string) ([]Plan, error) {
	value, err := r.Value(plansKey(instance))
	if errors.Is(err, state.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var plans []Plan
	if err := json.Unmarshal(value, &plans); err != nil {
		return nil, fmt.Errorf("read the plans of %s: %w", instance, err)
	}
	return plans, nil
}

// KeepPlans keeps the plans of an instance that wait now, and of the others the last ones. A plan that waited before keeps
// the time since when; nothing is written when nothing changed.
func KeepPlans(tx state.Tx, instance string, waiting []Plan, now time.Time) ([]Plan, error) {
	old, err := Plans(tx, instance)
	if err != nil {
		old = nil // what cannot be read is made anew
	}
	plans := merged(old, waiting, now)
	before, err := json.Marshal(old)
	if err != nil {
		return nil, err
	}
	after, err := json.Marshal(plans)
	if err != nil || string(before) == string(after) {
		return plans, err
	}
	return plans, tx.PutValue(plansKey(instance), after)
}

func merged(old, waiting []Plan, now time.Time) []Plan {
	same := func(p Plan) func(Plan) bool {
		return func(q Plan) bool { return p.Node == q.Node && p.Digest == q.Digest }
	}
	var plans, ended []Plan
	for _, p := range waiting {
		p.Since, p.Ended = now, time.Time{}
		if at := slices.IndexFunc(old, same(p)); at >= 0 && old[at].Ended.IsZero() {
			p.Since, p.Revision = old[at].Since, old[at].Revision
		}
		plans = append(plans, p)
	}
	for _, p := range old {
		if slices.ContainsFunc(waiting, same(p)) {
			continue
		}
		if p.Ended.IsZero() {
			p.Ended = now
		}
		ended = append(ended, p)
	}
	slices.SortStableFunc(ended, func(a, b Plan) int { return b.Ended.Compare(a.Ended) })
	slices.SortStableFunc(plans, func(a, b Plan) int { return cmp.Compare(a.Node, b.Node) })
	return append(plans, ended[:min(len(ended), plansKept)]...)
}

// Link is what a status tells of the plan.
func (p Plan) Link() PlanLink {
	link := PlanLink{Node: p.Node, Digest: p.Digest, Waits: p.Ended.IsZero(), Changes: len(p.Changes), Since: p.Since, Page: p.file()}
	for _, c := range p.Changes {
		if c.Destroys {
			link.Destroy++
		}
	}
	if link.Waits {
		link.Into, link.Approve = p.Manifest, ApproveLine(p.Node, p.Digest)
	}
	return link
}

func (p Plan) file() string { return "plans/" + p.Digest + ".md" }

// ApproveLine is what to merge into an instance's manifest to let exactly the plan of this digest through.
func ApproveLine(node, digest string) string {
	return fmt.Sprintf("spec: {approve: {%s: %s}}", node, digest)
}

// Page is the plan as plans/<digest>.md of the status branch, no longer than 64 KiB: where it would be, first what the
// changes set is left out, then the last ones of the changes.
func (p Plan) Page(instance string) []byte {
	page := p.page(instance, true, len(p.Changes))
	for rows := len(p.Changes); len(page) > planPage && rows > 0; rows /= 2 {
		page = p.page(instance, false, rows)
	}
	return []byte(page)
}

func (p Plan) page(instance string, sets bool, rows int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s: plan of %s\n\n", escape(instance), escape(p.Node))
	if p.Ended.IsZero() {
		fmt.Fprintf(&b, "Waits for approval since %s. To let exactly this plan through, merge into %s:\n\n", moment(p.Since), code(p.Manifest))
		fmt.Fprintf(&b, "```yaml\n%s\n```\n\n", ApproveLine(p.Node, p.Digest))
	} else {
		fmt.Fprintf(&b, "Waited for approval from %s; since %s it does no longer: it was approved, or what it was made for changed.\n\n", moment(p.Since), moment(p.Ended))
	}
	var all, values [][]string
	for _, c := range p.Changes[:rows] {
		what := escape(c.Action)
		if c.Destroys {
			what += ", **destroys**"
		}
		all = append(all, []string{what, code(c.Address), escape(c.Reason)})
		for _, s := range c.Sets {
			values = append(values, []string{code(c.Address), code(s.Path), code(s.Before), code(s.After)})
		}
	}
	table(&b, "Changes", []string{"Action", "What", "Why"}, all)
	if rows < len(p.Changes) {
		fmt.Fprintf(&b, "and %d more\n\n", len(p.Changes)-rows)
	}
	if sets {
		table(&b, "What is set", []string{"What", "Attribute", "Before", "After"}, values)
	} else {
		b.WriteString("What is set is too long for this page; `dive-agent plan` on the host shows it.\n\n")
	}
	fmt.Fprintf(&b, "---\nDigest %s, first made for revision %s.\n", code(p.Digest), code(p.Revision))
	return b.String()
}

// pagePlans tells of the plans on the status page.
func (s *Status) pagePlans(b *strings.Builder) {
	var earlier []string
	for _, p := range s.Plans {
		link := fmt.Sprintf("[%s](%s)", p.Digest, p.Page)
		if !p.Waits {
			earlier = append(earlier, link+" of "+escape(p.Node))
			continue
		}
		fmt.Fprintf(b, "**Waits for approval**: plan %s of %s, %d %s, %d of them %s. To let exactly this plan through, merge into %s:\n\n```yaml\n%s\n```\n\n",
			link, escape(p.Node), p.Changes, plural(p.Changes, "change", "changes"), p.Destroy, plural(p.Destroy, "destroys", "destroy"), code(p.Into), strings.ReplaceAll(clean(p.Approve), "`", "'"))
	}
	if len(earlier) > 0 {
		b.WriteString("Plans that waited before: " + strings.Join(earlier, ", ") + "\n\n")
	}
}
