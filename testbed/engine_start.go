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

// ownEngine is an engine that the test bed starts: the shared one, or one for a single test.
type ownEngine struct {
	run   string   // socket, pid file, exec root; short, since a socket's path is
	data  string   // data root
	pool  string   // the first two numbers of its networks' addresses, like "10.213."; "" for Docker's own choice
	extra []string // more options
	// firewall says that it keeps rules in the machine's firewall.
	firewall bool
}

// sharedEngine is the one that tests and demo use when the machine has none.
func sharedEngine() ownEngine {
	return ownEngine{run: runDir, data: filepath.Join(CacheDir(), "engine"), pool: "10.213.", firewall: true}
}

func (e ownEngine) socket() string  { return filepath.Join(e.run, "docker.sock") }
func (e ownEngine) host() string    { return "unix://" + e.socket() }
func (e ownEngine) exec() string    { return filepath.Join(e.run, "exec") }
func (e ownEngine) pidFile() string { return filepath.Join(e.run, "docker.pid") }
func (e ownEngine) log() string     { return e.data + ".log" }

// start starts the engine. What a killed engine left behind is cleared first; a data root that no engine starts on is
// thrown away. The caller holds the engine's lock.
func (e ownEngine) start(ctx context.Context, say Progress) error {
	begin := time.Now()
	e.clearLeftovers(ctx, say)
	err := e.launch(ctx, say)
	if err != nil && ctx.Err() == nil {
		say("the engine does not start on %s, which is thrown away now: %v", e.data, err)
		e.clearLeftovers(ctx, say)
		if rmErr := os.RemoveAll(e.data); rmErr != nil {
			return fmt.Errorf("throw away the engine's data at %s: %w (after: %w)", e.data, rmErr, err)
		}
		err = e.launch(ctx, say)
	}
	if err != nil {
		return fmt.Errorf("start a Docker Engine (its log is %s): %w", e.log(), err)
	}
	if err := e.removeContainers(ctx, say); err != nil {
		return fmt.Errorf("clear containers of an earlier engine: %w", err)
	}
	say("engine started at %s in %.1f s, data in %s", e.host(), time.Since(begin).Seconds(), e.data)
	return nil
}

// launch starts dockerd in a session of its own and waits until it answers.
func (e ownEngine) launch(ctx context.Context, say Progress) error {
	for _, dir := range []string{e.run, e.exec(), e.data} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return fmt.Errorf("make the engine's folder: %w", err)
		}
	}
	log, err := os.Create(e.log())
	if err != nil {
		return fmt.Errorf("make the engine's log: %w", err)
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(lookPath("dockerd"), append([]string{
		"--host", e.host(),
		"--data-root", e.data,
		"--exec-root", e.exec(),
		"--pidfile", e.pidFile(),
		"--log-opt", "max-size=20m",
		"--shutdown-timeout", "10",
	}, append(e.poolOptions(), e.extra...)...)...)
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	say("starting dockerd")
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("run dockerd: %w", err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	return e.await(ctx, cmd.Process.Pid, exited)
}

// poolOptions give the engine 256 networks, not the 31 of its default.
func (e ownEngine) poolOptions() []string {
	if e.pool == "" {
		return nil
	}
	return []string{"--default-address-pool", "base=" + e.pool + "0.0/16,size=24"}
}

// await returns when the engine answers. One that ends meanwhile, or does not answer in time, is an error with the last
// lines of its log.
func (e ownEngine) await(ctx context.Context, pid int, exited <-chan error) error {
	ctx, cancel := context.WithTimeout(ctx, engineStartLimit)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		select {
		case err := <-exited:
			if err == nil {
				err = errors.New("exit status 0")
			}
			return fmt.Errorf("dockerd ended while it started: %w\n%s", err, e.logTail())
		case <-ctx.Done():
			stopProcess(pid, 5*time.Second)
			return fmt.Errorf("dockerd did not answer within %s: %w\n%s", engineStartLimit, last, e.logTail())
		case <-tick.C:
			if last = answers(ctx, e.host()); last == nil {
				return nil
			}
		}
	}
}

// logTail is the end of the engine's log without what it says in good times.
func (e ownEngine) logTail() string {
	raw, err := os.ReadFile(e.log())
	if err != nil {
		return "    (no log: " + err.Error() + ")"
	}
	var lines []string
	for line := range strings.Lines(string(raw)) {
		if !strings.Contains(line, "level=info") && !strings.Contains(line, "module=grpc") {
			lines = append(lines, line)
		}
	}
	return lastLines(strings.Join(lines, ""), 15)
}

// removeContainers removes the containers, networks and volumes that an earlier engine left in the data root: whoever made
// them is gone. Images stay.
func (e ownEngine) removeContainers(ctx context.Context, say Progress) error {
	cli, err := Connect(e.host())
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
	e := sharedEngine()
	unlock, err := lockFile(ctx, filepath.Join(e.run, "engine.lock"))
	if err != nil {
		return false, err
	}
	defer unlock()
	return e.stop(ctx, say)
}

func (e ownEngine) stop(ctx context.Context, say Progress) (bool, error) {
	running := e.daemons()
	for _, p := range running {
		say("stopping the engine, process %d", p.pid)
		if !stopProcess(p.pid, 30*time.Second) {
			return true, fmt.Errorf("the engine, process %d, does not end", p.pid)
		}
	}
	e.clearLeftovers(ctx, say)
	return len(running) > 0, nil
}

// daemons finds the processes that serve this engine's socket.
func (e ownEngine) daemons() []process {
	return processes(func(p process) bool { return p.program() == "dockerd" && p.mentions(e.host()) })
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
		if Until(context.Background(), step.limit, 20*time.Millisecond, "process "+strconv.Itoa(pid), func() error {
			if alive(pid) {
				return errors.New("it runs")
			}
			return nil
		}) == nil {
			return true
		}
	}
	return false
}
