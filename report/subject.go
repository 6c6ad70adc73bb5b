package report

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"dive-agent/gitremote"
)

// subjectWidth is how long the first line of a commit message is at most.
const subjectWidth = 72

// Headline is the news in one line of at most 72 characters, such as
// "deu: Ready at 5d6e7f8, 9/9 services, PRIMARY, 123 resources".
func (s *Status) Headline() string {
	news := clean(s.News)
	head := clean(s.Instance) + ": "
	switch {
	case s.Phase == Ready:
		return fit(head+"Ready at "+gitremote.Short(s.Applied), news)
	case s.Phase == Progressing && s.Attempted != "":
		return fit(head+"Progressing to "+gitremote.Short(s.Attempted), news)
	case strings.HasPrefix(news, "waits for approval"), s.Phase == Suspended && strings.HasPrefix(news, "suspended"):
		return cut(head+news, subjectWidth) // the news are the phase
	}
	return fit(head+string(s.Phase), news)
}

// fit adds what there is room for, piece by piece; when not even the first has
// room it is cut, since a part of the cause tells more than none.
func fit(line, news string) string {
	if news == "" {
		return cut(line, subjectWidth)
	}
	for i, piece := range strings.Split(news, ", ") {
		longer := line + ", " + piece
		if utf8.RuneCountInString(longer) > subjectWidth {
			if i == 0 {
				line = cut(longer, subjectWidth)
			}
			break
		}
		line = longer
	}
	return cut(line, subjectWidth)
}

// Message is the message of a status commit: subject, causes and ways out, and
// trailers for programs. It asks forges to start no pipeline.
func (s *Status) Message() string {
	var b strings.Builder
	b.WriteString(s.Headline() + "\n\n")
	for _, list := range [][]string{s.Why, s.Next} {
		for _, line := range list {
			// A line in front keeps what was said from being read as a trailer.
			fmt.Fprintf(&b, "- %s\n", cut(clean(line), 400))
		}
	}
	if len(s.Why)+len(s.Next) > 0 {
		b.WriteString("\n")
	}
	b.WriteString("[skip ci]\n\n")
	for _, t := range [][2]string{
		{"Instance", s.Instance},
		{"Revision", s.Attempted},
		{"Applied", s.Applied},
		{"Phase", string(s.Phase)},
		{"Generation", fmt.Sprint(s.Generation)},
	} {
		if t[1] != "" {
			fmt.Fprintf(&b, "Dive-%s: %s\n", t[0], clean(t[1]))
		}
	}
	return b.String()
}
