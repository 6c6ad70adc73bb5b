package hub

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"
)

// MemoryStore keeps records and tokens in the process, for tests of what has nothing to do with the database.
type MemoryStore struct {
	now    func() time.Time
	mu     sync.Mutex
	spokes map[string]Record
	tokens []Token
	links  map[[2]string]bool
}

// NewMemoryStore is an empty store.
func NewMemoryStore(now func() time.Time) *MemoryStore {
	return &MemoryStore{now: now, spokes: map[string]Record{}, links: map[[2]string]bool{}}
}

// Link implements Store.
func (s *MemoryStore) Link(_ context.Context, source, trusted string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.links[[2]string{source, trusted}] = true
	return nil
}

// Spoke implements Store.
func (s *MemoryStore) Spoke(_ context.Context, id string) (*Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	record, ok := s.spokes[id]
	if !ok {
		return nil, ErrNotFound
	}
	return &record, nil
}

// SpokeByCode implements Store.
func (s *MemoryStore) SpokeByCode(_ context.Context, code string) (*Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, record := range s.spokes {
		if record.InstanceCode == code {
			return &record, nil
		}
	}
	return nil, ErrNotFound
}

// Spokes implements Store.
func (s *MemoryStore) Spokes(_ context.Context, status string) ([]*Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := []*Record{}
	for _, record := range s.spokes {
		if status == "" || record.Status == status {
			found = append(found, &record)
		}
	}
	slices.SortFunc(found, func(a, b *Record) int {
		return cmp.Or(b.RegisteredAt.Compare(a.RegisteredAt), cmp.Compare(a.SpokeID, b.SpokeID))
	})
	return found, nil
}

// Save implements Store.
func (s *MemoryStore) Save(_ context.Context, record *Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spokes[record.SpokeID] = *record
	return nil
}

// Delete implements Store.
func (s *MemoryStore) Delete(_ context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.spokes, id)
	return nil
}

// Token implements Store.
func (s *MemoryStore) Token(_ context.Context, token string) (*Token, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.tokens {
		if t.Token == token && t.ExpiresAt.After(s.now()) {
			return &t, nil
		}
	}
	return nil, ErrNotFound
}

// Tokens implements Store.
func (s *MemoryStore) Tokens(_ context.Context, spokeID string) ([]*Token, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := []*Token{}
	for _, t := range s.tokens {
		if t.SpokeID == spokeID {
			found = append(found, &t)
		}
	}
	return found, nil
}

// SaveToken implements Store.
func (s *MemoryStore) SaveToken(_ context.Context, token *Token) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens = append(s.tokens, *token)
	return nil
}

// DeleteTokens implements Store.
func (s *MemoryStore) DeleteTokens(_ context.Context, spokeID string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens = slices.DeleteFunc(s.tokens, func(t Token) bool { return t.SpokeID == spokeID })
	return nil
}
