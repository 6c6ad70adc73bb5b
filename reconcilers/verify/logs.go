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

// What is read of a log: the last lines since the container started, up to so many bytes. Longer lines are cut.
const (
	maxLogLines = 50_000
	maxLogBytes = 16 << 20
	maxLine     = 64 << 10
)

// startMargin is how long before the engine's note of the start a new process may already have written: the engine
// writes the note when the process runs. A restart takes longer than this, so words of the run before do not count.
const startMargin = 100 * time.Millisecond

// logs looks for plain texts in what the service wrote since its container started.
func (t *try) logs(ctx context.Context, spec *Logs) outcome {
	c, err := t.target.Services.Find(ctx, spec.Service)
	if err != nil {
		return failed(err)
	}
	log, err := t.target.Services.Logs(ctx, spec.Service, c.StartedAt.Add(-startMargin), maxLogLines)
	if err != nil {
		return failed(err)
	}
	defer func() { _ = log.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = log.Close() })
	defer stop()
	present := spec.Present == ""
	lines := bufio.NewReaderSize(io.LimitReader(log, maxLogBytes), maxLine)
	count := 0
	for {
		line, err := readLine(lines)
		if line != "" {
			count++
		}
		if spec.Absent != "" && strings.Contains(line, spec.Absent) {
			return fail("%s wrote %q: %s", spec.Service, spec.Absent, line)
		}
		present = present || strings.Contains(line, spec.Present)
		if errors.Is(err, io.EOF) || present && spec.Absent == "" {
			break
		}
		if ctx.Err() != nil {
			return failed(ctx.Err())
		}
		if err != nil {
			return failed(fmt.Errorf("read the log of %s: %w", spec.Service, err))
		}
	}
	if !present {
		return fail("%q is not among the %d lines of %s since its container started", spec.Present, count, spec.Service)
	}
	return pass("as expected")
}

// readLine reads a line; what is longer than the buffer comes in pieces, each taken as a line.
func readLine(r *bufio.Reader) (string, error) {
	piece, err := r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		err = nil
	}
	return strings.TrimRight(string(piece), "\r\n"), err
}
