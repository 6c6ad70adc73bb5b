package secrets

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"dive-agent/desired"
)

// Mark stands where a secret was.
const Mark = "(secret)"

// minHidden is the length in bytes from which a value is hidden; a shorter one cannot be told from ordinary text, and
// Store.Set takes none.
const minHidden = 6

// Redactor takes secret values out of texts, byte streams and log records: as
// they are, and in the forms in which they travel (base64, URL and JSON
// escapes, hexadecimal, single lines of longer ones). Values shorter than 6
// bytes are not looked for.
//
// It is safe for concurrent use; what is added counts for everything that is
// redacted from then on, by streams and handlers made before as well. The zero
// Redactor knows nothing and is ready for use.
type Redactor struct {
	mu      sync.Mutex // serialises Add
	known   map[string]bool
	current atomic.Pointer[patterns]
}

// NewRedactor returns one that knows the given values.
func NewRedactor(values ...string) *Redactor {
	r := &Redactor{}
	r.Add(values...)
	return r
}

// Add makes values known. Those known already cost nothing.
func (r *Redactor) Add(values ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.known == nil {
		r.known = map[string]bool{}
	}
	grown := false
	for _, v := range values {
		if len(v) < minHidden || r.known[v] {
			continue
		}
		r.known[v] = true
		grown = true
	}
	if !grown {
		return
	}
	var all []string
	for v := range r.known {
		all = append(all, forms(v)...)
	}
	version := 1
	if p := r.current.Load(); p != nil {
		version = p.version + 1
	}
	r.current.Store(newPatterns(all, version))
}

// AddValue makes every marked part of a value known, whatever its shape.
func (r *Redactor) AddValue(values ...desired.Value) {
	var found []string
	for _, v := range values {
		plain, marks := v.Cty().UnmarkDeepWithPaths()
		for _, m := range marks {
			part, err := m.Path.Apply(plain)
			if err != nil {
				part = plain // hide more, not less
			}
			found = append(found, leaves(part)...)
		}
	}
	r.Add(found...)
}

// leaves gives all texts inside a value.
func leaves(v cty.Value) (out []string) {
	_ = cty.Walk(v, func(_ cty.Path, v cty.Value) (bool, error) {
		if !v.IsKnown() || v.IsNull() || !v.Type().IsPrimitiveType() {
			return true, nil
		}
		if text, err := convert.Convert(v, cty.String); err == nil {
			out = append(out, text.AsString())
		}
		return true, nil
	})
	return out
}

// String gives the text with Mark in place of every secret. Where secrets
// overlap, one Mark stands for all of them.
func (r *Redactor) String(s string) string {
	p := r.current.Load()
	if p == nil {
		return s
	}
	spans := p.find([]byte(s), 0)
	if len(spans) == 0 {
		return s
	}
	return string(replace([]byte(s), spans))
}

// Bytes is String for bytes; it does not change b.
func (r *Redactor) Bytes(b []byte) []byte {
	p := r.current.Load()
	if p == nil {
		return slices.Clone(b)
	}
	return replace(b, p.find(b, 0))
}

// Error gives an error whose text is redacted and whose chain is the old one,
// for errors.Is and errors.As; nil for nil. Print only the outermost.
func (r *Redactor) Error(err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	clean := r.String(text)
	if clean == text {
		return err
	}
	return &redactedError{text: clean, err: err}
}

type redactedError struct {
	text string
	err  error
}

func (e *redactedError) Error() string { return e.text }
func (e *redactedError) Unwrap() error { return e.err }

// Contains says whether a text holds a secret, in any of the forms.
func (r *Redactor) Contains(text string) bool {
	p := r.current.Load()
	return p != nil && len(p.find([]byte(text), 0)) > 0
}

// errClosed is what a Writer answers after Close.
var errClosed = errors.New("write to a closed redacting writer")
