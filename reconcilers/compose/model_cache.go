package compose

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"sync"
)

// cache keeps the models that were loaded last. A model is loaded once although many parts ask for it at the same time,
// and again when a file that shaped it has changed.
type cache struct {
	mu      sync.Mutex
	limit   int
	entries map[[32]byte]*entry
	order   [][32]byte // oldest first
}

type entry struct {
	mu    sync.Mutex
	model *model
}

func newCache(limit int) *cache { return &cache{limit: limit, entries: map[[32]byte]*entry{}} }

// load gives the model of the request. Failures are not kept.
func (c *cache) load(ctx context.Context, r request) (*model, error) {
	e := c.entry(r.key())
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.model != nil && fresh(e.model.stamps) {
		return e.model, nil
	}
	m, err := load(ctx, r)
	if err != nil {
		return nil, err
	}
	e.model = m
	return m, nil
}

func (c *cache) entry(key [32]byte) *entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.entries[key]; ok {
		return e
	}
	if len(c.order) >= c.limit {
		delete(c.entries, c.order[0])
		c.order = c.order[1:]
	}
	e := &entry{}
	c.entries[key] = e
	c.order = append(c.order, key)
	return e
}

// key digests the request; values of the environment are in it only as a digest.
func (r request) key() [32]byte {
	text, err := json.Marshal([]any{r.sourceDir, r.projectDir, r.secretsDir, r.project, r.files, r.profiles, r.env, r.unknown, r.shallow})
	if err != nil {
		panic(err) // strings and maps of strings always marshal
	}
	return sha256.Sum256(text)
}
