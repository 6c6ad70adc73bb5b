package testbed

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// process is a running program as /proc shows it.
type process struct {
	pid  int
	args []string
}

// processes lists what runs and matches; our own process is never in it.
func processes(match func(p process) bool) []process {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	var found []process
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || pid == os.Getpid() || pid == 1 {
			continue
		}
		raw, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil || len(raw) == 0 {
			continue
		}
		p := process{pid: pid, args: strings.Split(string(bytes.TrimRight(raw, "\x00")), "\x00")}
		if match(p) {
			found = append(found, p)
		}
	}
	return found
}

// program is the base name of what was started.
func (p process) program() string { return filepath.Base(p.args[0]) }

// mentions reports whether an argument holds the text.
func (p process) mentions(text string) bool {
	for _, a := range p.args[1:] {
		if strings.Contains(a, text) {
			return true
		}
	}
	return false
}

// cgroup is the text of the process's control groups, empty when it is gone.
func (p process) cgroup() string {
	raw, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.pid), "cgroup"))
	return string(raw)
}

// alive reports whether the process runs and is more than a zombie.
func alive(pid int) bool {
	raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return false
	}
	rest := raw[bytes.LastIndexByte(raw, ')')+1:]
	fields := strings.Fields(string(rest))
	return len(fields) > 0 && fields[0] != "Z" && fields[0] != "X"
}

// endGroup puts the program into a process group of its own and makes a cancelled context end the whole group.
func endGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error {
		return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
}
