package source

import (
	"context"
	"errors"
	"time"

	"dive-agent/gitremote"
)

// Problem says what stands between the branch and the host, as one word for a status.
type Problem string

const (
	None          Problem = ""
	Unreachable   Problem = "Unreachable"   // no answer, or one that broke off; also errors of the server
	Unauthorized  Problem = "Unauthorized"  // credentials refused, or the operation
	Untrusted     Problem = "Untrusted"     // certificate or host key not known
	NotFound      Problem = "NotFound"      // no such repository
	BadAnswer     Problem = "BadAnswer"     // not Git's protocol, or an empty success
	TooLarge      Problem = "TooLarge"      // more than the limits allow
	Misconfigured Problem = "Misconfigured" // the host's configuration cannot be used
	BranchMissing Problem = "BranchMissing"
	Rewritten     Problem = "Rewritten"
	EmptyTree     Problem = "EmptyTree"
	BadTree       Problem = "BadTree"
	Unreadable    Problem = "Unreadable"
	Unsigned      Problem = "Unsigned"
	Refused       Problem = "Refused" // by Refuse: the message is its reason
	Storage       Problem = "Storage" // this host's disk
)

// State is what a status says about the followed branch.
type State struct {
	Problem Problem
	Message string
	// Since is when the problem began, or when the last one ended.
	Since time.Time
	// Answered is when the remote last said where the branch is; zero: never in this process.
	Answered time.Time
	// Head is the commit that the branch pointed to then.
	Head string
	// Failures counts the polls that failed in a row.
	Failures int
	// Next is when the next poll is due; zero when nobody watches.
	Next time.Time
}

// State is the state after the last poll.
func (s *Source) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.state
	if r := s.refused; st.Problem == None && r != nil && st.Head == r.commit {
		st.Problem, st.Message, st.Since = Refused, r.reason, r.at
	}
	return st
}

// note keeps what a poll found. A poll that its caller gave up says nothing about the remote.
func (s *Source) note(head string, err error) {
	if p, ok := gitremote.KindOf(err); ok && p == gitremote.Canceled || errors.Is(err, context.Canceled) {
		return
	}
	now := s.opts.Clock.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	p := problemOf(err)
	if p != s.state.Problem {
		s.state.Since = now
	}
	s.state.Problem, s.state.Message = p, ""
	if err != nil {
		s.state.Message = err.Error()
		s.state.Failures++
	} else {
		s.state.Failures = 0
	}
	if head != "" {
		s.state.Head, s.state.Answered = head, now
	}
}

// problemOf puts an error into the few words that status and metrics know. Errors of the disk are Storage; an unknown kind
// of the remote's counts as Unreachable.
func problemOf(err error) Problem {
	if err == nil {
		return None
	}
	switch {
	case errors.As(err, new(*BranchMissingError)):
		return BranchMissing
	case errors.As(err, new(*RewrittenError)):
		return Rewritten
	case errors.As(err, new(*EmptyTreeError)):
		return EmptyTree
	case errors.As(err, new(*TreeError)):
		return BadTree
	case errors.As(err, new(*UnreadableError)):
		return Unreadable
	case errors.As(err, new(*SignatureError)):
		return Unsigned
	}
	kind, ok := gitremote.KindOf(err)
	if !ok {
		return Storage
	}
	switch kind {
	case gitremote.Authentication, gitremote.Forbidden:
		return Unauthorized
	case gitremote.Untrusted:
		return Untrusted
	case gitremote.NotFound:
		return NotFound
	case gitremote.BadAnswer:
		return BadAnswer
	case gitremote.TooLarge:
		return TooLarge
	case gitremote.Misconfigured:
		return Misconfigured
	}
	return Unreachable
}
