package mongo

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"time"
)

// findPrimary gives the member that takes writes; an election gets some seconds.
func (s *session) findPrimary(ctx context.Context, seen []sighting) (wantMember, error) {
	if m, ok := s.writable(seen); ok {
		return m, nil
	}
	var there []wantMember
	for _, one := range seen {
		if one.found {
			there = append(there, one.member)
		}
	}
	limit := electLimit
	if len(there) == len(seen) {
		limit = calmLimit
	}
	return s.awaitPrimary(ctx, limit, there)
}

// writable is the member that says that it takes writes.
func (s *session) writable(seen []sighting) (wantMember, bool) {
	for _, one := range seen {
		if one.answers() && one.hello.IsWritablePrimary && one.hello.SetName == s.want.set {
			return one.member, true
		}
	}
	return wantMember{}, false
}

// awaitPrimary waits until a member says that it is primary, or that a host is which the manifest does not name: a
// member that is to be removed. That one is looked for behind the service of its name.
func (s *session) awaitPrimary(ctx context.Context, limit time.Duration, among []wantMember) (wantMember, error) {
	if len(among) == 0 {
		return wantMember{}, errNotYet
	}
	seen, err := s.await(ctx, limit, among, func(h hello) bool {
		_, wanted := s.want.member(h.Primary)
		return h.SetName == s.want.set && (h.IsWritablePrimary || h.Primary != "" && !wanted)
	})
	if err != nil || seen.hello.IsWritablePrimary {
		return seen.member, err
	}
	if m, ok := s.writable(s.look(ctx)); ok { // a member that has yet to be renamed
		return m, nil
	}
	stranger, err := s.stranger(ctx, seen.hello.Primary)
	if err != nil {
		return wantMember{}, err
	}
	seen = s.ask(ctx, stranger)
	if seen.err == nil && !seen.hello.IsWritablePrimary {
		seen.err = errNotYet
	}
	if seen.err != nil {
		return stranger, fmt.Errorf("the primary %s is no member of the manifest: %w", stranger.host, seen.err)
	}
	return stranger, nil
}

// memberAt finds a configured host that the manifest does not name: where it was when a manifest named it, else behind the
// service of its name.
func (s *session) memberAt(host string) (wantMember, error) {
	if at, known := s.memory.Places[host]; known {
		return wantMember{service: at.Service, host: host, port: at.Port}, nil
	}
	name, text, err := net.SplitHostPort(host)
	if err != nil {
		return wantMember{}, fmt.Errorf("the configured host %q: %w", host, err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		return wantMember{}, fmt.Errorf("the configured host %q: %w", host, err)
	}
	return wantMember{service: name, host: host, port: port}, nil
}
