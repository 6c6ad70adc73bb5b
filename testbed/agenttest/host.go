package agenttest

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"dive-agent/report"
	"dive-agent/testbed"
)

// Host is one host of a fleet with the agent's program.
type Host struct {
	tb     testing.TB
	Name   string
	Dir    string // configuration, state and log
	Binary string
	Env    []string // of agents started from now on

	mu      sync.Mutex
	running *exec.Cmd
	ended   chan struct{}
}

// HostOptions are what differs between hosts.
type HostOptions struct {
	Name     string // default host-01
	Engine   string // DOCKER_HOST; default the test bed's
	StateDir string // default in the host's folder
	Tags     []string
	Stripped bool   // without the race detector, as `make build` makes it; Tags are of no use then
	Interval string // of polls; default 1s
	Resync   string // how often an instance in sync is looked at again; default 2s
	More     string // lines added to agent.yaml
	Source   string // more fields of its source, ", key: value"
}

// NewHost writes a host's configuration; nothing runs yet. Agents are ended with the test.
func NewHost(tb testing.TB, f *Fleet, o HostOptions) *Host {
	tb.Helper()
	if o.Name == "" {
		o.Name = "host-01"
	}
	if o.Engine == "" {
		o.Engine = testbed.Host(tb)
	}
	if o.Interval == "" {
		o.Interval = "1s"
	}
	if o.Resync == "" {
		o.Resync = "2s"
	}
	if o.StateDir == "" {
		o.StateDir = "state"
	}
	dir, err := os.MkdirTemp("", "dive-host-") // short: the path of a socket has a limit
	if err != nil {
		tb.Fatalf("make the host's folder: %v", err)
	}
	h := &Host{tb: tb, Name: o.Name, Dir: dir}
	if o.Stripped {
		h.Binary = Stripped(tb)
	} else {
		h.Binary = Binary(tb, o.Tags...)
	}
	tb.Cleanup(func() {
		h.Kill()
		if tb.Failed() {
			tb.Logf("the agent's log on %s:\n%s", h.Name, tail(h.Log(), 60))
		}
		_ = os.RemoveAll(dir) // what cannot be removed is in the system's folder for temporary files
	})
	user := f.Server.Writer()
	h.write("git-password", user.Password)
	h.write("agent.yaml", fmt.Sprintf(`host: %s
machineID: %x
stateDir: %s
socket: agent.sock
engine: %s
resync: %s
logLevel: debug
source: {url: %q, interval: %s, caFile: %s, username: %s, passwordFile: git-password%s}
%s
`, o.Name, md5.Sum([]byte(o.Name)), o.StateDir, o.Engine, o.Resync, f.Server.URL("fleet"), o.Interval, f.Server.CAFile(), user.Name, o.Source, o.More))
	return h
}

func (h *Host) write(name, content string) {
	h.tb.Helper()
	if err := os.WriteFile(filepath.Join(h.Dir, name), []byte(content), 0o600); err != nil {
		h.tb.Fatalf("write %s of host %s: %v", name, h.Name, err)
	}
}

// Config is the path of the host's agent.yaml.
func (h *Host) Config() string { return filepath.Join(h.Dir, "agent.yaml") }

// Start runs the agent as the service does, and waits until it answers.
func (h *Host) Start() {
	h.tb.Helper()
	h.Launch()
	testbed.Eventually(h.tb, 20*time.Second, "the agent of "+h.Name+" answers", func() error {
		_, err := h.Try("status")
		return err
	})
}

// Launch runs the agent and does not wait; it may end at any time.
func (h *Host) Launch() {
	h.tb.Helper()
	log, err := os.OpenFile(filepath.Join(h.Dir, "agent.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		h.tb.Fatalf("open the log of host %s: %v", h.Name, err)
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(h.Binary, "run", "--config", h.Config())
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), h.Env...)
	if err := cmd.Start(); err != nil {
		h.tb.Fatalf("start the agent of host %s: %v", h.Name, err)
	}
	ended := make(chan struct{})
	h.mu.Lock()
	h.running, h.ended = cmd, ended
	h.mu.Unlock()
	go func() { _ = cmd.Wait(); close(ended) }() // its end is what tests ask for
}

// Ended is closed when the agent that was started last has ended.
func (h *Host) Ended() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ended
}

// Signal sends a signal to the agent.
func (h *Host) Signal(signal syscall.Signal) {
	h.tb.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.running.Process.Signal(signal); err != nil {
		h.tb.Fatalf("signal the agent of host %s: %v", h.Name, err)
	}
}

// Stop ends the agent with SIGTERM and waits for its end.
func (h *Host) Stop() {
	h.tb.Helper()
	h.Signal(syscall.SIGTERM)
	select {
	case <-h.Ended():
	case <-time.After(time.Minute):
		h.tb.Fatalf("the agent of host %s does not stop", h.Name)
	}
}

// Kill ends the agent with SIGKILL; one that does not run is no error.
func (h *Host) Kill() {
	h.mu.Lock()
	running, ended := h.running, h.ended
	h.mu.Unlock()
	if running == nil {
		return
	}
	if err := running.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		h.tb.Errorf("kill the agent of host %s: %v", h.Name, err)
		return
	}
	<-ended
}

// PeakMemory is the most that the agent that was started last had resident at a time, in bytes. It has to run.
func (h *Host) PeakMemory() int64 {
	h.tb.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	peak, err := testbed.Memory(h.running.Process.Pid, testbed.PeakResident)
	if err != nil {
		h.tb.Fatalf("the memory of the agent of host %s: %v", h.Name, err)
	}
	return peak
}

// Try runs one of the agent's commands on this host and gives what it printed.
func (h *Host) Try(args ...string) (string, error) { return h.with("", args...) }

// Provide keeps a secret that the manifest says is provided, as an operator does.
func (h *Host) Provide(instance, name, value string) {
	h.tb.Helper()
	if out, err := h.with(value, "secrets", "set", instance, name); err != nil {
		h.tb.Fatalf("%v\n%s", err, out)
	}
}

// Replace gives a secret that is there another value, as an operator does.
func (h *Host) Replace(instance, name, value string) {
	h.tb.Helper()
	if out, err := h.with(value, "secrets", "set", instance, name, "--replace"); err != nil {
		h.tb.Fatalf("%v\n%s", err, out)
	}
}

// with is Try with an input.
func (h *Host) with(input string, args ...string) (string, error) {
	cmd := exec.Command(h.Binary, append([]string{"--config", h.Config()}, args...)...)
	cmd.Env = append(os.Environ(), h.Env...)
	cmd.Dir, cmd.Stdin = h.Dir, strings.NewReader(input)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("dive-agent %s: %w: %s", strings.Join(args, " "), err, errs.String())
	}
	return out.String(), nil
}

// Do is Try for what must succeed.
func (h *Host) Do(args ...string) string {
	h.tb.Helper()
	out, err := h.Try(args...)
	if err != nil {
		h.tb.Fatalf("%v\n%s", err, out)
	}
	return out
}

// Status asks the agent for the status of an instance, as `dive-agent status NAME --output json` does, without a process of
// its own for each of the many times that a test asks.
func (h *Host) Status(instance string) (*report.Status, error) {
	socket := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(h.Dir, "agent.sock"))
	}}
	defer socket.CloseIdleConnections()
	response, err := (&http.Client{Transport: socket, Timeout: 10 * time.Second}).Get("http://agent/v1/instances/" + instance)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		return nil, errors.Join(err, fmt.Errorf("the agent of %s answers %s: %s", h.Name, response.Status, body))
	}
	s := &report.Status{}
	return s, json.Unmarshal(body, s)
}

// lookEvery is how long a test that waits leaves the agent alone between two looks at a status, which are work for it.
const lookEvery = 50 * time.Millisecond

// Await waits until the status of an instance is as asked, and gives it.
func (h *Host) Await(limit time.Duration, instance, what string, as func(*report.Status) bool) (s *report.Status) {
	h.tb.Helper()
	err := testbed.Until(h.tb.Context(), limit, lookEvery, instance+" "+what, func() (err error) {
		if s, err = h.Status(instance); err != nil {
			return err
		}
		if !as(s) {
			return fmt.Errorf("it is %s at %.7s: %s; why: %s", s.Phase, s.Attempted, s.News, strings.Join(s.Why, "; "))
		}
		return nil
	})
	if err != nil {
		h.tb.Fatal(err)
	}
	return s
}

// AwaitPhase waits for a phase at a commit (any, when empty).
func (h *Host) AwaitPhase(limit time.Duration, instance string, phase report.Phase, commit string) *report.Status {
	h.tb.Helper()
	return h.Await(limit, instance, "is "+string(phase), func(s *report.Status) bool {
		return s.Phase == phase && (commit == "" || s.Attempted == commit)
	})
}

// Log is what all agents of this host logged.
func (h *Host) Log() string {
	content, err := os.ReadFile(filepath.Join(h.Dir, "agent.log"))
	if err != nil {
		return ""
	}
	return string(content)
}

func tail(text string, lines int) string {
	all := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
