package testbed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/client"
)

// Where an engine that we start lives. One machine has one; its folder does not outlive a reboot.
const (
	runDir        = "/run/dive-testbed"
	defaultSocket = "/var/run/docker.sock"
)

// OwnHost is the address of the engine that the test bed starts when no other answers.
const OwnHost = "unix://" + runDir + "/docker.sock"

var (
	engineMu   sync.Mutex
	engineHost string
)

// EnsureEngine returns the address (a DOCKER_HOST value) of an engine that answers: that of DOCKER_HOST, of the default
// socket, or one that it installs and starts, which then outlives this process. started tells whether this call started
// it. Safe between processes.
func EnsureEngine(ctx context.Context, say Progress) (host string, started bool, err error) {
	engineMu.Lock()
	defer engineMu.Unlock()
	if engineHost != "" && answers(ctx, engineHost) == nil {
		return engineHost, false, nil
	}
	if host := findEngine(ctx, say); host != "" {
		engineHost = host
		return host, false, nil
	}
	if os.Geteuid() != 0 {
		return "", false, errors.New("no Docker Engine answers at DOCKER_HOST or " + defaultSocket +
			", and only root can start one: start Docker, or run this as root")
	}
	unlock, err := lockFile(ctx, filepath.Join(runDir, "engine.lock"))
	if err != nil {
		return "", false, fmt.Errorf("start the engine: %w", err)
	}
	defer unlock()
	if host := findEngine(ctx, func(string, ...any) {}); host != "" {
		engineHost = host
		return host, false, nil
	}
	err = install(ctx, say, needProgram{"dockerd", "docker.io"}, needProgram{"iptables", "iptables"}, needProgram{"ip", "iproute2"})
	if err != nil {
		return "", false, err
	}
	if answers(ctx, "unix://"+defaultSocket) == nil { // the package's own service was started
		engineHost = "unix://" + defaultSocket
		return engineHost, false, nil
	}
	if err := sharedEngine().start(ctx, say); err != nil {
		return "", false, err
	}
	engineHost = OwnHost
	return OwnHost, true, nil
}

// RunningEngine returns the address of an engine that answers, or "" when there is none. It starts nothing.
func RunningEngine(ctx context.Context) string {
	return findEngine(ctx, func(string, ...any) {})
}

func findEngine(ctx context.Context, say Progress) string {
	candidates := []string{"unix://" + defaultSocket, OwnHost}
	if host := os.Getenv("DOCKER_HOST"); host != "" {
		candidates = append([]string{host}, candidates...)
	}
	for i, host := range candidates {
		err := answers(ctx, host)
		if err == nil {
			return host
		}
		if i == 0 && os.Getenv("DOCKER_HOST") != "" {
			say("DOCKER_HOST=%s does not answer, looking further: %v", host, err)
		}
	}
	return ""
}

// answers asks the engine at host for a sign of life, for at most 3 seconds.
func answers(ctx context.Context, host string) error {
	if path, ok := strings.CutPrefix(host, "unix://"); ok {
		if _, err := os.Stat(path); err != nil {
			return err
		}
	}
	cli, err := Connect(host)
	if err != nil {
		return err
	}
	defer func() { _ = cli.Close() }()
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	_, err = cli.Ping(ctx, client.PingOptions{NegotiateAPIVersion: true})
	return err
}

// Connect returns a client for the engine at host. It does not talk to it yet.
func Connect(host string) (*client.Client, error) {
	opts := []client.Opt{client.WithHost(host)}
	if !strings.HasPrefix(host, "unix://") {
		opts = []client.Opt{client.FromEnv, client.WithHost(host)} // TLS settings come from the environment
	}
	cli, err := client.New(opts...)
	if err != nil {
		return nil, fmt.Errorf("a client for the engine at %s: %w", host, err)
	}
	return cli, nil
}
