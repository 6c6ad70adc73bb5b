package hub

import (
	"context"
	"errors"
)

// ErrNotFound is the answer for a record or token that is not there.
var ErrNotFound = errors.New("not found")

// Store keeps records and tokens. Save replaces a whole record, with no look at what is there: the hub's
// heartbeat depends on it.
type Store interface {
	Spoke(ctx context.Context, id string) (*Record, error)
	SpokeByCode(ctx context.Context, code string) (*Record, error)
	// Spokes gives the records in a state (all with ""), newest first.
	Spokes(ctx context.Context, status string) ([]*Record, error)
	Save(ctx context.Context, record *Record) error
	Delete(ctx context.Context, id string) error

	// Link notes that one country trusts another; noting it twice changes nothing.
	Link(ctx context.Context, source, trusted string) error

	// Token gives a live token; an expired one is ErrNotFound.
	Token(ctx context.Context, token string) (*Token, error)
	// Tokens gives all tokens of a spoke, oldest first.
	Tokens(ctx context.Context, spokeID string) ([]*Token, error)
	SaveToken(ctx context.Context, token *Token) error
	DeleteTokens(ctx context.Context, spokeID string) error
}
