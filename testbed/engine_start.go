package testbed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/moby/moby/client"
)

const engineStartLimit = 60 * time.Second

func engineData() string    { return filepath.Join(CacheDir(), "engine") }
func engineLogFile() string { return filepath.Join(CacheDir(), "engine.log") }

// startEngine starts the engine on the data root in the cache. What a killed engine left behind is cleared first; a data
// root that no engine starts on is thrown away. The caller holds the engine lock.
func startEngine(ctx context.Context, say Progress) error {
	begin := time.Now()
	clearLeftovers(ctx, say)
	err := launchEngine(ctx, say)
	if err != nil && ctx.Err() == nil {
		say("the engine does not start on %s, which is thrown away now: %v", engineData(), err)
		clearLeftovers(ctx, say)
		if rmErr := os.RemoveAll(engineData()); rmErr != nil {
			return fmt.Errorf("throw away the engine's data at %s: %w (after: %w)", engineData(), rmErr, err)
		}
		err = launchEngine(ctx, say)
	}
	if err != nil {
		return fmt.Errorf("start a Docker Engine (its log is %s): %w", engineLogFile(), err)
	}
	if err := emptyEngine(ctx, say); err != nil {
		return fmt.Errorf("clear containers of an earlier engine: %w", err)
	}
	say("engine started at %s in %.1f s, data in %s", OwnHost, time.Since(begin).Seconds(), engineData())
	return nil
}

// launchEngine starts dockerd in a session of its own and waits until it answers.
func launchEngine(ctx context.Context, say Progress) error {
	for _, dir := range []string{runDir, engineExec, engineData()} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return fmt.Errorf("make the engine's folder: %w", err)
		}
	}
	log, err := os.Create(engineLogFile())
	if err != nil {
		return fmt.Errorf("make the engine's log: %w", err)
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(lookPath("dockerd"),
		"--host", OwnHost,
		"--data-root", engineData(),
		"--exec-root", engineExec,
		"--pidfile", enginePidFile,
		"--default-address-pool", "base=10.213.0.0/16,size=24", // 256 networks, not the default 31
		"--log-opt", "max-size=20m",
		"--shutdown-timeout", "10",
	)
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin", "DOCKER_RAMDISK=")
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	say("starting dockerd")
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("run dockerd: %w", err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()

	ctx, cancel := context.WithTimeout(ctx, engineStartLimit)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		select {
		case err := <-exited:
			return fmt.Errorf("dockerd ended while it started: %w\n%s", errors.Join(err), logTail())
		case <-ctx.Done():
			stopProcess(cmd.Process.Pid, 5*time.Second)
			return fmt.Errorf("dockerd did not answer within %s: %w\n%s", engineStartLimit, last, logTail())
		case <-tick.C:
			if last = answers(ctx, OwnHost); last == nil {
				return nil
			}
		}
	}
}

func logTail() string {
	raw, err := os.ReadFile(engineLogFile())
	if err != nil {
		return "    (no log: " + err.Error() + ")"
	}
	return lastLines(string(raw), 15)
}

// emptyEngine removes the containers, networks and volumes that an earlier engine left in the data root: whoever made
// them is gone. Images stay.
func emptyEngine(ctx context.Context, say Progress) error {
	cli, err := Connect(OwnHost)
	if err != nil {
		return err
	}
	defer func() { _ = cli.Close() }()
	containers, err := cli.ContainerList(ctx, client.ContainerListOptions{All: true})
	if err != nil {
		return err
	}
	for _, c := range containers.Items {
		if _, err := cli.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true}); err != nil {
			return err
		}
	}
	if n := len(containers.Items); n > 0 {
		say("removed %d containers of an earlier engine", n)
	}
	networks, err := cli.NetworkList(ctx, client.NetworkListOptions{})
	if err != nil {
		return err
	}
	for _, n := range networks.Items {
		switch n.Name {
		case "bridge", "host", "none":
			continue
		}
		if _, err := cli.NetworkRemove(ctx, n.ID, client.NetworkRemoveOptions{}); err != nil {
			return err
		}
	}
	volumes, err := cli.VolumeList(ctx, client.VolumeListOptions{})
	if err != nil {
		return err
	}
	for _, v := range volumes.Items {
		if _, err := cli.VolumeRemove(ctx, v.Name, client.VolumeRemoveOptions{Force: true}); err != nil {
			return err
		}
	}
	return nil
}

// StopEngine stops the engine that the test bed started, with its containers, and leaves any other alone. It reports
// whether there was one.
func StopEngine(ctx context.Context, say Progress) (bool, error) {
	unlock, err := lockFile(ctx, filepath.Join(runDir, "engine.lock"))
	if err != nil {
		return false, err
	}
	defer unlock()
	engines := ownEngines()
	for _, p := range engines {
		say("stopping the engine, process %d", p.pid)
		if !stopProcess(p.pid, 30*time.Second) {
			return true, fmt.Errorf("the engine, process %d, does not end", p.pid)
		}
	}
	clearLeftovers(ctx, say)
	return len(engines) > 0, nil
}

// ownEngines finds the engines that run on our socket.
func ownEngines() []process {
	return processes(func(p process) bool { return p.program() == "dockerd" && p.mentions(OwnHost) })
}

// stopProcess asks the process to end, ends it when it has not within the limit, and reports whether it is gone.
func stopProcess(pid int, limit time.Duration) bool {
	for _, step := range []struct {
		signal syscall.Signal
		limit  time.Duration
	}{{syscall.SIGTERM, limit}, {syscall.SIGKILL, 5 * time.Second}} {
		if err := syscall.Kill(pid, step.signal); errors.Is(err, syscall.ESRCH) {
			return true
		}
		if poll(context.Background(), step.limit, 20*time.Millisecond, func() error {
			if alive(pid) {
				return errors.New("process " + strconv.Itoa(pid) + " runs")
			}
			return nil
		}) == nil {
			return true
		}
	}
	return false
}

// clearLeftovers removes what an engine of ours that was killed left behind: processes, mounts, bridges, firewall rules
// and files. It is called only when no engine answers, and does what it can: what it could not clear shows when dockerd
// starts.
func clearLeftovers(ctx context.Context, say Progress) {
	endLeftProcesses(say)
	clearMounts(say)
	clearBridges(ctx, say)
	clearFirewall(ctx, say)
	for _, path := range []string{enginePidFile, engineSocket, engineExec} {
		if err := os.RemoveAll(path); err != nil {
			say("left as it is: %v", err)
		}
	}
	// dockerd prefers a machine's containerd when its socket is there, even when nothing listens.
	const socket = "/run/containerd/containerd.sock"
	if _, err := os.Stat(socket); err == nil && len(processes(func(p process) bool {
		return p.program() == "containerd" && !p.mentions(engineExec)
	})) == 0 {
		_ = os.Remove(socket)
	}
}

// endLeftProcesses ends an engine of ours that does not answer, its containerd, shims, port proxies and containers.
func endLeftProcesses(say Progress) {
	ids := map[string]bool{}
	tasks, _ := filepath.Glob(engineExec + "/containerd/daemon/io.containerd.runtime.v2.task/*/*")
	for _, t := range tasks {
		ids[filepath.Base(t)] = true
	}
	left := processes(func(p process) bool {
		switch p.program() {
		case "dockerd":
			return p.mentions(OwnHost)
		case "containerd", "containerd-shim", "containerd-shim-runc-v2", "runc":
			return p.mentions(engineExec)
		case "docker-proxy":
			return p.mentions("10.213.")
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
func clearMounts(say Progress) {
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
		if !strings.HasPrefix(at, engineExec+"/") && at != engineData() && !strings.HasPrefix(at, engineData()+"/") {
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

// clearBridges deletes Docker's bridges. No engine runs on this machine when it is called.
func clearBridges(ctx context.Context, say Progress) {
	bridges, _ := filepath.Glob("/sys/class/net/*/bridge")
	for _, dir := range bridges {
		name := filepath.Base(filepath.Dir(dir))
		if name != "docker0" && (!strings.HasPrefix(name, "br-") || len(name) != len("br-")+12) {
			continue
		}
		if _, err := (command{name: lookPath("ip"), args: []string{"link", "delete", name, "type", "bridge"}}).run(ctx); err != nil {
			say("bridge %s stays: %v", name, err)
		}
	}
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
		if strings.HasPrefix(w, "DOCKER") || w == "docker0" || (strings.HasPrefix(w, "br-") && len(w) == len("br-")+12) ||
			strings.HasPrefix(w, "10.213.") {
			return true
		}
	}
	return false
}
