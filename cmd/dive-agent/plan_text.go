package main

import (
	"fmt"
	"strings"
	"time"

	"dive-agent/agent"
	"dive-agent/gitremote"
	"dive-agent/reconcilers"
)

var actionSigns = map[reconcilers.Action]string{
	reconcilers.Create: "+", reconcilers.Update: "~", reconcilers.Replace: "~", reconcilers.Delete: "-", reconcilers.Run: ">",
}

// planText is the plan for a terminal; none is what is said when there is nothing to tell.
func planText(previews []agent.Preview, none string) string {
	var b strings.Builder
	if len(previews) == 0 {
		b.WriteString(none)
	}
	for i := range previews {
		p := &previews[i]
		fmt.Fprintf(&b, "%s on %s: %s\n\n", p.Instance, p.Host, planRevisions(p))
		if p.Blocked != "" {
			fmt.Fprintf(&b, "  ! %s\n%s\n\n", p.Blocked, indent(p.Do, "    "))
		}
		for _, group := range groups(p) {
			fmt.Fprintf(&b, "  %-16s %s\n", group.name, group.headline())
			for _, n := range group.nodes {
				writeNodePlan(&b, n)
			}
			if group.note != "" {
				fmt.Fprintf(&b, "    (%s)\n", group.note)
			}
			if group.quiet > 0 && group.changed > 0 && group.quiet+len(group.nodes) > 1 {
				fmt.Fprintf(&b, "      %d unchanged\n", group.quiet)
			}
		}
		fmt.Fprintf(&b, "\n%s\n\n", planSummary(p))
	}
	return b.String()
}

// noInstance says that there is nothing to plan.
func noInstance(host string) string { return "No instance is bound to host " + host + ".\n" }

func planRevisions(p *agent.Preview) string {
	switch {
	case p.Offline && p.Base:
		return "against the base"
	case p.Offline:
		return "new"
	}
	from, to := "nothing", "this folder"
	if p.From != "" {
		from = gitremote.Short(p.From)
	}
	if p.To != "" {
		to = gitremote.Short(p.To)
	}
	text := from + " -> " + to
	if p.From == p.To && p.To != "" {
		text = to
	}
	if p.Branch != "" {
		text += fmt.Sprintf("  (%s, %q)", p.Branch, p.Subject)
	}
	return text
}

func writeNodePlan(b *strings.Builder, n agent.PreviewNode) {
	for _, c := range n.Changes {
		fmt.Fprintf(b, "    %s %-30s %-9s %s\n", actionSigns[c.Action], c.Address, verb(c.Change), reason(c.Change))
		for _, d := range c.Differences {
			fmt.Fprintf(b, "        %s\n", differenceText(d))
		}
		for _, detail := range c.Details {
			if len(c.Differences) == 0 && !strings.Contains(c.Reason, detail) {
				fmt.Fprintf(b, "        %s\n", detail)
			}
		}
	}
	if n.Error != "" {
		fmt.Fprintf(b, "    ! %s\n", n.Error)
	}
	if waitsWithPlan(n) {
		fmt.Fprintf(b, "    ! %s\n", n.Waits)
	}
	if n.Approve != "" {
		fmt.Fprintf(b, "    ! waits for approval%s. To let exactly this plan through, merge into the instance's manifest:\n        %s\n", asked(n), n.Approve)
	}
	if n.Held != "" {
		fmt.Fprintf(b, "    ! %s\n%s\n", n.Held, indent(n.Do, "        "))
	}
}

// waitsWithPlan says whether a node cannot be changed as planned yet: it waits for what another instance publishes.
func waitsWithPlan(n agent.PreviewNode) bool {
	return n.Waits != "" && len(n.Changes) > 0 && n.Note == ""
}

// asked is why a plan as a whole waits for approval.
func asked(n agent.PreviewNode) string {
	if len(n.Asks) == 0 {
		return ""
	}
	return ": " + strings.Join(n.Asks, "; ")
}

// reason is why a change is made, and why it waits for approval though it destroys nothing.
func reason(c reconcilers.Change) string {
	if c.Asks == "" {
		return c.Reason
	}
	return c.Reason + " (" + c.Asks + ": waits)"
}

// differenceText is what a change sets, in a line.
func differenceText(d reconcilers.Difference) string {
	switch {
	case d.Before == "" && d.After == "":
		return d.Path + ": changes"
	case d.Before == "":
		return d.Path + ": " + d.After
	case d.After == "":
		return d.Path + ": " + d.Before + " is taken out"
	case d.Before == d.After:
		return d.Path + ": another " + d.After
	}
	return d.Path + ": " + d.Before + " -> " + d.After
}

func verb(c reconcilers.Change) string {
	if c.Destroys {
		return "destroy"
	}
	return string(c.Action)
}

func planSummary(p *agent.Preview) string {
	changes, destroys, waiting := p.Counts()
	if p.Offline && changes+destroys == 0 {
		return "By the manifests alone: nothing of it changes."
	}
	if p.Offline {
		text := fmt.Sprintf("By the manifests alone: %d %s", changes, plural(changes, "change"))
		if destroys > 0 {
			text += fmt.Sprintf(", %d to destroy, which will wait for approval", destroys)
		}
		return text + ". What runs was not asked."
	}
	unseen := p.Unseen()
	switch {
	case changes+destroys > 0 || p.Blocked != "":
	case len(unseen) > 0:
		return fmt.Sprintf("Plan: not known whether it is in sync, for %s.", strings.Join(unseen, ", "))
	default:
		return "Plan: in sync, nothing to change."
	}
	text := fmt.Sprintf("Plan: %d to change", changes)
	if destroys > 0 {
		text += fmt.Sprintf(", %d to destroy", destroys)
	}
	if waiting > 0 {
		text += " (waits)"
	}
	if p.Expected > 0 {
		text += fmt.Sprintf(". Expected time: about %d s, by earlier runs", int(p.Expected.Round(time.Second).Seconds()))
	}
	if p.Blocked != "" {
		text += ". Nothing of it is done before what is missing is there"
	}
	return text + "."
}

// group is the nodes of one component.
type group struct {
	name    string
	nodes   []agent.PreviewNode // with something to tell
	quiet   int                 // without
	changed int
	destroy int
	summary string
	waits   string
	note    string
}

// groups gathers the nodes by component, in the order of the preview. Nodes without a change or an error only count.
func groups(p *agent.Preview) []*group {
	var all []*group
	index := map[string]*group{}
	for _, n := range p.Nodes {
		g := index[n.Component]
		if g == nil {
			g = &group{name: n.Component}
			index[n.Component] = g
			all = append(all, g)
		}
		for _, c := range n.Changes {
			if c.Destroys {
				g.destroy++
			} else {
				g.changed++
			}
		}
		if n.Part == "" {
			g.summary = n.Summary
		}
		if len(n.Changes) > 0 || n.Error != "" {
			g.nodes = append(g.nodes, n)
		} else {
			g.quiet++
		}
		if n.Waits != "" && n.Part == "" {
			g.waits = n.Waits
		}
		if len(n.Changes) > 0 && n.Note != "" {
			g.note = n.Note
		}
	}
	return all
}

func (g *group) headline() string {
	switch {
	case g.changed+g.destroy > 0 && g.destroy > 0:
		return fmt.Sprintf("%d %s, %d destroy", g.changed, plural(g.changed, "change"), g.destroy)
	case g.changed > 0:
		return fmt.Sprintf("%d %s", g.changed, plural(g.changed, "change"))
	case g.waits != "":
		return g.waits
	case len(g.nodes) > 0:
		return "cannot be planned"
	}
	return strings.TrimSpace("in sync   " + g.summary)
}

func plural(n int, word string) string {
	if n == 1 {
		return word
	}
	return word + "s"
}
