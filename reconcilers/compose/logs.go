package compose

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/client"
)

const (
	tailLines  = 20
	tailLimit  = 5 * time.Second
	lineLength = 400
)

// tail gives the last lines that the service's containers wrote, redacted. What cannot be had is left out.
func (r *Reconciler) tail(ctx context.Context, st *serviceState) []string {
	c, err := r.engine.ContainerInspect(ctx, st.wantName, client.ContainerInspectOptions{})
	if err != nil {
		return nil
	}
	return r.tailOf(ctx, c.Container.ID)
}

func (r *Reconciler) tailOf(ctx context.Context, id string) []string {
	ctx, cancel := context.WithTimeout(ctx, tailLimit)
	defer cancel()
	logs, err := r.logs(ctx, id, time.Time{}, tailLines)
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
		line = r.redact(strings.TrimRight(line, "\r\n"))
		if len(line) > lineLength {
			line = line[:lineLength] + "..."
		}
		lines = append(lines, line)
	}
	return lines[max(0, len(lines)-tailLines):]
}

// lastWords gives the last line of the log as the end of a sentence.
func (r *Reconciler) lastWords(ctx context.Context, id string) string {
	lines := r.tailOf(ctx, id)
	if len(lines) == 0 {
		return ""
	}
	return fmt.Sprintf("; its last words: %q", lines[len(lines)-1])
}

func quoted(lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	return fmt.Sprintf("; its last words: %q", lines[len(lines)-1])
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
