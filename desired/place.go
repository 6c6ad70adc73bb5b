package desired

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// locate gives the place in the file of a byte of a scalar's decoded text. Escapes, quotes, indentation and folded
// lines are followed; where that fails the scalar's own place is good enough.
func (n *node) locate(offset int) Position {
	start, ok := n.file.offset(n.at)
	if !ok {
		return n.at
	}
	w := walker{data: n.file.data, at: start}
	switch {
	case n.style&yaml.LiteralStyle != 0:
		return n.literal(offset)
	case n.style&yaml.FoldedStyle != 0:
		w.folded(n.text, offset)
	case n.style&yaml.DoubleQuotedStyle != 0:
		w.at++
		w.flow(n.text, offset, '\\')
	case n.style&yaml.SingleQuotedStyle != 0:
		w.at++
		w.flow(n.text, offset, '\'')
	default:
		w.flow(n.text, offset, 0)
	}
	if w.lost {
		return n.at
	}
	return n.file.position(w.at)
}

func (s *source) offset(at Position) (int, bool) {
	if at.Line < 1 || at.Line > len(s.lines) {
		return 0, false
	}
	offset := s.lines[at.Line-1]
	for range at.Column - 1 {
		if offset >= len(s.data) {
			return 0, false
		}
		_, size := utf8.DecodeRune(s.data[offset:])
		offset += size
	}
	return offset, offset < len(s.data)
}

func (s *source) position(offset int) Position {
	low, high := 0, len(s.lines)
	for high-low > 1 {
		if middle := (low + high) / 2; s.lines[middle] <= offset {
			low = middle
		} else {
			high = middle
		}
	}
	column := 1 + utf8.RuneCount(s.data[s.lines[low]:min(offset, len(s.data))])
	return Position{File: s.name, Line: low + 1, Column: column}
}

// walker steps through a scalar's bytes in the file and in its decoded text side by side.
type walker struct {
	data []byte
	at   int
	lost bool
}

// flow follows a plain or quoted scalar; escape is its escape character, or 0 for a plain one.
func (w *walker) flow(text string, offset int, escape byte) {
	for i := 0; i < offset && !w.lost; {
		if w.at >= len(w.data) {
			w.lost = true
			return
		}
		b := w.data[w.at]
		switch {
		case w.endsLine():
			i = w.fold(text, i)
		case b == escape && escape == '\'':
			w.at += 2
			i++
		case b == escape && escape == '\\':
			length, decoded := escaped(w.data[w.at:])
			w.at += length
			i += decoded
		case b == text[i]:
			w.at++
			i++
		default:
			w.lost = true
		}
	}
}

// endsLine says whether only blanks follow on the line.
func (w *walker) endsLine() bool {
	for i := w.at; i < len(w.data); i++ {
		switch w.data[i] {
		case ' ', '\t', '\r':
		case '\n':
			return true
		default:
			return false
		}
	}
	return false
}

// fold passes a line break and all blanks around it, in the file and in the text. It gives the new place in the text.
func (w *walker) fold(text string, i int) int {
	for w.at < len(w.data) && isBlank(w.data[w.at]) {
		w.at++
	}
	for i < len(text) && isBlank(text[i]) {
		i++
	}
	return i
}

func isBlank(b byte) bool { return b == ' ' || b == '\t' || b == '\r' || b == '\n' }

// escaped gives the length of a double-quoted escape and of the UTF-8 text it stands for.
func escaped(data []byte) (length, decoded int) {
	if len(data) < 2 {
		return 1, 0
	}
	digits := map[byte]int{'x': 2, 'u': 4, 'U': 8}[data[1]]
	if digits == 0 {
		switch data[1] {
		case 'N', '_':
			return 2, 2
		case 'L', 'P':
			return 2, 3
		case '\n':
			i := 2
			for i < len(data) && (data[i] == ' ' || data[i] == '\t') {
				i++
			}
			return i, 0
		}
		return 2, 1
	}
	r := rune(0)
	for _, b := range data[2:min(2+digits, len(data))] {
		r *= 16
		switch {
		case b >= '0' && b <= '9':
			r += rune(b - '0')
		case b|0x20 >= 'a' && b|0x20 <= 'f':
			r += rune(b|0x20-'a') + 10
		}
	}
	return 2 + digits, utf8.RuneLen(r)
}

// folded follows a folded block scalar, whose header it stands on.
func (w *walker) folded(text string, offset int) {
	for w.at < len(w.data) && w.data[w.at] != '\n' {
		w.at++
	}
	from := w.fold(text, 0)
	w.flow(text[from:], offset-from, 0)
}

// literal gives the place of a byte of a literal block scalar: its lines stand below the header, indented alike.
func (n *node) literal(offset int) Position {
	before := n.text[:min(offset, len(n.text))]
	line := n.at.Line + 1 + strings.Count(before, "\n")
	column := 1 + n.indent() + utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:])
	return Position{File: n.at.File, Line: line, Column: column}
}

// indent is that of the first line of a block scalar that is not blank, less the blanks that belong to its text.
func (n *node) indent() int {
	for _, line := range n.file.lines[min(n.at.Line, len(n.file.lines)):] {
		text := n.file.data[line:]
		if end := bytes.IndexByte(text, '\n'); end >= 0 {
			text = text[:end]
		}
		if trimmed := bytes.TrimLeft(text, " "); len(bytes.TrimSpace(trimmed)) > 0 {
			own := strings.TrimLeft(n.text, "\n")
			return max(0, len(text)-len(trimmed)-(len(own)-len(strings.TrimLeft(own, " "))))
		}
	}
	return 0
}
