package compose

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/client"
)

const (
	tailLines  = 20  // that are shown
	lookLines  = 200 // in which a cause is looked for: a server that ends by itself may write a long trace after it
	tailLimit  = 5 * time.Second
	lineLength = 400
)

// causes are errors of the system that programs pass on (errno(3)): whatever else a server logs at its end, they are why.
var causes = regexp.MustCompile(`(?i)no space left on device|disk quota exceeded|read-only file system|input/output error|cannot allocate memory|too many open files|address already in use`)

// tail gives the last lines that the service's containers wrote, redacted. What cannot be had is left out.
func (r *Reconciler) tail(ctx context.Context, st *serviceState) []string {
	name := st.wantName
	if st.beside != "" {
		name = st.beside
	}
	c, err := r.engine.ContainerInspect(ctx, name, client.ContainerInspectOptions{})
	if err != nil {
		return nil
	}
	return r.tailOf(ctx, c.Container.ID)
}

func (r *Reconciler) tailOf(ctx context.Context, id string) []string {
	ctx, cancel := context.WithTimeout(ctx, tailLimit)
	defer cancel()
	logs, err := r.logs(ctx, id, time.Time{}, lookLines)
	if err != nil {
		return nil
	}
	defer func() { _ = logs.Close() }()
	text, err := io.ReadAll(io.LimitReader(logs, 1<<20))
	if err != nil && len(text) == 0 {
		return nil
	}
	var lines []string
	for line := range strings.Lines(string(bytes.ToValidUTF8(text, []byte("?")))) {
		lines = append(lines, cutLine(r.redact(strings.TrimRight(line, "\r\n"))))
	}
	if why, last := telling(lines), max(0, len(lines)-tailLines); why >= 0 && why < last && causes.MatchString(lines[why]) {
		return append([]string{lines[why]}, lines[last+1:]...)
	}
	return lines[max(0, len(lines)-tailLines):]
}

// cutLine shortens a line, around the cause where it has one.
func cutLine(line string) string {
	if len(line) <= lineLength {
		return line
	}
	if at := causes.FindStringIndex(line); at != nil && at[1] > lineLength {
		from := at[1] - lineLength/2
		return "..." + strings.ToValidUTF8(line[from:min(len(line), from+lineLength)], "") + "..."
	}
	return line[:lineLength] + "..."
}

// telling is the index of the line that says most: the last one with a cause, or else the last one; -1 when there is none.
func telling(lines []string) int {
	for i := len(lines) - 1; i >= 0; i-- {
		if causes.MatchString(lines[i]) {
			return i
		}
	}
	return len(lines) - 1
}

// lastWords gives the line of the log's end that says most as the end of a sentence.
func (r *Reconciler) lastWords(ctx context.Context, id string) string {
	return quoted(r.tailOf(ctx, id))
}

func quoted(lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	return fmt.Sprintf("; its last words: %q", lines[telling(lines)])
}

// logs gives both streams of a container's log in one.
func (r *Reconciler) logs(ctx context.Context, id string, since time.Time, lines int) (io.ReadCloser, error) {
	return containerLogs(ctx, r.engine, id, since, lines)
}

func containerLogs(ctx context.Context, engine *client.Client, id string, since time.Time, lines int) (io.ReadCloser, error) {
	c, err := engine.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if err != nil {
		return nil, fmt.Errorf("inspect the container: %w", err)
	}
	options := client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Tail: "all"}
	if lines > 0 {
		options.Tail = strconv.Itoa(lines)
	}
	if !since.IsZero() {
		options.Since = since.UTC().Format(time.RFC3339Nano)
	}
	stream, err := engine.ContainerLogs(ctx, id, options)
	if err != nil {
		return nil, fmt.Errorf("read the container's log: %w", err)
	}
	if c.Container.Config.Tty {
		return stream, nil
	}
	r, w := io.Pipe()
	go func() {
		_, err := stdcopy.StdCopy(w, w, stream)
		_ = stream.Close()
		_ = w.CloseWithError(err)
	}()
	return &piped{Reader: r, pipe: r, stream: stream}, nil
}

type piped struct {
	io.Reader
	pipe   *io.PipeReader
	stream io.Closer
}

func (p *piped) Close() error {
	_ = p.pipe.Close()
	return p.stream.Close()
}
