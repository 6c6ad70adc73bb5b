package registration

import (
	"context"
	"net/http"
	"time"
)

// lives says whether the hub still takes a token; known is false when it did not say. It is a heartbeat that says nothing, which
// the hub refuses after it has looked at the token and before it writes anything: 400 when the token lives, 401 when it does not.
func (c *hubClient) lives(ctx context.Context, token string) (lives, known bool) {
	asking := *c
	asking.bearer = token
	switch statusOf(asking.call(ctx, http.MethodPost, "/heartbeat", struct{}{}, nil)) {
	case http.StatusBadRequest:
		return true, true
	case http.StatusUnauthorized:
		return false, true
	}
	return false, false
}

// dead finds tokens that the hub does not know any more, though they have not ended: it was put back to a time before it made
// them, or they were taken out by hand. The status call does not tell that, since it gives the oldest token that lives. Nobody is
// asked of that one, nor of those that have ended, so that mostly nobody is asked at all.
func (c *hubClient) dead(ctx context.Context, live *registered, now time.Time, tokens ...issued) map[string]bool {
	if live == nil || live.Status != approved || live.Token == nil {
		return nil
	}
	var found map[string]bool
	for _, t := range tokens {
		if t.Token == "" || t.Token == live.Token.Token || !now.Before(t.ExpiresAt) {
			continue
		}
		if lives, known := c.lives(ctx, t.Token); known && !lives {
			if found == nil {
				found = map[string]bool{}
			}
			found[t.Token] = true
		}
	}
	return found
}
