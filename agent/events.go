package agent

import (
	"slices"
	"sync"
	"time"
)

// Event is one thing that happened, as the local socket tells it.
type Event struct {
	Seq      int64         `json:"seq"`
	Time     time.Time     `json:"time"`
	Instance string        `json:"instance,omitempty"`
	Node     string        `json:"node,omitempty"`
	Kind     string        `json:"kind"` // node, run, round, change, secrets, revision, source, host, phase
	State    string        `json:"state,omitempty"`
	Message  string        `json:"message,omitempty"`
	Run      string        `json:"run,omitempty"`
	Round    int64         `json:"round,omitempty"` // number of a round that ended, counted per instance from the agent's start
	Duration time.Duration `json:"duration,omitempty"`
}

// ring is how many events a late reader still gets, at least.
const ring = 1000

// bus hands events to all who listen. A slow reader misses nothing within the last 1,000 events and never holds up the
// agent.
type bus struct {
	redact func(string) string

	mu     sync.Mutex // guards what follows
	last   int64
	events []Event       // the newest, oldest first
	more   chan struct{} // closed at the next event
}

func newBus(redact func(string) string) *bus { return &bus{redact: redact, more: make(chan struct{})} }

func (b *bus) emit(e Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last++
	e.Seq, e.Message = b.last, b.redact(e.Message)
	b.events = append(b.events, e)
	if len(b.events) == 2*ring { // not at each event: all that are kept are copied
		b.events = slices.Clone(b.events[ring:])
	}
	close(b.more)
	b.more = make(chan struct{})
}

// after gives the events after seq, and a channel that is closed when there are more.
func (b *bus) after(seq int64) ([]Event, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, e := range b.events {
		if e.Seq > seq {
			return slices.Clone(b.events[i:]), b.more
		}
	}
	return nil, b.more
}
