package main

import (
	"fmt"
	"strings"

	"dive-agent/agent"
	"dive-agent/report"
)

// What a comment on a pull request may have: GitHub takes 65,536 characters, and what else stands in it is not ours.
const commentLimit = 60_000

// unfolded is how many changes of an instance are shown without a fold.
const unfolded = 15

// detail says how much of each plan is told. What is too long is told again with less.
type detail struct {
	differences bool // what changes set
	rows        int  // of a component's table; 0: all
}

// planMarkdown is the plan as a comment on a pull request: no longer than commentLimit bytes.
func planMarkdown(previews []agent.Preview, none string) string {
	text := ""
	for _, d := range []detail{{true, 0}, {false, 0}, {false, 50}, {false, 5}, {false, 1}} {
		if text = planComment(previews, none, d); len(text) <= commentLimit {
			return text
		}
	}
	const note = "\n\n*The rest is too long for a comment; `dive-agent plan` on the host has it.*\n"
	cut := strings.LastIndexByte(text[:commentLimit-len(note)], '\n')
	return text[:cut] + note
}

func planComment(previews []agent.Preview, none string, d detail) string {
	var b strings.Builder
	b.WriteString("## dive-agent plan\n\n")
	if len(previews) == 0 {
		b.WriteString(none)
	}
	for i := range previews {
		p := &previews[i]
		fmt.Fprintf(&b, "### %s\n\n", markdownTitle(p))
		if p.Blocked != "" {
			fmt.Fprintf(&b, "> **%s.** %s\n\n", report.Escape(p.Blocked), report.Escape(p.Do))
		}
		writeComponents(&b, p, d)
		for _, n := range p.Nodes {
			if n.Approve != "" {
				fmt.Fprintf(&b, "\n> **`%s` waits for approval%s.** To let exactly this plan through, merge into the instance's manifest: `%s`\n", n.ID, report.Escape(asked(n)), n.Approve)
			}
			if waitsWithPlan(n) {
				fmt.Fprintf(&b, "\n> **`%s` %s.**\n", n.ID, report.Escape(n.Waits))
			}
			if n.Held != "" {
				fmt.Fprintf(&b, "\n> **`%s`: %s.** %s\n", n.ID, report.Escape(n.Held), report.Code(n.Do))
			}
		}
		for _, g := range groups(p) {
			if g.note != "" {
				fmt.Fprintf(&b, "\n`%s` is listed %s.\n", g.name, report.Escape(g.note))
			}
		}
		fmt.Fprintf(&b, "\n%s\n\n", planSummary(p))
	}
	return b.String()
}

func markdownTitle(p *agent.Preview) string {
	return fmt.Sprintf("`%s` on `%s`: %s", p.Instance, p.Host, report.Escape(planRevisions(p)))
}

// writeComponents writes one table for all components where that is short, else a fold for each of them.
func writeComponents(b *strings.Builder, p *agent.Preview, d detail) {
	all := 0
	for _, n := range p.Nodes {
		all += len(n.Changes)
	}
	if all <= unfolded {
		writeTable(b, p.Nodes, d)
		writeDifferences(b, p.Nodes, d)
		return
	}
	for _, g := range groups(p) {
		if len(g.nodes) == 0 {
			continue
		}
		fmt.Fprintf(b, "<details><summary><b>%s</b>: %s</summary>\n\n", g.name, report.Escape(g.headline()))
		writeTable(b, g.nodes, d)
		writeDifferences(b, g.nodes, d)
		b.WriteString("\n</details>\n")
	}
}

func writeTable(b *strings.Builder, nodes []agent.PreviewNode, d detail) {
	head, rows, left := "| | what | action | why |\n| --- | --- | --- | --- |\n", 0, 0
	row := func(format string, args ...any) {
		if rows++; d.rows > 0 && rows > d.rows {
			left++
			return
		}
		fmt.Fprintf(b, head+format, args...)
		head = ""
	}
	for _, n := range nodes {
		for _, c := range n.Changes {
			row("| %s | `%s` %s | %s | %s |\n", actionSigns[c.Action], n.ID, report.Code(c.Address), verb(c.Change), report.Escape(reason(c.Change)))
		}
		if n.Error != "" {
			row("| ! | `%s` | error | %s |\n", n.ID, report.Escape(n.Error))
		}
	}
	if left > 0 {
		fmt.Fprintf(b, "\nand %d more\n", left)
	}
}

// writeDifferences folds what the changes set.
func writeDifferences(b *strings.Builder, nodes []agent.PreviewNode, d detail) {
	if !d.differences {
		return
	}
	rows := 0
	for _, n := range nodes {
		for _, c := range n.Changes {
			for _, one := range c.Differences {
				if rows++; rows == 1 {
					b.WriteString("\n<details><summary>What is set</summary>\n\n| what | attribute | before | after |\n| --- | --- | --- | --- |\n")
				}
				fmt.Fprintf(b, "| %s | %s | %s | %s |\n", report.Code(c.Address), report.Code(one.Path), report.Code(one.Before), report.Code(one.After))
			}
		}
	}
	if rows > 0 {
		b.WriteString("\n</details>\n")
	}
}
