// Package heap measures what a test's subject takes of memory.
package heap

import (
	"runtime"
	"time"
)

// Peak runs do and gives how many bytes the heap grew at most, looked at each millisecond, and how long it took. What
// runs beside do counts as well, so that it measures bounds and no exact numbers.
func Peak(do func()) (grew uint64, took time.Duration) {
	runtime.GC()
	inUse := func() uint64 {
		var now runtime.MemStats
		runtime.ReadMemStats(&now)
		return now.HeapAlloc
	}
	before := inUse()
	top := before
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				top = max(top, inUse())
			}
		}
	}()
	start := time.Now()
	do()
	took = time.Since(start)
	close(done)
	<-stopped
	return top - before, took
}
