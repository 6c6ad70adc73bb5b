package verify

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// What is read of a log: the last lines since the anchor, up to so many bytes. Longer lines are cut.
const (
	maxLogLines = 50_000
	maxLogBytes = 16 << 20
	maxLine     = 64 << 10
)

// startMargin is how long before the engine's note of the start a new process may already have written: the engine
// writes the note when the process runs. A restart takes longer than this, so words of the run before do not count.
const startMargin = 100 * time.Millisecond

// logs looks for plain texts in what the service wrote since its container started, or since the last change. Its lines are
// counted and never told.
func (t *try) logs(ctx context.Context, spec *Logs) outcome {
	c, err := t.target.Services.Find(ctx, spec.Service)
	if err != nil {
		return failed(err)
	}
	anchor, words := c.StartedAt, "its container started"
	if spec.Since == "change" {
		words = "the last change"
		for _, service := range servicesOf(t.target) {
			if other, err := t.target.Services.Find(ctx, service); err == nil && other.StartedAt.After(anchor) {
				anchor = other.StartedAt
			}
		}
	}
	log, err := t.target.Services.Logs(ctx, spec.Service, anchor.Add(-startMargin), maxLogLines)
	if err != nil {
		return failed(err)
	}
	defer func() { _ = log.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = log.Close() })
	defer stop()
	seen, err := search(ctx, log, spec)
	if err != nil {
		return failed(fmt.Errorf("read the log of %s: %w", spec.Service, err))
	}
	o := pass("as expected since %s", words)
	switch {
	case seen.absent > 0:
		o = fail("%s wrote %q since %s at %s", spec.Service, spec.Absent, words, clock(anchor))
	case spec.Present != "" && seen.present == 0:
		o = fail("%q is not in the log of %s since %s at %s", spec.Present, spec.Service, words, clock(anchor))
	}
	if spec.Absent != "" {
		o = o.count("absentFound", seen.absent)
	}
	if spec.Present != "" {
		o = o.count("presentFound", seen.present)
	}
	return o.count("lines", seen.lines).date("since", anchor)
}

// sightings are the lines of a log that were read, and in how many a text was found.
type sightings struct{ lines, absent, present int64 }

func search(ctx context.Context, log io.Reader, spec *Logs) (seen sightings, err error) {
	lines := bufio.NewReaderSize(io.LimitReader(log, maxLogBytes), maxLine)
	for {
		line, err := readLine(lines)
		if line != "" {
			seen.lines++
		}
		if spec.Absent != "" && strings.Contains(line, spec.Absent) {
			seen.absent++
		}
		if spec.Present != "" && strings.Contains(line, spec.Present) {
			seen.present++
		}
		switch {
		case ctx.Err() != nil:
			return seen, ctx.Err()
		case errors.Is(err, io.EOF):
			return seen, nil
		case err != nil:
			return seen, err
		}
	}
}

// readLine reads a line; what is longer than the buffer comes in pieces, each taken as a line.
func readLine(r *bufio.Reader) (string, error) {
	piece, err := r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		err = nil
	}
	return strings.TrimRight(string(piece), "\r\n"), err
}
