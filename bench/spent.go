package bench

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"time"
)

// spent is how long something took by the clock, and of the machine's processors in all processes that it started: that says something
// on a busy machine, too.
type spent struct{ took, cpu time.Duration }

// tick is the unit of /proc/PID/stat.
const tick = 10 * time.Millisecond

// familyCPU is what a process has used, with its children and theirs, as far as they ended.
func familyCPU(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	const own, end = 11, 15 // utime, stime, cutime, cstime, see proc(5)
	if len(fields) < end {
		return 0, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	var total time.Duration
	for _, field := range fields[own:end] {
		ticks, err := strconv.ParseInt(string(field), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/%d/stat: %w", pid, err)
		}
		total += time.Duration(ticks) * tick
	}
	return total, nil
}

// usedBy is what a command that ended has used, with its children.
func usedBy(cmd *exec.Cmd) time.Duration {
	return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
}

// clocks and processors are the parts of several.
func clocks(all []spent) (took []time.Duration) {
	for _, one := range all {
		took = append(took, one.took)
	}
	return took
}

func processors(all []spent) (cpu []time.Duration) {
	for _, one := range all {
		cpu = append(cpu, one.cpu)
	}
	return cpu
}
