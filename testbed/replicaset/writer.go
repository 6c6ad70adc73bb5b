package replicaset

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
)

const (
	writes = "writes"              // the collection
	pace   = 10 * time.Millisecond // between two writes at least: they notice a stall, and leave the machine to those beside them
)

// Writer inserts documents one after the other and keeps which of them a majority acknowledged.
type Writer struct {
	into   *mongo.Collection
	cancel context.CancelFunc
	ended  chan struct{}

	mu           sync.Mutex
	acknowledged []int64
	last         time.Time
	stall        time.Duration
	failed       error
}

// StartWriter writes into a collection of its own, which must be empty, until it is stopped or ctx ends.
func StartWriter(ctx context.Context, db *mongo.Database) *Writer {
	ctx, cancel := context.WithCancel(ctx)
	w := &Writer{into: db.Collection(writes), cancel: cancel, ended: make(chan struct{}), last: time.Now()}
	go func() {
		defer close(w.ended)
		next := time.NewTicker(pace)
		defer next.Stop()
		for n := int64(0); ; n++ {
			_, err := w.into.InsertOne(ctx, bson.D{{Key: "_id", Value: n}})
			w.note(ctx, n, err)
			select {
			case <-next.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	return w
}

func (w *Writer) note(ctx context.Context, n int64, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		if ctx.Err() == nil {
			w.failed = fmt.Errorf("write %d: %w", n, err)
		}
		return
	}
	w.acknowledged = append(w.acknowledged, n)
	w.stall, w.last = max(w.stall, time.Since(w.last)), time.Now()
}

// Stall is the longest time without an acknowledged write since it was asked last, the one that lasts included.
func (w *Writer) Stall() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	stall := max(w.stall, time.Since(w.last))
	w.stall = 0
	return stall
}

// Stop ends the writer and gives the ids that were acknowledged. The error is of a write that failed in spite of the
// driver's own retry.
func (w *Writer) Stop() (acknowledged []int64, err error) {
	w.cancel()
	<-w.ended
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.acknowledged, w.failed
}

// Lost gives those of the acknowledged writes into db that are not there.
func Lost(ctx context.Context, db *mongo.Database, acknowledged []int64) (lost []int64, err error) {
	found, err := db.Collection(writes).Find(ctx, bson.D{})
	if err != nil {
		return nil, fmt.Errorf("read what was written: %w", err)
	}
	var documents []struct {
		ID int64 `bson:"_id"`
	}
	if err := found.All(ctx, &documents); err != nil {
		return nil, fmt.Errorf("read what was written: %w", err)
	}
	there := map[int64]bool{}
	for _, d := range documents {
		there[d.ID] = true
	}
	for _, id := range acknowledged {
		if !there[id] {
			lost = append(lost, id)
		}
	}
	return lost, nil
}
