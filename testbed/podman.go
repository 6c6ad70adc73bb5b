package testbed

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/client"
)

// Podman is Debian's Podman behind its Docker API, for one test: in a folder and in namespaces of its own for networks and mounts,
// so that its bridges, firewall rules and mounts go with it and nothing of the machine's is touched. Its containers reach each
// other, and nobody else.
type Podman struct {
	tb      testing.TB
	dir     string // short: a socket's path has a limit
	service *exec.Cmd
	ended   chan struct{}
	network string // its namespace, as /proc tells it
}

// podmanConfig is containers.conf(5). crun refuses a mix of control groups of versions 1 and 2, and there is no systemd for
// either log or groups.
const podmanConfig = `[containers]
default_ulimits = ["nofile=20000:20000", "nproc=32768:32768"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
volume_path = "%[1]s/volumes"
[network]
network_backend = "netavark"
network_config_dir = "%[1]s/networks"
default_subnet = "10.91.0.0/24"
default_subnet_pools = [{base = "10.92.0.0/16", size = 24}]
`

// podmanScript gives Podman the folders that it shares with every other Podman of the machine, and starts it.
const podmanScript = `set -e
mkdir -p /run/containers /run/netns
mount -t tmpfs tmpfs /run/containers
mount -t tmpfs tmpfs /run/netns
ip link set lo up
exec podman "$@"`

const podmanLimit = 2 * time.Minute

// NewPodman installs and starts it, without any image; see [Podman.Load]. It ends with the test, with all that it ran.
func NewPodman(tb testing.TB) *Podman {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), podmanLimit)
	defer cancel()
	err := install(ctx, logProgress(tb), needProgram{"podman", "podman"}, needProgram{"catatonit", "catatonit"}, needProgram{"runc", "runc"},
		needProgram{"/usr/lib/podman/netavark", "netavark"}, needProgram{"/usr/lib/podman/aardvark-dns", "aardvark-dns"}, needProgram{"ip", "iproute2"})
	if err != nil {
		tb.Fatalf("test bed: %v", err)
	}
	dir, err := os.MkdirTemp("", "tb-podman-")
	if err != nil {
		tb.Fatalf("test bed: %v", err)
	}
	p := &Podman{tb: tb, dir: dir, ended: make(chan struct{})}
	tb.Cleanup(func() {
		if err := p.end(); err != nil {
			tb.Errorf("test bed: end Podman in %s: %v", dir, err)
		}
	})
	for _, folder := range []string{"networks", "volumes", "home"} {
		err = errors.Join(err, os.Mkdir(filepath.Join(dir, folder), 0o700))
	}
	err = errors.Join(err, os.WriteFile(filepath.Join(dir, "containers.conf"), fmt.Appendf(nil, podmanConfig, dir), 0o600))
	if err != nil {
		tb.Fatalf("test bed: prepare Podman: %v", err)
	}
	p.start(ctx)
	checks, stop := context.WithCancel(context.WithoutCancel(tb.Context()))
	checked := make(chan struct{})
	go func() {
		p.checkHealth(checks)
		close(checked)
	}()
	tb.Cleanup(func() {
		stop()
		<-checked
	})
	return p
}

// checkHealth has the health checks run, again and again, until the context ends: Podman leaves that to timers of systemd, which
// does not run in a test bed.
func (p *Podman) checkHealth(ctx context.Context) {
	socket := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", strings.TrimPrefix(p.Host(), "unix://"))
	}}
	defer socket.CloseIdleConnections()
	asks := &http.Client{Transport: socket, Timeout: podmanLimit}
	cli, err := Connect(p.Host())
	if err != nil {
		return
	}
	defer func() { _ = cli.Close() }()
	_ = Until(ctx, time.Hour, 300*time.Millisecond, "the end", func() error {
		running, err := cli.ContainerList(ctx, client.ContainerListOptions{})
		if err != nil {
			return err
		}
		for _, c := range running.Items { // one without a check is answered with an error, and so is one that has just ended
			if request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://podman/v4.0.0/libpod/containers/"+c.ID+"/healthcheck", nil); err == nil {
				if response, err := asks.Do(request); err == nil {
					_ = response.Body.Close()
				}
			}
		}
		return errors.New("not ended")
	})
}

// start runs the service that answers on the socket.
func (p *Podman) start(ctx context.Context) {
	p.tb.Helper()
	log, err := os.Create(filepath.Join(p.dir, "log"))
	if err != nil {
		p.tb.Fatalf("test bed: %v", err)
	}
	defer func() { _ = log.Close() }()
	at := func(name string) string { return filepath.Join(p.dir, name) }
	p.service = exec.Command(lookPath("unshare"), "--mount", "--net", "sh", "-c", podmanScript, "podman", "--root", at("root"), "--runroot", at("run"),
		"--storage-driver", "overlay", "--tmpdir", at("tmp"), "system", "service", "--time=0", p.Host())
	p.service.Env = append(os.Environ(), "CONTAINERS_CONF="+at("containers.conf"), "HOME="+at("home"), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	p.service.Stdout, p.service.Stderr = log, log
	p.service.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := p.service.Start(); err != nil {
		p.tb.Fatalf("test bed: start Podman: %v", err)
	}
	go func() { _ = p.service.Wait(); close(p.ended) }() // its end is what is asked for
	err = Until(ctx, engineStartLimit, 50*time.Millisecond, "Podman answers", func() error { return answers(ctx, p.Host()) })
	if err != nil {
		said, _ := os.ReadFile(at("log"))
		p.tb.Fatalf("test bed: %v\n%s", err, lastLines(string(said), 15))
	}
	p.network, _ = os.Readlink(networkOf(p.service.Process.Pid))
}

func networkOf(pid int) string { return fmt.Sprintf("/proc/%d/ns/net", pid) }

// Host is its address, good as DOCKER_HOST.
func (p *Podman) Host() string { return "unix://" + filepath.Join(p.dir, "podman.sock") }

// Client returns a client of it, closed with the test.
func (p *Podman) Client() *client.Client {
	p.tb.Helper()
	cli, err := Connect(p.Host())
	if err != nil {
		p.tb.Fatalf("test bed: %v", err)
	}
	p.tb.Cleanup(func() { _ = cli.Close() })
	return cli
}

// Load brings an image over from the shared engine, which makes it when it is missing.
func (p *Podman) Load(name ImageName) {
	p.tb.Helper()
	if err := loadImage(p.tb.Context(), Engine(p.tb), p.Client(), Image(p.tb, name)); err != nil {
		p.tb.Fatalf("test bed: %v", err)
	}
}

// end removes what ran and the service, and ends what both leave: monitors of containers, name servers.
func (p *Podman) end() error {
	ctx, cancel := context.WithTimeout(context.Background(), podmanLimit)
	defer cancel()
	var failed []error
	if p.service != nil && p.service.Process != nil {
		failed = append(failed, p.removeContainers(ctx), p.service.Process.Signal(syscall.SIGTERM))
		select {
		case <-p.ended:
		case <-time.After(20 * time.Second):
			failed = append(failed, errors.New("it does not end"), p.service.Process.Kill())
		}
	}
	for _, left := range processes(func(q process) bool {
		network, err := os.Readlink(networkOf(q.pid))
		return q.mentions(p.dir) || err == nil && network == p.network
	}) {
		stopProcess(left.pid, 2*time.Second)
	}
	return errors.Join(append(failed, os.RemoveAll(p.dir))...)
}

func (p *Podman) removeContainers(ctx context.Context) error {
	cli, err := Connect(p.Host())
	if err != nil {
		return err
	}
	defer func() { _ = cli.Close() }()
	list, err := cli.ContainerList(ctx, client.ContainerListOptions{All: true})
	if err != nil {
		return err
	}
	for _, c := range list.Items {
		if _, err := cli.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true}); err != nil && !strings.Contains(err.Error(), "no such container") {
			return err
		}
	}
	return nil
}
