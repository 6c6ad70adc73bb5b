package desired

import (
	"fmt"
	"sort"
	"strings"
)

// Position is a place in a file of the fleet repository. Line and Column count from 1; zero means unknown.
type Position struct {
	File   string `json:"file"` // slash-separated, relative to the repository's root
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`
}

// String gives file:line:column, less what is unknown.
func (p Position) String() string {
	switch {
	case p.Line == 0:
		return p.File
	case p.Column == 0:
		return fmt.Sprintf("%s:%d", p.File, p.Line)
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}

// Problem is one mistake in the fleet repository: where it is, what it is and the way out.
type Problem struct {
	Position Position `json:"position"`
	Message  string   `json:"message"`
}

func (p Problem) String() string { return p.Position.String() + ": " + p.Message }

// Problems are all mistakes of a repository, in the order of their places. It is an error; find it with errors.As.
type Problems []Problem

func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, problem := range p {
		lines[i] = problem.String()
	}
	return strings.Join(lines, "\n")
}

// Sort orders the problems by file, line, column and message, and drops what stands twice.
func (p Problems) Sort() Problems {
	sort.SliceStable(p, func(i, j int) bool {
		a, b := p[i], p[j]
		if a.Position.File != b.Position.File {
			return a.Position.File < b.Position.File
		}
		if a.Position.Line != b.Position.Line {
			return a.Position.Line < b.Position.Line
		}
		if a.Position.Column != b.Position.Column {
			return a.Position.Column < b.Position.Column
		}
		return a.Message < b.Message
	})
	out := p[:0]
	for i, problem := range p {
		if i == 0 || problem != p[i-1] {
			out = append(out, problem)
		}
	}
	return out
}
