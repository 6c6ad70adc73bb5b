package gitremote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"time"
	"unicode"

	"github.com/go-git/go-git/v5/plumbing"
)

// Kind says what sort of failure an [Error] is, so that callers decide without reading texts.
type Kind int

const (
	// Unreachable: no connection, or it broke before the answer was whole. Worth another try.
	Unreachable Kind = iota
	// Timeout: the time of the operation ran out.
	Timeout
	// Canceled: the caller's context was cancelled.
	Canceled
	// Authentication: the remote does not know the credentials, or demands some.
	Authentication
	// Forbidden: the remote knows the credentials and refuses the operation.
	Forbidden
	// NotFound: the repository or the ref does not exist.
	NotFound
	// Untrusted: the remote could not prove who it is (certificate or host key).
	Untrusted
	// BadAnswer: the remote answered something that is not Git's protocol, or not all of it.
	BadAnswer
	// TooLarge: the answer exceeds a limit; the cause is a [*LimitError].
	TooLarge
	// Rejected: the remote refused to move the ref; the cause is a [*RejectedError].
	Rejected
	// ServerError: the remote answered with an error of its own.
	ServerError
	// Misconfigured: the configuration cannot be used (a file that is missing, a redirect).
	Misconfigured
)

var kindNames = map[Kind]string{
	Unreachable: "unreachable", Timeout: "timeout", Canceled: "canceled", Authentication: "authentication",
	Forbidden: "forbidden", NotFound: "not found", Untrusted: "untrusted", BadAnswer: "bad answer", TooLarge: "too large",
	Rejected: "rejected", ServerError: "server error", Misconfigured: "misconfigured",
}

// String is the kind as one or two words.
func (k Kind) String() string { return kindNames[k] }

// Error is what every operation of this package fails with. Its text names the operation and the remote,
// without credentials and without the query string of the URL.
type Error struct {
	Op     string // what was tried: "read ref", "fetch", "push"
	Remote string // the remote as [Remote.String] prints it
	Ref    string // the ref or commit concerned, may be empty
	Kind   Kind
	// RetryAfter is what the server asked for with the header of that name; 0 when it did not.
	RetryAfter time.Duration
	Err        error

	text string
}

func (e *Error) Error() string {
	what := e.Op
	if e.Ref != "" {
		what += " " + e.Ref
	}
	return fmt.Sprintf("%s at %s: %s", what, e.Remote, e.text)
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// KindOf returns the kind of the first [*Error] in err's chain, and whether there is one.
func KindOf(err error) (Kind, bool) {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind, true
	}
	return 0, false
}

// ErrRefNotFound is the cause when the remote answered and has no such ref (an empty repository has none).
var ErrRefNotFound = errors.New("the ref does not exist there")

// ErrEmptyAnswer is the cause when the remote answered with success and nothing in it. It is never a success.
var ErrEmptyAnswer = errors.New("the remote answered with success but sent nothing")

// ErrLeftOut is the cause when the remote sent a pack without the commit that was asked for, which it does when that
// commit is reachable from what the request said we have.
var ErrLeftOut = errors.New("the remote left out the commit that was asked for: it counts as reachable from the one we have")

// LimitError is the cause when an answer exceeds a limit.
type LimitError struct {
	What  string // what was counted: "bytes of the answer", "objects", ...
	Limit int64
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("more than %d %s: refused", e.Limit, e.What)
}

// RejectedError is the cause when a push did not move the ref.
type RejectedError struct {
	Ref    plumbing.ReferenceName
	Reason string // the server's words, may be empty; never a basis for decisions
	// Current is where the ref points now, read after the rejection; zero when it does not exist.
	// It differs from the expected old hash when the lease was lost.
	Current plumbing.Hash
	// LeaseLost says that the ref is not where the caller thought.
	LeaseLost bool
}

func (e *RejectedError) Error() string {
	reason := e.Reason
	if reason == "" {
		reason = "no reason given"
	}
	if e.LeaseLost {
		return fmt.Sprintf("the remote did not move %s (%s): it points to %s now", e.Ref, reason, e.Current)
	}
	return fmt.Sprintf("the remote did not move %s (%s)", e.Ref, reason)
}

// kindError carries a kind from the place that knows it up to [Remote.fail].
type kindError struct {
	kind       Kind
	retryAfter time.Duration
	err        error
}

func (e *kindError) Error() string { return e.err.Error() }
func (e *kindError) Unwrap() error { return e.err }

func ofKind(k Kind, format string, args ...any) error {
	return &kindError{kind: k, err: fmt.Errorf(format, args...)}
}

// fail turns any error into an *Error: classified, and with a text that is safe to show.
func (r *Remote) fail(ctx context.Context, op, ref string, err error) error {
	if err == nil {
		return nil
	}
	var done *Error
	if errors.As(err, &done) {
		return err
	}
	var ue *url.Error
	if errors.As(err, &ue) { // carries the whole URL in its text
		err = ue.Err
	}
	e := &Error{Op: op, Remote: r.display, Ref: ref, Err: err, Kind: classify(ctx, err)}
	var ke *kindError
	if errors.As(err, &ke) {
		e.RetryAfter = ke.retryAfter
	}
	switch e.Kind {
	case Canceled:
		e.text = "cancelled"
	case Timeout:
		e.text = fmt.Sprintf("no whole answer within %s", r.cfg.Timeout)
	default:
		e.text = r.scrub(err.Error())
	}
	return e
}

// classify goes from the most to the least certain: what was found in the answer, then whose time ended, then the
// network. A failure that nothing explains counts as Unreachable.
func classify(ctx context.Context, err error) Kind {
	var ke *kindError
	var le *LimitError
	var re *RejectedError
	var ne net.Error
	switch {
	case errors.As(err, &le):
		return TooLarge
	case errors.As(err, &re):
		return Rejected
	case errors.Is(ctx.Err(), context.DeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return Timeout
	case ctx.Err() != nil, errors.Is(err, context.Canceled):
		return Canceled
	case errors.As(err, &ke):
		return ke.kind
	case errors.Is(err, ErrRefNotFound):
		return NotFound
	case errors.Is(err, ErrEmptyAnswer), errors.Is(err, ErrLeftOut), errors.Is(err, errProtocol):
		return BadAnswer
	case errors.As(err, &ne) && ne.Timeout():
		return Timeout
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return Unreachable
	}
	if untrusted(err) {
		return Untrusted
	}
	return Unreachable
}

// maxErrorText is how much of a server's words an error carries, in bytes.
const maxErrorText = 300

// scrub makes a text safe to show: one line, bounded, no control characters, no secret of the configuration.
func (r *Remote) scrub(s string) string {
	if secrets := r.secrets.Load(); secrets != nil {
		s = secrets.Replace(s)
	}
	s = strings.Map(func(c rune) rune {
		if c == '\n' || c == '\r' || c == '\t' {
			return ' '
		}
		if unicode.IsControl(c) || c == unicode.ReplacementChar {
			return -1
		}
		return c
	}, s)
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > maxErrorText {
		s = strings.ToValidUTF8(s[:maxErrorText], "") + "..."
	}
	return s
}
