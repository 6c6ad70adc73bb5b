package mongo

import (
	"context"
	"time"

	"dive-agent/reconcilers"
)

// knockAgain is how long a watch leaves a member alone that does not answer.
const knockAgain = 2 * time.Second

// Watch listens to every member's own word, each over one connection, and wakes the component when a member becomes
// primary or stops being it, and when it comes or goes. The servers tell at once; nothing is polled but members that
// are away.
func (r *Reconciler) Watch(ctx context.Context, t reconcilers.Target, wake func(part string)) error {
	s, err := r.open(t)
	if err != nil {
		return err
	}
	ended := make(chan struct{})
	for _, m := range s.want.members {
		go func() {
			defer func() { ended <- struct{}{} }()
			s.watchMember(ctx, m, func() { wake("") })
		}()
	}
	for range s.want.members {
		<-ended
	}
	return ctx.Err()
}

// watchMember wakes at each change of what matters, until the context ends.
func (s *session) watchMember(ctx context.Context, m wantMember, wake func()) {
	type word struct {
		set, primary        string
		writable, secondary bool
	}
	var last word
	for ctx.Err() == nil {
		if at, err := find(ctx, s.target.Services, m); err == nil {
			_, _ = s.listen(ctx, m, at, func(h hello) bool {
				if now := (word{h.SetName, h.Primary, h.IsWritablePrimary, h.Secondary}); now != last {
					last = now
					wake()
				}
				return false
			})
		}
		if last != (word{}) && ctx.Err() == nil { // it went away
			last = word{}
			wake()
		}
		_ = pause(ctx, knockAgain)
	}
}
