package bench

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"dive-agent/agent"
	"dive-agent/report"
	"dive-agent/testbed"
	"dive-agent/testbed/stored"
)

type event = agent.Event

// agentProcess is the real program on a host of its own.
type agentProcess struct {
	world  *world
	name   string
	listen string // address of the listener, while there is one
	every  string // how often it polls; 10s when empty
	hooked bool   // its listener takes push webhooks
	cmd    *exec.Cmd
	ended  chan struct{}
	http   *http.Client
	calls  string // file with a line for each start of Terraform

	mu     sync.Mutex
	events []event
	heard  chan struct{} // closed and replaced with each event
}

func (a *agentProcess) path(parts ...string) string {
	return a.world.path(append([]string{a.name}, parts...)...)
}

// newAgent writes a host's configuration and merges the host; nothing runs yet.
func (w *world) newAgent(name string) (*agentProcess, error) {
	a := &agentProcess{world: w, name: name, heard: make(chan struct{})}
	if err := os.MkdirAll(a.path(), 0o700); err != nil {
		return nil, err
	}
	if err := os.WriteFile(a.path("git-password"), []byte(w.git.Writer().Password), 0o600); err != nil {
		return nil, err
	}
	if err := a.countTerraform(); err != nil {
		return nil, err
	}
	probe, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	a.listen = probe.Addr().String()
	if err := probe.Close(); err != nil {
		return nil, err
	}
	a.http = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "unix", a.path("agent.sock"))
	}}}
	w.agents = append(w.agents, a)
	_, err = w.merge("Add host "+name, map[string]string{"hosts/" + name + ".yaml": hostManifest(name)})
	return a, err
}

// launch has an agent of a host run and answer, in a world that is made when there is none yet.
func (w *world) launch(ctx context.Context, name string) (*agentProcess, error) {
	if err := w.open(ctx); err != nil {
		return nil, err
	}
	a, err := w.newAgent(name)
	if err != nil {
		return nil, err
	}
	return a, a.start(ctx, true)
}

// countTerraform makes a program that notes each of its starts, with the time, and becomes Terraform.
func (a *agentProcess) countTerraform() error {
	program, err := exec.LookPath("terraform")
	if err != nil {
		return fmt.Errorf("the benchmark needs Terraform: %w", err)
	}
	a.calls = a.path("terraform.calls")
	script := fmt.Sprintf("#!/bin/sh\necho \"$(date +%%s.%%3N) $*\" >> %s\nexec %s \"$@\"\n", a.calls, program)
	return os.WriteFile(a.path("terraform"), []byte(script), 0o755)
}

// terraformCalls is how often Terraform was started.
func (a *agentProcess) terraformCalls() (int, error) {
	text, err := os.ReadFile(a.calls)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	return bytes.Count(text, []byte("\n")), err
}

// configure writes agent.yaml, with or without a listener.
func (a *agentProcess) configure(listening bool) error {
	w := a.world
	more := ""
	if listening {
		more = "listen: {address: " + a.listen + "}\n"
	}
	if listening && a.hooked {
		more = "listen: {address: " + a.listen + ", hookSecretFile: hook-secret}\n"
		if err := os.WriteFile(a.path("hook-secret"), []byte(hookSecret), 0o600); err != nil {
			return err
		}
	}
	return os.WriteFile(a.path("agent.yaml"), fmt.Appendf(nil, `host: %s
machineID: %x
stateDir: state
socket: agent.sock
engine: %s
source: {url: %q, interval: %s, caFile: %s, username: %s, passwordFile: git-password}
terraform: {path: %s, cliConfig: %s}
%s`, a.name, md5.Sum([]byte(a.name)), w.host, w.git.URL("fleet"), cmp.Or(a.every, "10s"), w.git.CAFile(), w.git.Writer().Name, a.path("terraform"), w.mirror.ConfigFile, more), 0o600)
}

// start runs the agent and waits until it answers. Its events are collected from then on.
func (a *agentProcess) start(ctx context.Context, listening bool) error {
	if err := a.configure(listening); err != nil {
		return err
	}
	log, err := os.OpenFile(a.path("agent.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	a.cmd = exec.Command(a.world.run.agent, "run", "--config", a.path("agent.yaml"))
	a.cmd.Stdout, a.cmd.Stderr = log, log
	a.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // an interrupt from the terminal is ours to pass on
	if err := a.cmd.Start(); err != nil {
		return err
	}
	a.ended = make(chan struct{})
	go func(cmd *exec.Cmd, ended chan struct{}) { _ = cmd.Wait(); close(ended) }(a.cmd, a.ended) // how it ended is in its log
	err = testbed.Until(ctx, 20*time.Second, 20*time.Millisecond, "agent "+a.name+" answers", func() error { return a.get(ctx, "/v1/overview", nil, nil) })
	if err != nil {
		return fmt.Errorf("%w\n%s", err, a.lastWords())
	}
	a.mu.Lock()
	a.events = nil
	a.mu.Unlock()
	go a.listenToEvents(a.ended)
	return nil
}

func (a *agentProcess) running() bool {
	if a.ended == nil {
		return false
	}
	select {
	case <-a.ended:
		return false
	default:
		return true
	}
}

// stop ends the agent, if it runs.
func (a *agentProcess) stop(ctx context.Context) error {
	if !a.running() {
		return nil
	}
	if err := a.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	timer := time.NewTimer(20 * time.Second)
	defer timer.Stop()
	select {
	case <-a.ended:
		return nil
	case <-timer.C:
	case <-ctx.Done():
	}
	if err := a.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-a.ended
	return nil
}

// command runs one of the agent's commands with an input, and gives what it printed.
func (a *agentProcess) command(ctx context.Context, input []byte, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, a.world.run.agent, append([]string{"--config", a.path("agent.yaml")}, args...)...)
	cmd.Stdin = bytes.NewReader(input)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("dive-agent %s: %w: %s", strings.Join(args, " "), err, errs.String())
	}
	return out.String(), nil
}

// hookSecret signs the bench's push webhooks.
const hookSecret = "the-secret-of-the-bench's-webhooks"

// hook is a forge that tells the agent of a push.
func (a *agentProcess) hook(ctx context.Context) error {
	body := `{"ref": "refs/heads/main"}`
	mac := hmac.New(sha256.New, []byte(hookSecret))
	mac.Write([]byte(body))
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+a.listen+"/hooks/generic", strings.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("X-Signature-256", "sha256="+hex.EncodeToString(mac.Sum(nil)))
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusAccepted {
		return fmt.Errorf("the webhook of %s: %s", a.name, response.Status)
	}
	return nil
}

func (a *agentProcess) do(ctx context.Context, method, path string, query url.Values) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://agent"+path+"?"+query.Encode(), nil)
	if err != nil {
		return nil, err
	}
	response, err := a.http.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		defer func() { _ = response.Body.Close() }()
		text, _ := io.ReadAll(io.LimitReader(response.Body, 4096)) // what there is of it is enough
		return nil, fmt.Errorf("%s %s: %s: %s", method, path, response.Status, text)
	}
	return response, nil
}

func (a *agentProcess) get(ctx context.Context, path string, query url.Values, into any) error {
	response, err := a.do(ctx, http.MethodGet, path, query)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if into == nil {
		_, err = io.Copy(io.Discard, response.Body)
		return err
	}
	return json.NewDecoder(response.Body).Decode(into)
}

// order posts an order to the agent and gives the number above which rounds have seen it.
func (a *agentProcess) order(ctx context.Context, path string) (after int64, err error) {
	response, err := a.do(ctx, http.MethodPost, path, nil)
	if err != nil {
		return 0, err
	}
	defer func() { _ = response.Body.Close() }()
	var accepted agent.Accepted
	err = json.NewDecoder(response.Body).Decode(&accepted)
	if err == nil && accepted.Source != "" {
		err = errors.New(accepted.Source)
	}
	return accepted.After, err
}

// sync orders a look at repository and instance, and waits until a round has seen it.
func (a *agentProcess) sync(ctx context.Context, instance string) error {
	after, err := a.order(ctx, "/v1/instances/"+instance+"/sync")
	if err != nil {
		return err
	}
	return a.awaitRound(ctx, instance, after)
}

// awaitRound waits for the end of a round after one.
func (a *agentProcess) awaitRound(ctx context.Context, instance string, after int64) error {
	_, err := a.await(ctx, "a round over "+instance, func(e event) bool {
		return e.Instance == instance && e.Kind == "round" && e.Round > after
	})
	return err
}

func (a *agentProcess) status(ctx context.Context, instance string) (*report.Status, error) {
	s := &report.Status{}
	return s, a.get(ctx, "/v1/instances/"+instance, nil, s)
}

// awaitReady waits until an instance is Ready at a commit.
func (a *agentProcess) awaitReady(ctx context.Context, limit time.Duration, instance, commit string) error {
	err := testbed.Until(ctx, limit, 50*time.Millisecond, instance+" is Ready", func() error {
		s, err := a.status(ctx, instance)
		if err != nil {
			return err
		}
		if s.Phase != report.Ready || s.Applied != commit {
			return fmt.Errorf("it is %s at %.7s: %s; %s", s.Phase, s.Applied, s.News, strings.Join(s.Why, "; "))
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("%w\n%s", err, a.lastWords())
	}
	return nil
}

func (a *agentProcess) lastWords() string {
	text, _ := os.ReadFile(a.path("agent.log")) // without it there are no last words
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], "\n")
}

// listenToEvents collects the agent's events until it ends.
func (a *agentProcess) listenToEvents(ended <-chan struct{}) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-ended:
			cancel()
		case <-ctx.Done():
		}
	}()
	response, err := a.do(ctx, http.MethodGet, "/v1/events", url.Values{"follow": {"true"}, "after": {strconv.Itoa(0)}})
	if err != nil {
		return // whoever waits for an event has a limit
	}
	defer func() { _ = response.Body.Close() }()
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return
		}
		a.mu.Lock()
		a.events = append(a.events, e)
		close(a.heard)
		a.heard = make(chan struct{})
		a.mu.Unlock()
	}
}

// await gives the first event since the agent's start that is as asked, and waits for it for two minutes at most.
func (a *agentProcess) await(ctx context.Context, what string, as func(event) bool) (event, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for seen := 0; ; {
		a.mu.Lock()
		events, heard := a.events, a.heard
		a.mu.Unlock()
		for ; seen < len(events); seen++ {
			if as(events[seen]) {
				return events[seen], nil
			}
		}
		select {
		case <-heard:
		case <-ctx.Done():
			return event{}, fmt.Errorf("%s: no event tells of it: %w\n%s", what, ctx.Err(), a.lastWords())
		}
	}
}

// secret reads a value that the agent made for an instance.
func (a *agentProcess) secret(instance, name string) (string, error) {
	values, err := stored.Values(a.path("state"), instance)
	if err != nil {
		return "", err
	}
	value, ok := values[name]
	if !ok {
		return "", fmt.Errorf("%s has no secret %s", instance, name)
	}
	return value, nil
}
