package source

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"dive-agent/atomicfile"
	"dive-agent/gitremote"
)

// Options of a source.
type Options struct {
	// Remote to follow; the caller closes it.
	Remote *gitremote.Remote
	// Branch without refs/heads/. Default "main".
	Branch string
	// Path is the folder of the repository to follow, slash-separated; empty means all of it.
	Path string
	// Dir is an absolute folder for the snapshots and the record of what was accepted. It is made when the first
	// revision is written, mode 0700. One process at a time may use it.
	Dir    string
	Limits Limits
	// Signers, when set, must have signed every new commit of the branch's first-parent line. With another list than at the
	// last start the accepted revision is checked again while the branch points to it; it stays in force in any case.
	Signers *Signers
	// Clock is the time; nil means the system's.
	Clock Clock
}

// Source follows one branch. All methods are safe for concurrent use; polls run one at a time.
type Source struct {
	opts Options
	ref  plumbing.ReferenceName

	polling sync.Mutex // held over a poll

	mu         sync.Mutex // guards the rest, never held over the network
	rec        record
	base       *stored      // content of the accepted revision; nil when it is not on disk
	candidates []*candidate // fetched, proven, neither accepted nor refused; newest last
	verdict    *verdict
	refused    *refusal
	unrelated  bool // another branch or folder was followed before: nothing to descend from
	unverified bool // the accepted revision was checked against other signers, or none
	state      State
	notices    []string
}

// candidate is a revision that was handed out and not yet judged.
type candidate struct {
	rev     Revision
	content *stored
	between map[string]bool // the commits between the accepted revision and this one, which it descends from
}

// verdict is what this package itself found wrong with a commit, so that it is not fetched at every poll.
type verdict struct {
	head, accepted string
	err            error
	until          time.Time // zero: as long as nothing changes
}

// refusal is what the caller found wrong with a revision.
type refusal struct {
	commit, reason string
	at             time.Time
}

// maxCandidates is how many revisions can be open at once; the oldest falls out.
const maxCandidates = 4

// New reads the record of an earlier run and checks that the accepted snapshot is what was accepted. It changes
// nothing on disk, except that a damaged record is set aside (see [Source.Notices]), and does not ask the remote.
func New(opts Options) (*Source, error) {
	if opts.Branch == "" {
		opts.Branch = "main"
	}
	if opts.Clock == nil {
		opts.Clock = SystemClock{}
	}
	opts.Limits = opts.Limits.withDefaults()
	opts.Path = strings.Join(splitPath(opts.Path), "/")
	s := &Source{opts: opts, ref: plumbing.NewBranchReferenceName(opts.Branch)}
	switch {
	case opts.Remote == nil:
		return nil, errors.New("a source needs a remote")
	case !filepath.IsAbs(opts.Dir):
		return nil, fmt.Errorf("the folder for snapshots has to be absolute, it is %q", opts.Dir)
	case s.ref.Validate() != nil:
		return nil, fmt.Errorf("%q is not the name of a branch", opts.Branch)
	}
	for _, part := range splitPath(opts.Path) {
		if reason := badName(part); reason != "" {
			return nil, fmt.Errorf("the folder %q cannot be followed: %s", opts.Path, reason)
		}
	}
	if err := s.load(); err != nil {
		return nil, err
	}
	s.state.Since = opts.Clock.Now()
	return s, nil
}

// load reads what was accepted before the restart. A damaged record, or a snapshot that is not what was written, is
// set aside or fetched again with a notice; only a disk that cannot be read is an error.
func (s *Source) load() error {
	fresh := record{Version: recordVersion, Remote: s.opts.Remote.String(), Branch: s.opts.Branch, Path: s.opts.Path}
	rec, err := loadRecord(s.opts.Dir)
	var damaged *recordError
	switch {
	case errors.As(err, &damaged):
		aside, err := setAside(s.opts.Dir, s.opts.Clock.Now())
		if err != nil {
			return fmt.Errorf("%w; setting it aside failed too: %w", damaged, err)
		}
		s.notices = append(s.notices, fmt.Sprintf("%v; it is kept as %s, and the branch is followed anew", damaged, aside))
		s.rec = fresh
		return nil
	case err != nil:
		return fmt.Errorf("reading the record of the followed branch: %w", err)
	case rec == nil:
		s.rec = fresh
		return nil
	}
	s.unrelated = rec.Branch != s.opts.Branch || rec.Path != s.opts.Path
	s.unverified = s.opts.Signers != nil && rec.Accepted != nil && rec.Signers != s.opts.Signers.id()
	s.rec = *rec
	if a := s.rec.Accepted; a != nil {
		a.Dir = s.snapshotDir(a.Commit, rec.Path)
		if s.base, err = verify(a.Dir, plumbing.NewHash(a.Tree), s.opts.Limits); err != nil {
			s.notices = append(s.notices, fmt.Sprintf("the snapshot of the accepted revision %s cannot be used (%v); it is fetched again", a.Short(), err))
		}
	}
	return nil
}

// snapshotDir is where a commit's snapshot lies. The followed folder is part of the name, since it decides the content.
func (s *Source) snapshotDir(commit, path string) string {
	return filepath.Join(s.opts.Dir, snapshotsDir, snapshotName(commit, path))
}

func snapshotName(commit, path string) string {
	if path == "" {
		return commit
	}
	return commit + "-" + gitremote.Short(plumbing.ComputeHash(plumbing.BlobObject, []byte(path)).String())
}

// Current is the accepted revision, whose content is on disk and was checked; false when there is none. It needs no
// network.
func (s *Source) Current() (Revision, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rec.Accepted == nil || s.base == nil {
		return Revision{}, false
	}
	return *s.rec.Accepted, true
}

// Notices are things that happened to what is on disk and that a person should know; in order of time.
func (s *Source) Notices() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.notices)
}

// Poll asks the remote where the branch is, one request with a short answer. When it moved, Poll fetches what lies
// between, proves that the new commit descends from the accepted one, checks and writes its tree, and returns the
// new revision with true. It does so at every poll until the caller calls Accept or Refuse (a caller that fails in
// between is asked again), and fetches it once.
//
// With false the revision is the accepted one, zero when there is none. A commit that was refused is not fetched again.
//
// Errors leave everything as it was. Beside [*gitremote.Error]: [*BranchMissingError], [*RewrittenError], [*TreeError],
// [*EmptyTreeError], [*UnreadableError], [*SignatureError]; or an error of the disk.
func (s *Source) Poll(ctx context.Context) (Revision, bool, error) {
	s.polling.Lock()
	defer s.polling.Unlock()
	a, err := s.poll(ctx)
	s.note(a.head, err)
	return a.rev, a.changed, err
}

// answer is what a poll found.
type answer struct {
	head    string // commit that the branch points to
	rev     Revision
	changed bool
}

// poll asks the remote, and obtains a revision only when it is not known yet. The head is given also when obtaining fails.
func (s *Source) poll(ctx context.Context) (answer, error) {
	h, err := s.opts.Remote.Ref(ctx, s.ref)
	if errors.Is(err, gitremote.ErrRefNotFound) {
		return answer{}, &BranchMissingError{Branch: s.opts.Branch, Remote: s.opts.Remote.String()}
	}
	if err != nil {
		return answer{}, err
	}
	head := h.String()
	if a, known, err := s.known(head); known {
		return a, err
	}
	c, err := s.obtain(ctx, h)
	if err != nil {
		if problemOf(err) == TooLarge {
			err = fmt.Errorf("%w. Let the server leave out what is not asked for (uploadpack.allowFilter), or take the large file out of the history", err)
		}
		s.remember(head, err)
		return answer{head: head}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.verdict = nil
	if a := s.rec.Accepted; a != nil && a.Commit == head && !s.unrelated {
		return s.restored(c)
	}
	s.candidates = append(s.candidates, c)
	if len(s.candidates) > maxCandidates {
		s.candidates = s.candidates[1:]
	}
	return answer{head, c.rev, true}, nil
}

// restored takes the accepted revision that was fetched again: because its snapshot was lost (it is new to the caller then),
// or to check its signature against other signers than before.
func (s *Source) restored(c *candidate) (answer, error) {
	changed := s.base == nil
	next := s.rec
	next.Accepted, next.Signers = &c.rev, s.opts.Signers.id()
	if err := next.save(s.opts.Dir); err != nil {
		return answer{head: c.rev.Commit}, err
	}
	s.rec, s.base, s.unverified = next, c.content, false
	return answer{c.rev.Commit, c.rev, changed}, nil
}

// known answers for a commit without asking anybody, when it can; an error is the verdict on the commit.
func (s *Source) known(head string) (a answer, known bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a = answer{head: head}
	if s.rec.Accepted != nil && s.base != nil {
		a.rev = *s.rec.Accepted
	}
	accepted := s.acceptedLocked()
	if s.refused != nil && s.refused.commit == head {
		return a, true, nil
	}
	if accepted == head && s.base != nil && !s.unrelated && !s.unverified {
		s.candidates = nil
		return a, true, nil
	}
	for _, c := range s.candidates {
		if c.rev.Commit == head {
			return answer{head, c.rev, true}, true, nil
		}
	}
	if v := s.verdict; v != nil && v.head == head && v.accepted == accepted {
		if v.until.IsZero() || s.opts.Clock.Now().Before(v.until) {
			return answer{head: head}, true, v.err
		}
	}
	return a, false, nil
}

func (s *Source) acceptedLocked() string {
	if s.rec.Accepted == nil {
		return ""
	}
	return s.rec.Accepted.Commit
}

// tooLargeFor is how long an answer that broke a limit is not asked for again.
const tooLargeFor = 15 * time.Minute

// remember keeps what is wrong with a commit itself, as opposed to the way to it.
func (s *Source) remember(head string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := &verdict{head: head, accepted: s.acceptedLocked(), err: err}
	switch problemOf(err) {
	case Rewritten, BadTree, EmptyTree, Unsigned:
		s.verdict = v
	case TooLarge:
		v.until = s.opts.Clock.Now().Add(tooLargeFor)
		s.verdict = v
	}
}

// Accept makes a revision that Poll returned the baseline: what later revisions must descend from, and what
// [Source.Current] gives, also after a restart. It is on disk when Accept returns. Accepting the accepted
// revision again does nothing.
func (s *Source) Accept(rev Revision) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.acceptedLocked() == rev.Commit && !s.unrelated {
		return nil
	}
	i := slices.IndexFunc(s.candidates, func(c *candidate) bool { return c.rev.Commit == rev.Commit })
	if i < 0 {
		return fmt.Errorf("revision %s cannot be accepted: it is not one of those that are open", rev.Short())
	}
	c := s.candidates[i]
	next := record{Version: recordVersion, Remote: s.opts.Remote.String(), Branch: s.opts.Branch, Path: s.opts.Path, Accepted: &c.rev, Signers: s.opts.Signers.id()}
	if err := next.save(s.opts.Dir); err != nil {
		return err
	}
	s.rec, s.base, s.verdict = next, c.content, nil
	s.unrelated, s.unverified = false, false
	s.candidates = slices.DeleteFunc(s.candidates, func(o *candidate) bool { return !o.between[rev.Commit] })
	return nil
}

// Refuse remembers that a revision is not to be used, and why: Poll stays silent about it until the branch moves, and
// the accepted revision stays in force. A restart forgets it, since another version of the agent may judge otherwise.
func (s *Source) Refuse(rev Revision, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused = &refusal{commit: rev.Commit, reason: reason, at: s.opts.Clock.Now().UTC()}
	s.candidates = slices.DeleteFunc(s.candidates, func(c *candidate) bool { return c.rev.Commit == rev.Commit })
}

// checkoutLife is how long a temporary snapshot may stay that its maker did not remove.
const checkoutLife = 24 * time.Hour

// Keep removes all snapshots but those of the named commits, of the accepted revision and of open ones; and what
// interrupted writes left behind, and temporary snapshots of Fetch that are older than a day.
func (s *Source) Keep(commits ...string) error {
	s.polling.Lock() // a poll may be writing one
	defer s.polling.Unlock()
	s.mu.Lock()
	keep := map[string]bool{}
	for _, c := range commits {
		keep[snapshotName(c, s.opts.Path)] = true
	}
	if a := s.rec.Accepted; a != nil {
		keep[filepath.Base(a.Dir)] = true
	}
	for _, c := range s.candidates {
		keep[filepath.Base(c.rev.Dir)] = true
	}
	s.mu.Unlock()
	if err := atomicfile.Sweep(s.opts.Dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return errors.Join(
		removeAllBut(filepath.Join(s.opts.Dir, snapshotsDir), func(d os.DirEntry) bool { return keep[d.Name()] }),
		removeAllBut(filepath.Join(s.opts.Dir, checkoutsDir), func(d os.DirEntry) bool {
			info, err := d.Info()
			return err == nil && s.opts.Clock.Now().Sub(info.ModTime()) < checkoutLife
		}),
	)
}
