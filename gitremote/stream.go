package gitremote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
)

// stream is a running service at the other end of two pipes.
type stream struct {
	in   io.WriteCloser // its standard input
	out  io.Reader      // its standard output
	said *tail          // its standard error
	// stop ends the service and frees everything; it waits for all that it started. Errors of the
	// service itself are of no use once the answer was read.
	stop func()
	// wait waits for the service to end by itself and says how, for when there was no answer.
	wait func() error
}

// streamWire holds a conversation per operation, over SSH or with a process: gitprotocol-pack(5).
type streamWire struct {
	r *Remote
	// open starts a service. It asks for version 2 with GIT_PROTOCOL, which a server is free to ignore.
	open func(ctx context.Context, svc service, v2 bool) (*stream, error)
}

// conversation is a stream whose advertisement was read.
type conversation struct {
	*stream
	adv *advertisement
	in  *pktReader
}

// begin starts the service and reads what it says first.
func (s *streamWire) begin(ctx context.Context, svc service, v2 bool, limit int64) (*conversation, error) {
	st, err := s.open(ctx, svc, v2)
	if err != nil {
		return nil, err
	}
	limited := &limitedReader{r: st.out, limit: limit}
	c := &conversation{stream: st, in: newPktReader(limited)}
	if c.adv, err = readAdvertisement(c.in); err != nil {
		if limited.read == 0 && ctx.Err() == nil {
			err = st.silent(err)
		}
		st.stop()
		return nil, cutShort(err)
	}
	return c, nil
}

// silent says why a service ended without a word on its output.
func (st *stream) silent(err error) error {
	if !errors.Is(err, io.EOF) {
		return err
	}
	_ = st.in.Close()
	werr := st.wait()
	if text := st.said.String(); text != "" {
		return serverSaid(text)
	}
	if werr != nil {
		return fmt.Errorf("the Git service ended without an answer: %w", werr)
	}
	return ErrEmptyAnswer
}

// bye ends a conversation that was understood.
func (c *conversation) bye() {
	_, _ = io.WriteString(c.stream.in, "0000")
	_ = c.stream.in.Close()
	c.stop()
}

func (s *streamWire) list(ctx context.Context, request []byte, _ []string) (*advertisement, error) {
	c, err := s.begin(ctx, uploadPack, true, s.r.cfg.Limits.Refs)
	if err != nil {
		return nil, err
	}
	defer c.bye()
	if !c.adv.v2 {
		return c.adv, nil
	}
	if _, err := c.stream.in.Write(request); err != nil {
		return nil, err
	}
	refs, err := readLsRefs(c.in)
	if err != nil {
		return nil, cutShort(err)
	}
	return &advertisement{refs: refs, caps: c.adv.caps, v2: true}, nil
}

func (s *streamWire) fetch(ctx context.Context, req fetchRequest) (*packAnswer, error) {
	c, err := s.begin(ctx, uploadPack, true, s.r.cfg.Limits.Refs+s.r.cfg.Limits.Wire)
	if err != nil {
		return nil, err
	}
	defer c.stop()
	if !c.adv.v2 && len(c.adv.refs) == 0 {
		return nil, ErrRefNotFound
	}
	if _, err := c.stream.in.Write(req.encode(c.adv.v2, s.r.cfg.UserAgent)); err != nil {
		return nil, err
	}
	_ = c.stream.in.Close()
	answer, err := readPackAnswer(c.in, c.adv.v2, req.depth > 0)
	if err != nil {
		return nil, c.explain(err)
	}
	return answer, nil
}

func (s *streamWire) push(ctx context.Context, req pushRequest) (*pushReport, error) {
	c, err := s.begin(ctx, receivePack, false, s.r.cfg.Limits.Refs)
	if err != nil {
		return nil, err
	}
	defer c.stop()
	if _, err := c.stream.in.Write(req.encode(s.r.cfg.UserAgent)); err != nil {
		return nil, c.explain(err)
	}
	_ = c.stream.in.Close()
	report, err := readPushReport(c.in)
	if err != nil {
		return nil, c.explain(err)
	}
	return report, nil
}

// explain adds what the service wrote to its standard error to an answer that broke off.
func (c *conversation) explain(err error) error {
	if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	err = cutShort(err)
	if text := c.said.String(); text != "" {
		return fmt.Errorf("%w; it said: %s", err, text)
	}
	return err
}

func (s *streamWire) close() {}

// tail keeps the end of what is written to it.
type tail struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

const maxTail = 2 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf.Write(p[max(0, len(p)-maxTail):])
	if over := t.buf.Len() - maxTail; over > 0 {
		t.buf.Next(over)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(t.buf.String())
}

// quote makes one word for the shell at an SSH server's side, the way Git does (quote.c, sq_quote_buf).
func quote(s string) string {
	r := strings.NewReplacer(`'`, `'\''`, `!`, `'\!'`)
	return "'" + r.Replace(s) + "'"
}
