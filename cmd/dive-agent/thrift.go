package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// When an agent gives back what it needed for a moment: soon after its start, and now and then, as a new revision, a plan of
// Terraform's or a rollout needs more than a quiet host.
const (
	giveBackFirst = 30 * time.Second
	giveBackEvery = 5 * time.Minute
)

// keepSmall gives memory back until ctx ends. It costs some 10 ms of a processor each time.
func (h *host) keepSmall(ctx context.Context) {
	for next := time.After(giveBackFirst); ; next = time.After(giveBackEvery) {
		select {
		case <-next:
			debug.FreeOSMemory()
			if err := letGoOfProgram(); err != nil {
				h.log.Debug("the pages of the program stay in memory", "error", err)
			}
		case <-ctx.Done():
			return
		}
	}
}

// letGoOfProgram unmaps the pages of this program's own file, most of which were needed once, at the start. What is needed again is mapped
// again from the kernel's cache of that file, which is shared and makes way for what needs memory. Only mappings of which
// nothing was ever written are touched (madvise(2), MADV_DONTNEED: a write would be lost).
func letGoOfProgram() error {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	text, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		return err
	}
	var from, to uintptr // of a mapping of the program; to is 0 in another one
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		switch {
		case len(fields) >= 6 && strings.Contains(fields[0], "-"):
			from, to = 0, 0
			if strings.Join(fields[5:], " ") == program && strings.HasPrefix(fields[1], "r-") && strings.HasSuffix(fields[1], "p") {
				if _, err := fmt.Sscanf(fields[0], "%x-%x", &from, &to); err != nil {
					return fmt.Errorf("/proc/self/smaps: %w", err)
				}
			}
		case len(fields) == 3 && fields[0] == "Anonymous:" && fields[1] == "0" && to > 0:
			if _, _, errno := unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED); errno != 0 {
				return fmt.Errorf("madvise: %w", errno)
			}
		}
	}
	return lines.Err()
}
