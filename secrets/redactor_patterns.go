package secrets

import (
	"slices"
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
	// starts holds all beginnings of patterns shorter than a prefix.
	starts  map[string]bool
	longest int
}

func newPatterns(all []string, version int) *patterns {
	p := &patterns{version: version, by: map[prefix][]string{}, starts: map[string]bool{}}
	slices.SortFunc(all, func(a, b string) int { return len(b) - len(a) })
	for _, s := range all {
		key := prefix([]byte(s[:minHidden]))
		if slices.Contains(p.by[key], s) {
			continue
		}
		p.by[key] = append(p.by[key], s)
		two := uint16(s[0])<<8 | uint16(s[1])
		p.first[two/64] |= 1 << (two % 64)
		for n := 1; n < minHidden; n++ {
			p.starts[s[:n]] = true
		}
		p.longest = max(p.longest, len(s))
	}
	return p
}

func (p *patterns) candidate(text []byte) []string {
	if len(text) < minHidden {
		return nil
	}
	two := uint16(text[0])<<8 | uint16(text[1])
	if p.first[two/64]&(1<<(two%64)) == 0 {
		return nil
	}
	return p.by[prefix(text[:minHidden])]
}

// span is a stretch of text that is secret: from start up to end.
type span struct{ start, end int }

// find gives the secret spans of a text in order, those that touch or overlap
// joined. The first covered bytes are secret already.
func (p *patterns) find(text []byte, covered int) (spans []span) {
	if covered > 0 {
		spans = append(spans, span{0, covered})
	}
	for i := range text {
		for _, s := range p.candidate(text[i:]) {
			if len(text)-i < len(s) || string(text[i:i+len(s)]) != s {
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

// unfinished gives the first place from which on the text could be the
// beginning of a secret that goes on after its end; len(text) when there is none.
func (p *patterns) unfinished(text []byte) int {
	for i := max(0, len(text)-p.longest+1); i < len(text); i++ {
		rest := text[i:]
		if len(rest) < minHidden {
			if p.starts[string(rest)] {
				return i
			}
			continue
		}
		for _, s := range p.candidate(rest) {
			if len(s) > len(rest) && s[:len(rest)] == string(rest) {
				return i
			}
		}
	}
	return len(text)
}

// replace writes the text with a Mark for each span.
func replace(text []byte, spans []span) []byte {
	out := make([]byte, 0, len(text)+len(spans)*len(Mark))
	at := 0
	for _, s := range spans {
		out = append(out, text[at:s.start]...)
		out = append(out, Mark...)
		at = s.end
	}
	return append(out, text[at:]...)
}
