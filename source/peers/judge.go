package peers

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"dive-agent/gitremote"
	"dive-agent/published"
	"dive-agent/source"
)

// ahead is how far another host's clock may be ahead of this one's.
const ahead = 10 * time.Minute

// judge gives what counts of a peer once its branch points to head. An error that is a *Refusal says that it does not count.
func judge(objects *gitremote.Objects, p Peer, head plumbing.Hash, taken *Taken, now time.Time) (*Taken, error) {
	if taken != nil && taken.Host != p.Host { // what another host wrote is no measure for this one
		taken = nil
	}
	commit, err := objects.Commit(head)
	if err != nil {
		return nil, refuse(head, Malformed, fmt.Sprintf("commit %s cannot be read: %v", short(head), err), wayOfForgery(p))
	}
	signers, err := source.HostSigners(p.Host, p.SigningKeys)
	if err == nil {
		_, err = signers.Verify(commit)
	}
	if err != nil {
		return nil, refuse(head, NotSigned, fmt.Sprintf("commit %s does not count as %s's: %v", short(head), p.Host, err), wayOfForgery(p))
	}
	next := &Taken{Instance: p.Instance, Host: p.Host, Commit: head.String(), Committed: commit.Committer.When.UTC(), Revision: appliedBy(commit.Message)}
	if next.Committed.After(now.Add(ahead)) {
		return nil, refuse(head, FromTheFuture, fmt.Sprintf("commit %s says that it is of %s", short(head), next.Committed.Format(time.RFC3339)),
			fmt.Sprintf("set the clock of %s, or of this host", p.Host))
	}
	if taken != nil && taken.Committed.After(next.Committed) {
		next.Committed = taken.Committed
	}
	file, err := commit.File(published.File)
	if err != nil { // the branch of an instance that publishes nothing
		if taken != nil && taken.Generation > 0 {
			return nil, replayed(head, p, "has no outputs", taken)
		}
		return next, nil
	}
	if next.Content, err = read(file.Size, file.Reader); err != nil {
		return nil, refuse(head, Malformed, fmt.Sprintf("%s of commit %s: %v", published.File, short(head), err), wayOfForgery(p))
	}
	return next, next.fits(head, p, taken)
}

// read gives the content of a file whose size was said.
func read(size int64, open func() (io.ReadCloser, error)) ([]byte, error) {
	if size > published.MaxBytes {
		return nil, fmt.Errorf("it has %d bytes, allowed are %d", size, published.MaxBytes)
	}
	file, err := open()
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(io.LimitReader(file, published.MaxBytes+1))
	return content, errors.Join(err, file.Close())
}

// fits judges a document by where it was found and what was taken before.
func (t *Taken) fits(head plumbing.Hash, p Peer, before *Taken) error {
	d, err := published.Decode(t.Content)
	if err != nil {
		return refuse(head, Malformed, fmt.Sprintf("%s of commit %s: %v", published.File, short(head), err),
			fmt.Sprintf("when the agent of %s is newer than this one, update this one", p.Host))
	}
	if d.Instance != p.Instance || d.Host != p.Host {
		return refuse(head, WrongPlace, fmt.Sprintf("what the branch of %s holds was published by %s on %s, and %s runs on %s", p.Instance, d.Instance, d.Host, p.Instance, p.Host), wayOfForgery(p))
	}
	t.Generation = d.Generation
	if before == nil {
		return nil
	}
	if d.Generation < before.Generation {
		return replayed(head, p, fmt.Sprintf("is of generation %d", d.Generation), before)
	}
	if d.Generation == before.Generation && published.Digest(t.Content) != published.Digest(before.Content) {
		return refuse(head, Forked, fmt.Sprintf("commit %s has other outputs than what was read before of the same generation, %d", short(head), d.Generation),
			fmt.Sprintf("find out whether two agents have the keys of %s", p.Host))
	}
	return nil
}

func replayed(head plumbing.Hash, p Peer, found string, before *Taken) *Refusal {
	return refuse(head, Replayed, fmt.Sprintf("commit %s %s, and generation %d was read before: somebody put an old status back", short(head), found, before.Generation), wayOfForgery(p))
}

func short(h plumbing.Hash) string { return gitremote.Short(h.String()) }

// appliedBy reads from the message of a status commit (package report writes it) which revision is applied; empty when none is.
// Only of the trailers, which are the last lines and the agent's own words.
func appliedBy(message string) string {
	lines := strings.Split(strings.TrimRight(message, "\n"), "\n")
	for _, line := range slices.Backward(lines) {
		if line == "" {
			break
		}
		if revision, ok := strings.CutPrefix(line, "Dive-Applied: "); ok && plumbing.IsHash(revision) {
			return revision
		}
	}
	return ""
}
