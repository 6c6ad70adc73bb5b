package report

import (
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// terminal matches the sequences that colour a terminal, move its cursor or set
// its title (ECMA-48, control sequences and operating system commands).
var terminal = regexp.MustCompile("\x1b(\\[[0-?]*[ -/]*[@-~]|\\][^\x07\x1b]*(\x07|\x1b\\\\)?)")

// clean makes one line of untrusted text: no control characters, no characters
// that reverse or hide others, white space folded.
func clean(text string) string {
	text = terminal.ReplaceAllString(strings.ToValidUTF8(text, "\uFFFD"), "")
	text = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case unicode.IsControl(r), unicode.Is(unicode.Cf, r), unicode.Is(unicode.Co, r):
			return -1
		}
		return r
	}, text)
	return strings.Join(strings.Fields(text), " ")
}

// cut shortens a line to a number of characters, with an ellipsis.
func cut(text string, width int) string {
	if utf8.RuneCountInString(text) <= width {
		return text
	}
	runes := []rune(text)
	return strings.TrimRight(string(runes[:max(0, width-1)]), " ,;:") + "…"
}

// broken breaks a line between words so that no part is longer than width, with two characters less from the second part
// on; a longer word stays whole. A width of 0 or less breaks nothing.
func broken(text string, width int) (parts []string) {
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && width > 0 && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width {
			parts, line = append(parts, line), ""
			if len(parts) == 1 {
				width = max(1, width-2)
			}
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(parts, line)
}

// lasting is a duration as people say it: "4 min", "24.0 s".
func lasting(d time.Duration) string {
	switch {
	case d < 0:
		return "0 s"
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < 10*time.Minute:
		return fmt.Sprintf("%d:%02d min", int(d.Minutes()), int(d.Seconds())%60)
	}
	return age(d)
}

// Age is how long something lasts, in whole units, as statuses tell it.
func Age(d time.Duration) string { return age(d) }

// age is how long something lasts, in whole units.
func age(d time.Duration) string {
	switch {
	case d < 0:
		return "0 s"
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

// moment is a time as it stands in a page that is read later.
func moment(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// pad fills a text with spaces to a width; a longer one stays as it is.
func pad(text string, width int) string {
	return text + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(text)))
}

func widest(texts []string) (width int) {
	for _, t := range texts {
		width = max(width, utf8.RuneCountInString(t))
	}
	return width
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}
