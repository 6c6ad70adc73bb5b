package verify

import (
	"errors"
	"fmt"
	"maps"
	"strconv"
	"time"
	"unicode/utf8"

	"dive-agent/reconcilers"
)

// outcome is what one check saw: words, counts and dates, and no value.
type outcome struct {
	passed bool
	saw    string // what was seen, with what was expected where they differ
	counts map[string]int64
	dates  map[string]time.Time
	wait   *reconcilers.WaitError
}

func pass(format string, args ...any) outcome {
	return outcome{passed: true, saw: fmt.Sprintf(format, args...)}
}

func fail(format string, args ...any) outcome {
	return outcome{saw: fmt.Sprintf(format, args...)}
}

// failed is a check that could not be made. What only waits for something keeps its reason.
func failed(err error) outcome {
	o := outcome{saw: err.Error()}
	errors.As(err, &o.wait)
	return o
}

// count adds a number to the evidence.
func (o outcome) count(name string, n int64) outcome {
	o.counts = maps.Clone(o.counts)
	if o.counts == nil {
		o.counts = map[string]int64{}
	}
	o.counts[name] = n
	return o
}

// date adds a date to the evidence; a zero one is none.
func (o outcome) date(name string, t time.Time) outcome {
	if t.IsZero() {
		return o
	}
	o.dates = maps.Clone(o.dates)
	if o.dates == nil {
		o.dates = map[string]time.Time{}
	}
	o.dates[name] = t.UTC().Truncate(time.Second)
	return o
}

// clock is a time in the words of an outcome.
func clock(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// shown is a value as an outcome may tell it: a number, a truth value or a date as it is, of all else only its shape.
func shown(v any) string {
	switch value := v.(type) {
	case nil:
		return "null"
	case bool:
		return strconv.FormatBool(value)
	case string:
		return shownText(value)
	case map[string]any:
		return fmt.Sprintf("a document of %d", len(value))
	case []any:
		return fmt.Sprintf("a list of %d", len(value))
	}
	if _, err := number(v); err == nil {
		return fmt.Sprint(v)
	}
	return fmt.Sprintf("a value of type %T", v)
}

// shownText is a text as an outcome may tell it.
func shownText(text string) string {
	if _, err := strconv.ParseFloat(text, 64); err == nil && len(text) < 20 {
		return text
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02 15:04:05.999999-07", "2006-01-02 15:04:05.999999", time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.Format(layout)
		}
	}
	if text == "" {
		return "an empty text"
	}
	n := utf8.RuneCountInString(text)
	if n == 1 {
		return "a text of 1 character"
	}
	return fmt.Sprintf("a text of %d characters", n)
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}
