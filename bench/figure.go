package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"dive-agent/atomicfile"
)

// Figure is one measured value and the most it may be.
type Figure struct {
	Name     string   `json:"name"`
	Value    float64  `json:"value"`
	Unit     string   `json:"unit"` // ms, s, MB (10^6 bytes), %, processes, plans, requests; x is a ratio to the baseline
	Bar      float64  `json:"bar"`
	Baseline *float64 `json:"baseline"` // what a ratio is against, in seconds; null when there is none
	OK       bool     `json:"ok"`

	note string // for people
}

// Results are the figures of one run.
type Results struct {
	out     io.Writer
	only    string
	figures []Figure
	failed  []string
}

// record takes a figure, unless others were asked for.
func (r *Results) record(name string, value float64, unit string, bar float64, note string, args ...any) {
	r.add(Figure{Name: name, Value: value, Unit: unit, Bar: bar, note: fmt.Sprintf(note, args...)})
}

// ratio takes a figure that is measured against a baseline.
func (r *Results) ratio(name string, took, baseline time.Duration, bar float64, note string, args ...any) {
	against := baseline.Seconds()
	r.add(Figure{
		Name: name, Value: took.Seconds() / against, Unit: "x", Bar: bar, Baseline: &against,
		note: fmt.Sprintf("%s against %s; ", round(took), round(baseline)) + fmt.Sprintf(note, args...),
	})
}

func (r *Results) add(f Figure) {
	if !wanted(f.Name, r.only) {
		return
	}
	f.OK = f.Value <= f.Bar
	r.figures = append(r.figures, f)
	r.print(f)
}

func (r *Results) print(f Figure) {
	sign := "✓"
	if !f.OK {
		sign = "✗"
	}
	_, _ = fmt.Fprintf(r.out, "%s %-30s %12s  bar %-14s %s\n", sign, f.Name, amount(f.Value, f.Unit), amount(f.Bar, f.Unit), f.note)
}

// say tells what is being done.
func (r *Results) say(format string, args ...any) {
	_, _ = fmt.Fprintf(r.out, "  "+format+"\n", args...)
}

// fail remembers what could not be measured.
func (r *Results) fail(what string, err error) {
	r.failed = append(r.failed, fmt.Sprintf("%s: %v", what, err))
	_, _ = fmt.Fprintf(r.out, "! %s could not be measured: %v\n", what, err)
}

// table prints all figures again, in one piece, and what is missing.
func (r *Results) table() {
	_, _ = fmt.Fprintln(r.out)
	for _, f := range r.figures {
		r.print(f)
	}
	for _, failure := range r.failed {
		_, _ = fmt.Fprintf(r.out, "! not measured: %s\n", failure)
	}
}

// write keeps the figures as JSON.
func (r *Results) write(path string) error {
	figures := r.figures
	if figures == nil {
		figures = []Figure{}
	}
	text, err := json.MarshalIndent(figures, "", "  ")
	if err != nil {
		return err
	}
	_, err = atomicfile.Write(path, append(text, '\n'), atomicfile.Options{Mode: 0o644})
	return err
}

func amount(value float64, unit string) string {
	text := strings.TrimRight(strings.TrimRight(fmt.Sprintf("%.3f", value), "0"), ".")
	return text + " " + unit
}

// median of at least one duration.
func median(all []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2]
}

func fastest(all []time.Duration) time.Duration { return slices.Min(all) }

// spread tells the single values of a median.
func spread(all []time.Duration) string {
	sorted := slices.Sorted(slices.Values(all))
	return fmt.Sprintf("median of %d, %s to %s", len(sorted), round(sorted[0]), round(sorted[len(sorted)-1]))
}

// round leaves three digits or so.
func round(d time.Duration) time.Duration {
	switch {
	case d > 10*time.Second:
		return d.Round(100 * time.Millisecond)
	case d > time.Second:
		return d.Round(10 * time.Millisecond)
	case d > 10*time.Millisecond:
		return d.Round(100 * time.Microsecond)
	}
	return d.Round(time.Microsecond)
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
