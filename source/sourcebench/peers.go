package sourcebench

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"dive-agent/gitremote"
	"dive-agent/hostkeys"
	"dive-agent/published"
	"dive-agent/source/peers"
)

// Statuses are status branches that others wrote, each signed and with one published output, and a reader that has taken them.
type Statuses struct {
	reader *peers.Reader
	list   []peers.Peer
	taken  map[string]*peers.Taken
}

// Statuses makes so many status branches, and takes what they hold.
func (b *Bed) Statuses(ctx context.Context, n int) (*Statuses, error) {
	keys, _, err := hostkeys.Ensure(filepath.Join(b.dir, "host"), time.Unix(1, 0))
	if err != nil {
		return nil, err
	}
	pem, _ := keys.Signer(nil) // the one pair there is
	signer, err := gitremote.NewSSHSigner(pem)
	if err != nil {
		return nil, err
	}
	s := &Statuses{reader: peers.New(peers.Options{Remote: b.Remote, Now: time.Now}), taken: map[string]*peers.Taken{}}
	for i := range n {
		p := peers.Peer{Instance: fmt.Sprintf("i%03d", i), Host: "host-01", SigningKeys: []string{keys.Public()[0].SigningKey}}
		s.list = append(s.list, p)
		if err := b.publish(ctx, p, signer); err != nil {
			return nil, err
		}
	}
	fresh, _, err := s.Read(ctx)
	if err == nil && fresh != n {
		err = fmt.Errorf("%d of %d status branches were taken", fresh, n)
	}
	return s, err
}

func (b *Bed) publish(ctx context.Context, p peers.Peer, signer gitremote.Signer) error {
	url := "https://" + p.Instance + ".example/realms/dive"
	now := time.Now().UTC().Truncate(time.Second)
	d := published.Document{APIVersion: published.APIVersion, Kind: published.Kind, Instance: p.Instance, Host: p.Host, Generation: 1}
	d.Outputs = []published.Output{{Component: "identity", Name: "realm_url", Value: &url, Generation: 1, Since: now}}
	content, err := d.Encode()
	if err != nil {
		return err
	}
	_, err = b.Remote.Commit(ctx, gitremote.CommitRequest{
		Ref: plumbing.NewBranchReferenceName("status/" + p.Instance), Message: p.Instance + ": Ready", When: now, Signer: signer,
		Files: map[string][]byte{"README.md": []byte("# " + p.Instance + "\n"), published.File: content},
	})
	return err
}

// Read reads all of them once and says how many were new, and how long it took.
func (s *Statuses) Read(ctx context.Context) (fresh int, took time.Duration, err error) {
	start := time.Now()
	answers, err := s.reader.Read(ctx, slices.Clone(s.list), func(name string) *peers.Taken { return s.taken[name] })
	took = time.Since(start)
	for _, a := range answers {
		switch {
		case a.Err != nil:
			return fresh, took, fmt.Errorf("the status of %s: %w", a.Peer.Instance, a.Err)
		case a.Refused != nil:
			return fresh, took, fmt.Errorf("the status of %s: %w", a.Peer.Instance, a.Refused)
		case a.Missing:
			return fresh, took, fmt.Errorf("the status of %s is not there", a.Peer.Instance)
		}
		if s.taken[a.Peer.Instance] = a.Taken; a.Fresh {
			fresh++
		}
	}
	return fresh, took, err
}
