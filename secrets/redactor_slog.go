package secrets

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync/atomic"
)

// Handler wraps a log handler: messages and attributes are redacted before
// they reach it, also attributes that a logger got before a secret was known.
func (r *Redactor) Handler(next slog.Handler) slog.Handler {
	return &logHandler{redactor: r, base: next, built: &atomic.Pointer[builtHandler]{}}
}

// logHandler keeps what WithAttrs and WithGroup were told, and applies it when
// a record comes: a handler formats attributes at once, and a secret that is
// learned later would stay in them.
type logHandler struct {
	redactor *Redactor
	base     slog.Handler
	steps    []logStep
	built    *atomic.Pointer[builtHandler]
}

// logStep is one WithGroup or (when group is empty) WithAttrs.
type logStep struct {
	group string
	attrs []slog.Attr
}

// builtHandler is base with all steps applied, as of a version of the secrets.
type builtHandler struct {
	version int
	handler slog.Handler
}

func (h *logHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.base.Enabled(ctx, level)
}

func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return h.with(logStep{attrs: attrs})
}

func (h *logHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	return h.with(logStep{group: name})
}

func (h *logHandler) with(step logStep) slog.Handler {
	steps := append(h.steps[:len(h.steps):len(h.steps)], step)
	return &logHandler{redactor: h.redactor, base: h.base, steps: steps, built: &atomic.Pointer[builtHandler]{}}
}

func (h *logHandler) Handle(ctx context.Context, record slog.Record) error {
	clean := slog.NewRecord(record.Time, record.Level, h.redactor.String(record.Message), record.PC)
	record.Attrs(func(a slog.Attr) bool {
		clean.AddAttrs(h.redactor.attr(a))
		return true
	})
	return h.ready().Handle(ctx, clean)
}

func (h *logHandler) ready() slog.Handler {
	version := 0
	if p := h.redactor.current.Load(); p != nil {
		version = p.version
	}
	if b := h.built.Load(); b != nil && b.version == version {
		return b.handler
	}
	handler := h.base
	for _, s := range h.steps {
		if s.group != "" {
			handler = handler.WithGroup(s.group)
			continue
		}
		handler = handler.WithAttrs(h.redactor.attrs(s.attrs))
	}
	h.built.Store(&builtHandler{version: version, handler: handler})
	return handler
}

func (r *Redactor) attrs(attrs []slog.Attr) []slog.Attr {
	out := make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		out[i] = r.attr(a)
	}
	return out
}

func (r *Redactor) attr(a slog.Attr) slog.Attr {
	v := a.Value.Resolve()
	switch v.Kind() {
	case slog.KindString:
		v = slog.StringValue(r.String(v.String()))
	case slog.KindGroup:
		v = slog.GroupValue(r.attrs(v.Group())...)
	case slog.KindAny:
		v = r.anyValue(v)
	}
	return slog.Attr{Key: r.String(a.Key), Value: v}
}

// anyValue hands a value of any type on when neither of the two ways in which
// handlers write it shows a secret; else its redacted text.
func (r *Redactor) anyValue(v slog.Value) slog.Value {
	text := fmt.Sprintf("%+v", v.Any())
	clean := r.String(text)
	if clean != text {
		return slog.StringValue(clean)
	}
	if err, ok := v.Any().(error); ok {
		return slog.AnyValue(r.Error(err))
	}
	if encoded, err := json.Marshal(v.Any()); err == nil && r.Contains(string(encoded)) {
		return slog.StringValue(r.String(string(encoded)))
	}
	return v
}
