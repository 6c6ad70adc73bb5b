package testbed

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// clearLeftovers removes what an engine of ours that was killed left behind: processes, mounts, bridges, firewall rules
// and files. It is called only when no engine answers, and does what it can: what it could not clear shows when dockerd
// starts.
func (e ownEngine) clearLeftovers(ctx context.Context, say Progress) {
	e.endProcesses(say)
	e.clearMounts(say)
	e.clearBridges(ctx, say)
	if e.firewall {
		clearFirewall(ctx, say)
	}
	for _, path := range []string{e.pidFile(), e.socket(), e.exec()} {
		if err := os.RemoveAll(path); err != nil {
			say("left as it is: %v", err)
		}
	}
	// dockerd prefers a machine's containerd when its socket is there, even when nothing listens.
	const socket = "/run/containerd/containerd.sock"
	if _, err := os.Stat(socket); err == nil && len(processes(func(p process) bool {
		return p.program() == "containerd" && !p.mentions("/exec/containerd/")
	})) == 0 {
		_ = os.Remove(socket)
	}
}

// endProcesses ends an engine of ours that does not answer, its containerd, shims, port proxies and containers.
func (e ownEngine) endProcesses(say Progress) {
	ids := map[string]bool{}
	tasks, _ := filepath.Glob(e.exec() + "/containerd/daemon/io.containerd.runtime.v2.task/*/*")
	for _, t := range tasks {
		ids[filepath.Base(t)] = true
	}
	left := processes(func(p process) bool {
		switch p.program() {
		case "dockerd":
			return p.mentions(e.host())
		case "containerd", "containerd-shim", "containerd-shim-runc-v2", "runc":
			return p.mentions(e.exec())
		case "docker-proxy":
			return e.pool != "" && p.mentions(e.pool)
		}
		for _, line := range strings.Split(p.cgroup(), "\n") {
			if ids[filepath.Base(line)] {
				return true
			}
		}
		return false
	})
	for _, p := range left {
		_ = syscall.Kill(p.pid, syscall.SIGKILL)
	}
	for _, p := range left {
		stopProcess(p.pid, time.Second)
	}
	if len(left) > 0 {
		say("ended %d processes of an engine that was killed", len(left))
	}
}

// clearMounts lets go of mounts below our folders, the deepest first.
func (e ownEngine) clearMounts(say Progress) {
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return
	}
	lines := strings.Split(string(raw), "\n")
	cleared := 0
	for i := len(lines) - 1; i >= 0; i-- {
		fields := strings.Fields(lines[i])
		if len(fields) < 5 {
			continue
		}
		at := strings.ReplaceAll(fields[4], `\040`, " ")
		if !strings.HasPrefix(at, e.exec()+"/") && at != e.data && !strings.HasPrefix(at, e.data+"/") {
			continue
		}
		if syscall.Unmount(at, syscall.MNT_DETACH) == nil {
			cleared++
		}
	}
	if cleared > 0 {
		say("let go of %d mounts of an engine that was killed", cleared)
	}
}

// clearBridges deletes the bridges whose addresses are of this engine's pool.
func (e ownEngine) clearBridges(ctx context.Context, say Progress) {
	interfaces, err := net.Interfaces()
	if err != nil || e.pool == "" {
		return
	}
	for _, i := range interfaces {
		if i.Name != "docker0" && !isDockerBridge(i.Name) {
			continue
		}
		addresses, err := i.Addrs()
		if err != nil || !slices.ContainsFunc(addresses, func(a net.Addr) bool { return strings.HasPrefix(a.String(), e.pool) }) {
			continue
		}
		if _, err := (command{name: lookPath("ip"), args: []string{"link", "delete", i.Name, "type", "bridge"}}).run(ctx); err != nil {
			say("bridge %s stays: %v", i.Name, err)
		}
	}
}

// isDockerBridge tells Docker's names for the bridges of networks.
func isDockerBridge(name string) bool {
	return strings.HasPrefix(name, "br-") && len(name) == len("br-")+12
}

// clearFirewall deletes the rules and chains that Docker made. The engine makes its own again at its start; rules for
// bridges that are gone would otherwise stay for ever.
func clearFirewall(ctx context.Context, say Progress) {
	iptables := lookPath("iptables")
	if iptables == "" {
		return
	}
	for _, table := range []string{"nat", "filter"} {
		out, err := (command{name: iptables, args: []string{"-w", "-t", table, "-S"}}).run(ctx)
		if err != nil {
			continue
		}
		for _, args := range firewallUndo(out) {
			if _, err := (command{name: iptables, args: append([]string{"-w", "-t", table}, args...)}).run(ctx); err != nil {
				say("a firewall rule stays: %v", err)
			}
		}
	}
}

// firewallUndo turns the listing of one table (iptables -S) into the commands that remove what Docker put there.
func firewallUndo(listing string) [][]string {
	var rules, flush, drop [][]string
	for _, line := range strings.Split(listing, "\n") {
		words := strings.Fields(line)
		if len(words) < 2 {
			continue
		}
		ours := strings.HasPrefix(words[1], "DOCKER")
		switch {
		case words[0] == "-N" && ours:
			flush = append(flush, []string{"-F", words[1]})
			drop = append(drop, []string{"-X", words[1]})
		case words[0] == "-A" && !ours && mentionsDocker(words):
			rules = append(rules, append([]string{"-D"}, words[1:]...))
		}
	}
	return append(append(rules, flush...), drop...)
}

func mentionsDocker(words []string) bool {
	for _, w := range words {
		if strings.HasPrefix(w, "DOCKER") || w == "docker0" || isDockerBridge(w) || strings.HasPrefix(w, "10.213.") {
			return true
		}
	}
	return false
}
