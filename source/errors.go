package source

import (
	"fmt"

	"github.com/go-git/go-git/v5/plumbing"

	"dive-agent/gitremote"
)

// RewrittenError says that the branch no longer descends from the accepted revision.
type RewrittenError struct {
	Branch   string
	Accepted string // commit that stays in force
	Found    string // commit that the branch points to
}

func (e *RewrittenError) Error() string {
	return fmt.Sprintf("branch %s was rewritten: %s does not descend from the accepted %s, which stays in force; "+
		"bring the branch back, or merge %s into it", e.Branch, gitremote.Short(e.Found), gitremote.Short(e.Accepted), gitremote.Short(e.Accepted))
}

// BranchMissingError says that the remote answered and has no such branch.
type BranchMissingError struct {
	Branch string
	Remote string
}

func (e *BranchMissingError) Error() string {
	return fmt.Sprintf("branch %s does not exist at %s; what was accepted last stays in force", e.Branch, e.Remote)
}

// TreeError says what in a revision's tree is refused.
type TreeError struct {
	Commit string
	Path   string // with unprintable characters escaped; empty when the whole tree is meant
	Reason string
}

func (e *TreeError) Error() string {
	if e.Path == "" {
		return fmt.Sprintf("revision %s is refused: %s", gitremote.Short(e.Commit), e.Reason)
	}
	return fmt.Sprintf("revision %s is refused: %s: %s", gitremote.Short(e.Commit), e.Path, e.Reason)
}

// EmptyTreeError says that a revision has no files. It is never read as a removal of everything.
type EmptyTreeError struct {
	Commit string
	Path   string // the configured folder, when one is
}

func (e *EmptyTreeError) Error() string {
	if e.Path != "" {
		return fmt.Sprintf("revision %s is refused: there are no files in %s", gitremote.Short(e.Commit), e.Path)
	}
	return fmt.Sprintf("revision %s is refused: its tree is empty", gitremote.Short(e.Commit))
}

// UnreadableError says that a revision's objects are missing or malformed.
type UnreadableError struct {
	Commit string
	Err    error
}

func (e *UnreadableError) Error() string {
	return fmt.Sprintf("revision %s cannot be read: %v", gitremote.Short(e.Commit), e.Err)
}

// Unwrap gives the cause.
func (e *UnreadableError) Unwrap() error { return e.Err }

// SignatureError says which new commit is not signed as demanded.
type SignatureError struct {
	Commit string // the commit that was checked
	Reason string
}

func (e *SignatureError) Error() string {
	return fmt.Sprintf("commit %s is refused: %s", gitremote.Short(e.Commit), e.Reason)
}

// missingError says that an object is neither in a fetch nor in the accepted revision.
type missingError struct{ hash plumbing.Hash }

func (e *missingError) Error() string { return "object " + e.hash.String() + " is missing" }
