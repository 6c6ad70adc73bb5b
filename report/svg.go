package report

import (
	"encoding/xml"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Measures of the drawing, in pixels. The font is one of equal widths, so that texts can be measured without it.
const (
	charWide  = 7.3
	lineHigh  = 18.0
	boxPad    = 12.0
	boxGap    = 18.0
	layerGap  = 64.0
	bendHigh  = 8.0
	pageEdge  = 24.0
	titleHigh = 40.0
)

// SVG draws the graph, from what needs nothing on the left to what needs most on the right, under a title. It stands on a
// light and on a dark page: each box brings its own ground, and what is between them is of a middle grey.
func (g Graph) SVG(title string) []byte {
	g = g.withSources()
	layers := layered(g)
	wide, high := g.place(layers)
	wide = max(wide, 2*pageEdge+charWide*1.2*float64(utf8.RuneCountInString(clean(title))))
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%.0f" height="%.0f" viewBox="0 0 %.0f %.0f" role="img">`+"\n", wide, high, wide, high)
	fmt.Fprintf(&b, "<title>%s</title>\n<style>\n", xmlText(title))
	b.WriteString("  text { font: 12px ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace; }\n")
	b.WriteString("  .title { font-size: 14px; font-weight: bold; fill: #7a8594; }\n  .name { font-weight: bold; }\n")
	b.WriteString("  .edge { fill: none; stroke: #8a94a3; stroke-width: 1.5; }\n  .far { stroke-dasharray: 5 4; }\n  .tip { fill: #8a94a3; }\n")
	for _, c := range stateColours {
		fmt.Fprintf(&b, "  .%s rect { fill: %s; stroke: %s; } .%s text { fill: %s; } .%s line { stroke: %s; } .%s circle { fill: %s; }\n",
			c.class, c.fill, c.stroke, c.class, c.text, c.class, c.stroke, c.class, c.stroke)
	}
	b.WriteString("</style>\n")
	fmt.Fprintf(&b, `<text class="title" x="%.0f" y="%.0f">%s</text>`+"\n", pageEdge, pageEdge+8, xmlText(title))
	for _, layer := range layers {
		for _, s := range layer {
			for _, next := range s.to {
				drawEdge(&b, s, next)
			}
		}
	}
	for _, layer := range layers {
		for _, s := range layer {
			if s.node >= 0 {
				drawNode(&b, g[s.node], s)
			}
		}
	}
	b.WriteString("</svg>\n")
	return []byte(b.String())
}

// place gives each spot its size and place: a layer is a column, and stands in the middle of the height.
func (g Graph) place(layers [][]*spot) (wide, high float64) {
	heights := make([]float64, len(layers))
	x := pageEdge
	for i, layer := range layers {
		column := 0.0
		for _, s := range layer {
			s.x, s.h = x, bendHigh
			if s.node >= 0 {
				s.w, s.h = g[s.node].size()
			}
			column = max(column, s.w)
			heights[i] += s.h + boxGap
		}
		for _, s := range layer {
			s.w = column // boxes of a column are equally wide
		}
		high = max(high, heights[i])
		x += column + layerGap
	}
	for i, layer := range layers {
		y := titleHigh + pageEdge + (high-heights[i])/2
		for _, s := range layer {
			s.y = y
			y += s.h + boxGap
		}
	}
	return max(x-layerGap, 0) + pageEdge, titleHigh + 2*pageEdge + high - boxGap
}

// lines are the texts of a node's box below its name.
func (n GraphNode) lines() (lines []string) {
	if words := strings.TrimSpace(n.State + " " + n.Took); words != "" {
		lines = append(lines, words)
	}
	return lines
}

func (n GraphNode) size() (w, h float64) {
	longest := 2 + utf8.RuneCountInString(clean(n.ID))
	for _, line := range n.lines() {
		longest = max(longest, utf8.RuneCountInString(line))
	}
	for _, m := range n.Members {
		longest = max(longest, 3+utf8.RuneCountInString(clean(m.Host)), 3+utf8.RuneCountInString(m.words()))
	}
	h = 2*boxPad + lineHigh*float64(1+len(n.lines())) - 6
	if len(n.Members) > 0 {
		h += boxPad + float64(len(n.Members))*(2*lineHigh+4)
	}
	return 2*boxPad + charWide*float64(longest), h
}

func drawNode(b *strings.Builder, n GraphNode, s *spot) {
	class := stateClass(n.State)
	if n.elsewhere {
		class += " far"
	}
	fmt.Fprintf(b, `<g class="%s"><rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="8"/>`+"\n", class, s.x, s.y, s.w, s.h)
	y := s.y + boxPad + 10
	mark := ""
	if n.State != "" {
		mark = sign(n.State) + " "
	}
	fmt.Fprintf(b, `<text class="name" x="%.1f" y="%.1f">%s</text>`+"\n", s.x+boxPad, y, xmlText(mark+n.ID))
	for _, line := range n.lines() {
		y += lineHigh
		fmt.Fprintf(b, `<text x="%.1f" y="%.1f">%s</text>`+"\n", s.x+boxPad, y, xmlText(line))
	}
	y += boxPad
	if len(n.Members) > 0 {
		fmt.Fprintf(b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>`+"\n", s.x, y, s.x+s.w, y)
	}
	b.WriteString("</g>\n")
	for _, m := range n.Members {
		y += lineHigh
		fmt.Fprintf(b, `<g class="%s"><circle cx="%.1f" cy="%.1f" r="5"/></g>`+"\n", stateClass(m.drawnState()), s.x+boxPad+5, y-4)
		fmt.Fprintf(b, `<g class="%s"><text class="name" x="%.1f" y="%.1f">%s</text>`, stateClass(n.State), s.x+boxPad+3*charWide, y, xmlText(m.Host))
		y += lineHigh - 2
		fmt.Fprintf(b, `<text x="%.1f" y="%.1f">%s</text></g>`+"\n", s.x+boxPad+3*charWide, y, xmlText(m.words()))
		y += 6
	}
}

// drawEdge draws an arrow's way from one layer to the next; its tip stands where it comes to a node. A bend is crossed
// straight.
func drawEdge(b *strings.Builder, from, to *spot) {
	x1, y1, x2, y2 := from.x+from.w, from.y+from.h/2, to.x, to.y+to.h/2
	if to.node >= 0 {
		x2 -= 7
	}
	middle := (x1 + x2) / 2
	path := fmt.Sprintf("M%.1f %.1f C%.1f %.1f %.1f %.1f %.1f %.1f", x1, y1, middle, y1, middle, y2, x2, y2)
	if to.node < 0 {
		path += fmt.Sprintf(" H%.1f", to.x+to.w)
	}
	class := "edge"
	if from.dashed {
		class += " far"
	}
	fmt.Fprintf(b, `<path class="%s" d="%s"/>`+"\n", class, path)
	if to.node >= 0 {
		fmt.Fprintf(b, `<path class="tip" d="M%.1f %.1f l-8 -4 v8 z"/>`+"\n", to.x, y2)
	}
}

func xmlText(text string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(clean(text))) // a Builder takes everything
	return b.String()
}
