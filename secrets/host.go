package secrets

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"dive-agent/desired"
)

// Host gives the secrets of all instances of a host, and tells the redactor
// each value before it hands it out. It is safe for concurrent use. All of its
// fields but Blocked are needed.
type Host struct {
	Random   io.Reader
	Now      func() time.Time
	Redactor *Redactor
	// Blocked, when set, turns a Resolvable into the caller's kind of error
	// for what waits for a person.
	Blocked func(Resolvable) error

	mu     sync.Mutex
	stores map[string]*Store // by folder
}

// Ensure is Store.Ensure for the secrets of an instance kept in dir.
func (h *Host) Ensure(ctx context.Context, instance *desired.Instance, dir string,
	hasData func(context.Context) ([]string, error),
) (values map[string]desired.Value, made []string, err error) {
	store, err := h.open(instance.Name, dir)
	if err != nil {
		return nil, nil, err
	}
	got, err := store.Ensure(ctx, instance.Secrets, EnsureOptions{HasData: hasData})
	if err != nil {
		return nil, nil, h.explain(err)
	}
	h.learn(got.Values)
	return got.Values, got.Made, nil
}

// Peek is Store.Peek for the secrets of an instance kept in dir.
func (h *Host) Peek(_ context.Context, instance *desired.Instance, dir string) (map[string]desired.Value, error) {
	store, err := h.open(instance.Name, dir)
	if err != nil {
		return nil, err
	}
	values, err := store.Peek(instance.Secrets)
	if err != nil {
		return nil, h.explain(err)
	}
	h.learn(values)
	return values, nil
}

func (h *Host) open(instance, dir string) (*Store, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if store := h.stores[dir]; store != nil {
		return store, store.makeFolders()
	}
	store, err := Open(Options{Instance: instance, Dir: dir, Random: h.Random, Now: h.Now})
	if err != nil {
		return nil, err
	}
	if err := store.Sweep(); err != nil {
		return nil, err
	}
	if h.stores == nil {
		h.stores = map[string]*Store{}
	}
	h.stores[dir] = store
	return store, nil
}

func (h *Host) learn(values map[string]desired.Value) {
	for _, v := range values {
		h.Redactor.AddValue(v)
	}
}

func (h *Host) explain(err error) error {
	var r Resolvable
	if h.Blocked != nil && errors.As(err, &r) {
		return h.Blocked(r)
	}
	return err
}
