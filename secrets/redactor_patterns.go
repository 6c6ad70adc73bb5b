package secrets

import (
	"slices"
	"strings"
)

// prefix is how every pattern is found: by its first bytes, of which each has
// at least minHidden.
type prefix [minHidden]byte

// patterns is what is looked for; it never changes once made.
type patterns struct {
	version int
	// by holds the patterns of a prefix, the longest first.
	by map[prefix][]string
	// first marks the first two bytes of all patterns, so that most positions
	// of a text cost one look.
	first [1 << 16 / 64]uint64
}

// newPatterns leaves out what Mark itself shows.
func newPatterns(all []string, version int) *patterns {
	p := &patterns{version: version, by: map[prefix][]string{}}
	slices.SortFunc(all, func(a, b string) int { return len(b) - len(a) })
	for _, s := range all {
		key := prefix([]byte(s[:minHidden]))
		if slices.Contains(p.by[key], s) || strings.Contains(Mark, s) {
			continue
		}
		p.by[key] = append(p.by[key], s)
		two := uint16(s[0])<<8 | uint16(s[1])
		p.first[two/64] |= 1 << (two % 64)
	}
	return p
}

func (p *patterns) candidate(text string) []string {
	if len(text) < minHidden {
		return nil
	}
	two := uint16(text[0])<<8 | uint16(text[1])
	if p.first[two/64]&(1<<(two%64)) == 0 {
		return nil
	}
	return p.by[prefix([]byte(text[:minHidden]))]
}

// span is a stretch of text that is secret: from start up to end.
type span struct{ start, end int }

// find gives the secret spans of a text in order, those that touch or overlap
// joined.
func (p *patterns) find(text string) (spans []span) {
	for i := range len(text) {
		for _, s := range p.candidate(text[i:]) {
			if !strings.HasPrefix(text[i:], s) {
				continue
			}
			if last := len(spans) - 1; last >= 0 && i <= spans[last].end {
				spans[last].end = max(spans[last].end, i+len(s))
			} else {
				spans = append(spans, span{i, i + len(s)})
			}
			break // the longest at this place
		}
	}
	return spans
}

// replace writes the text with a Mark for each span.
func replace(text string, spans []span) string {
	var out strings.Builder
	at := 0
	for _, s := range spans {
		out.WriteString(text[at:s.start])
		out.WriteString(Mark)
		at = s.end
	}
	out.WriteString(text[at:])
	return out.String()
}
