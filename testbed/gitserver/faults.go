package gitserver

import (
	"bytes"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// Kind of misbehaviour.
type Kind string

// What the server can do wrong. SSH knows Silence alone; every kind works over HTTPS.
const (
	// Silence accepts connections and says nothing: not even TLS, or SSH's version line.
	Silence Kind = "silence"
	// Hang takes the request and never answers.
	Hang Kind = "hang"
	// Cut sends the first Bytes bytes of the answer's body and drops the connection.
	Cut Kind = "cut"
	// CutClean sends the first Bytes bytes and ends the answer as if it were whole.
	CutClean Kind = "cut-clean"
	// Empty answers 200 with the right content type and no body.
	Empty Kind = "empty"
	// Page answers Status (500 when not set) with an HTML page of Bytes bytes (300 MB when not set).
	Page Kind = "page"
	// Garbage answers 200 with the right content type and Bytes bytes (64 KiB when not set) that are no protocol.
	Garbage Kind = "garbage"
	// Trickle answers one byte each 100 ms, for ever.
	Trickle Kind = "trickle"
	// Status answers Status with a short body, and a Retry-After of RetryAfter when that is set.
	Status Kind = "status"
	// Redirect answers 302 to Location.
	Redirect Kind = "redirect"
)

// Fault is what to do wrong, and to whom.
type Fault struct {
	Kind Kind
	// Service limits the fault to git-upload-pack or git-receive-pack; empty means both.
	Service string
	// Times is how many requests get the fault; 0 means all until ClearFault.
	Times      int
	Bytes      int64
	Status     int
	RetryAfter time.Duration
	Location   string
}

// SetFault replaces the fault in force. Connections that are open stay open.
func (s *Server) SetFault(fault Fault) { s.faults.set(&fault) }

// ClearFault makes the server behave again, and lets go of requests and connections that hang.
func (s *Server) ClearFault() { s.faults.set(nil) }

type faults struct {
	mu       sync.Mutex
	fault    *Fault
	used     int
	released chan struct{} // closed when what hangs must end
}

func (f *faults) set(fault *Fault) {
	f.mu.Lock()
	f.fault, f.used = fault, 0
	f.mu.Unlock()
	f.releaseHung()
}

func (f *faults) releaseHung() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.released != nil {
		close(f.released)
		f.released = nil
	}
}

// takenFault is a fault that is being carried out, until over is closed.
type takenFault struct {
	Fault
	over <-chan struct{}
}

// take returns the fault when one of the kinds is in force for the service, and counts it as used.
func (f *faults) take(service string, wanted func(Kind) bool) (takenFault, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fault := f.fault
	if fault == nil || !wanted(fault.Kind) || fault.Times > 0 && f.used >= fault.Times {
		return takenFault{}, false
	}
	if fault.Service != "" && service != "" && fault.Service != service {
		return takenFault{}, false
	}
	f.used++
	if f.released == nil {
		f.released = make(chan struct{})
	}
	return takenFault{Fault: *fault, over: f.released}, true
}

func isCut(kind Kind) bool { return kind == Cut || kind == CutClean }

// cut is the number of bytes after which the answer ends, or -1, and whether it ends cleanly.
func (f *faults) cut(service string) (limit int64, clean bool) {
	fault, ok := f.take(service, isCut)
	if !ok {
		return -1, false
	}
	return fault.Bytes, fault.Kind == CutClean
}

// before answers the request in the server's place when a fault says so.
func (f *faults) before(w http.ResponseWriter, r *http.Request, service string) bool {
	fault, ok := f.take(service, func(kind Kind) bool { return !isCut(kind) && kind != Silence })
	if !ok {
		return false
	}
	switch fault.Kind {
	case Hang:
		select {
		case <-r.Context().Done():
		case <-fault.over:
		}
		panic(http.ErrAbortHandler)
	case Empty:
		w.Header().Set("Content-Type", contentType(r, service))
		w.WriteHeader(http.StatusOK)
	case Page:
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(orElse(fault.Status, http.StatusInternalServerError))
		fill(w, orElse(fault.Bytes, 300<<20), "<p>Something went wrong. Please try again.</p>\n")
	case Garbage:
		w.Header().Set("Content-Type", contentType(r, service))
		fill(w, orElse(fault.Bytes, 64<<10), "zzzz\x00\xff\x13 not a packet line ")
	case Trickle:
		w.Header().Set("Content-Type", contentType(r, service))
		trickle(w, r, fault.over)
	case Status:
		if fault.RetryAfter > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int(fault.RetryAfter/time.Second)))
		}
		http.Error(w, "the server was told to say this", orElse(fault.Status, http.StatusServiceUnavailable))
	case Redirect:
		http.Redirect(w, r, fault.Location, http.StatusFound)
	}
	return true
}

func trickle(w http.ResponseWriter, r *http.Request, over <-chan struct{}) {
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		if _, err := w.Write([]byte("0")); err != nil {
			return
		}
		w.(http.Flusher).Flush()
		select {
		case <-ticker.C:
		case <-r.Context().Done():
			return
		case <-over:
			return
		}
	}
}

func fill(w http.ResponseWriter, size int64, text string) {
	block := bytes.Repeat([]byte(text), 1+(64<<10)/len(text))
	for size > 0 {
		n, err := w.Write(block[:min(size, int64(len(block)))])
		if err != nil {
			return // the client has seen enough
		}
		size -= int64(n)
	}
}

func contentType(r *http.Request, service string) string {
	if r.Method == http.MethodGet {
		return "application/x-" + service + "-advertisement"
	}
	return "application/x-" + service + "-result"
}

func orElse[T int | int64](value, otherwise T) T {
	if value == 0 {
		return otherwise
	}
	return value
}

// listener hands over accepted connections, unless Silence is in force: those stay open and unanswered.
func (f *faults) listener(inner net.Listener) net.Listener {
	return &silentListener{Listener: inner, faults: f}
}

type silentListener struct {
	net.Listener
	faults *faults
}

func (l *silentListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		fault, silent := l.faults.take("", func(kind Kind) bool { return kind == Silence })
		if !silent {
			return conn, nil
		}
		go func() {
			<-fault.over
			conn.Close()
		}()
	}
}
