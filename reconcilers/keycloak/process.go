package keycloak

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// process is a running process that was found by where it works.
type process struct {
	pid        int
	executable string // base name
	command    string // its first argument
}

// processesIn lists the processes whose working directory is dir, this one left out.
func processesIn(dir string) []process {
	var found []process
	for _, pid := range running() {
		about := "/proc/" + strconv.Itoa(pid)
		at, err := os.Readlink(about + "/cwd")
		if err != nil || at != dir || pid == os.Getpid() {
			continue
		}
		executable, err := os.Readlink(about + "/exe")
		if err != nil {
			continue
		}
		line, _ := os.ReadFile(about + "/cmdline")
		_, arguments, _ := strings.Cut(string(line), "\x00")
		command, _, _ := strings.Cut(arguments, "\x00")
		found = append(found, process{pid: pid, executable: filepath.Base(executable), command: command})
	}
	return found
}

// running lists all processes. Of a file for each of them nothing is asked: there are hundreds.
func running() (pids []int) {
	all, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer func() { _ = all.Close() }()
	names, _ := all.Readdirnames(-1)
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// changes says whether a process may change what lies in its folder, state or providers.
func (p process) changes() bool {
	return !isProvider(p) && !slices.Contains([]string{"plan", "show", "version"}, p.command)
}

func isProvider(p process) bool { return strings.HasPrefix(p.executable, "terraform-provider-") }

// terraformRuns gives the process of a Terraform that works in the directory, 0 when there is none; then it ends the
// providers that a Terraform which is gone left behind: they would stay for ever.
func terraformRuns(dir string) int {
	all := processesIn(dir)
	for _, p := range all {
		if !isProvider(p) {
			return p.pid
		}
	}
	for _, p := range all {
		_ = syscall.Kill(p.pid, syscall.SIGKILL)
	}
	return 0
}
