package secrets

import (
	"errors"
	"io"
	"sync"
)

// Writer redacts a stream. It holds back only bytes that could be the beginning
// of a secret, at most as many as the longest secret has; Close hands on the
// rest. It is safe for concurrent use.
type Writer struct {
	redactor *Redactor
	to       io.Writer

	mu     sync.Mutex
	held   []byte
	hidden int // so many bytes of held belong to a secret whose Mark is written
	err    error
}

var _ io.WriteCloser = (*Writer)(nil)

// Writer returns a stream that writes to w what is redacted of what it gets.
func (r *Redactor) Writer(w io.Writer) *Writer { return &Writer{redactor: r, to: w} }

// Write implements io.Writer. An error of the underlying writer stays; nothing
// is written after it.
func (w *Writer) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return 0, w.err
	}
	w.held = append(w.held, b...)
	if err := w.pass(false); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Flush hands on everything that is held back, for the end of a line that
// people wait for. A secret that continues after it is not recognised.
func (w *Writer) Flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return w.err
	}
	return w.pass(true)
}

// Close hands on the rest. It does not close the underlying writer. A second
// call does nothing.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if errors.Is(w.err, errClosed) {
		return nil
	}
	if w.err != nil {
		return w.err
	}
	err := w.pass(true)
	w.err = errClosed
	return err
}

// pass writes what can be judged; with all it writes everything.
func (w *Writer) pass(all bool) error {
	p := w.redactor.current.Load()
	if p == nil {
		p = &patterns{}
	}
	until := len(w.held)
	if !all {
		until = p.unfinished(w.held)
	}
	var out []byte
	at, hidden := 0, max(0, w.hidden-until)
	for _, s := range p.find(w.held, w.hidden) {
		if s.start >= until {
			break
		}
		out = append(out, w.held[at:s.start]...)
		if s.start > 0 || w.hidden == 0 {
			out = append(out, Mark...)
		}
		at = s.end
		// A secret that ends behind the bytes that go now: its Mark is out.
		hidden = max(0, s.end-until)
	}
	if at < until {
		out = append(out, w.held[at:until]...)
	}
	w.held, w.hidden = append(w.held[:0], w.held[until:]...), hidden
	if len(out) == 0 {
		return nil
	}
	_, err := w.to.Write(out)
	w.err = err
	return err
}
