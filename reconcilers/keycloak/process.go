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
	links, _ := filepath.Glob("/proc/[0-9]*/cwd")
	for _, link := range links {
		at, err := os.Readlink(link)
		if err != nil || at != dir {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(link)))
		if err != nil || pid == os.Getpid() {
			continue
		}
		executable, err := os.Readlink(filepath.Join(filepath.Dir(link), "exe"))
		if err != nil {
			continue
		}
		line, _ := os.ReadFile(filepath.Join(filepath.Dir(link), "cmdline"))
		_, arguments, _ := strings.Cut(string(line), "\x00")
		command, _, _ := strings.Cut(arguments, "\x00")
		found = append(found, process{pid: pid, executable: filepath.Base(executable), command: command})
	}
	return found
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
