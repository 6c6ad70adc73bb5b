package secrets

import (
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

// Redactor takes secret values out of texts and log records: as they are, and
// in the forms in which they travel (base64, escapes of URLs, JSON, YAML and
// HTML, hexadecimal, single lines of longer ones, the password of a URL). Values
// shorter than 6 bytes are not looked for. What was redacted stays as it is when
// it is redacted again.
//
// It is safe for concurrent use; what is added counts for everything that is
// redacted from then on, by handlers made before as well. The zero Redactor
// knows nothing and is ready for use.
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
	for _, value := range values {
		for _, v := range []string{value, passwordOf(value)} {
			if len(v) >= minHidden && !r.known[v] {
				r.known[v], grown = true, true
			}
		}
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
	spans := p.find(s)
	if len(spans) == 0 {
		return s
	}
	return replace(s, spans)
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
	return p != nil && len(p.find(text)) > 0
}
