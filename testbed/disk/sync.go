// Package disk makes disks fail as real ones do, for tests of what must survive that.
package disk

import (
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// WithoutSync runs do on a thread for which the kernel answers every fsync and fdatasync with EIO, as it does for a disk
// that cannot write: what must be durable then fails, and what forgot to sync succeeds. Other threads are not concerned,
// so do must not leave its work to other goroutines. See seccomp(2).
func WithoutSync(tb testing.TB, do func()) {
	tb.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine, and its filter with it
		err := refuseSync()
		if err == nil {
			do()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		tb.Fatalf("make the kernel refuse to sync: %v", err)
	}
}

// refuseSync sets the calling thread's filter.
func refuseSync() error {
	const number = 0 // of the system call, in struct seccomp_data
	refuse := uint32(unix.SECCOMP_RET_ERRNO | unix.EIO)
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: number},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_FSYNC, Jt: 2},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_FDATASYNC, Jt: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
		{Code: unix.BPF_RET | unix.BPF_K, K: refuse},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0)
}
