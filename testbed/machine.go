package testbed

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
)

// The memory of a process, as proc(5) names it.
const (
	Resident     = "VmRSS"
	PeakResident = "VmHWM" // the most that was resident at a time since its start
	OwnResident  = "RssAnon"
)

// Memory is how much of a process's memory of this kind there is, in bytes.
func Memory(pid int, kind string) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(text) {
		if fields := bytes.Fields(line); len(fields) == 3 && string(fields[0]) == kind+":" {
			kib, err := strconv.ParseInt(string(fields[1]), 10, 64)
			return kib * 1024, err
		}
	}
	return 0, fmt.Errorf("/proc/%d/status has no %s", pid, kind)
}

// LoadAverage is how many tasks ran or waited for a processor in the last minute, on average; 0 where that cannot be told.
func LoadAverage() (load float64) {
	text, err := os.ReadFile("/proc/loadavg")
	if err == nil {
		_, err = fmt.Sscan(string(text), &load)
	}
	if err != nil {
		return 0
	}
	return load
}
