// Package lab runs services as plain containers for the tests of reconcilers that talk to services but do not run
// them. Everything it makes bears the test's own prefix and goes with the test. Production code must never import it.
package lab

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"dive-agent/reconcilers"
	"dive-agent/testbed"
)

// cleanupLimit bounds each call that takes something down.
const cleanupLimit = 30 * time.Second

// Lab is a network of its own with services in it. It implements reconcilers.Services.
type Lab struct {
	tb     testing.TB
	engine *client.Client
	prefix string

	LastWords func(service string) // called before a container of a failed test is removed; nil: nobody asks

	mu  sync.Mutex
	far map[string]bool // services beyond a part
}

var _ reconcilers.Services = (*Lab)(nil)

// Service is what one container runs.
type Service struct {
	Image   string
	Command []string
	Env     []string
	Files   map[string]File   // by absolute path
	Volumes map[string]string // name -> path; a volume outlives the container and goes with the test
	Publish []uint16          // TCP ports published on 127.0.0.1
}

// File is put into a container before it starts.
type File struct {
	Content string
	Mode    int64
	Owner   int
}

// New makes a network.
func New(tb testing.TB) *Lab {
	tb.Helper()
	l := &Lab{tb: tb, engine: testbed.Engine(tb), prefix: testbed.Prefix(tb)}
	l.network(l.prefix, nil)
	return l
}

// network makes a network that is removed after the test.
func (l *Lab) network(name string, options map[string]string) {
	l.tb.Helper()
	if _, err := l.engine.NetworkCreate(l.tb.Context(), name, client.NetworkCreateOptions{Options: options}); err != nil {
		l.tb.Fatalf("make network %s: %v", name, err)
	}
	l.cleanup("network "+name, func(ctx context.Context) error {
		_, err := l.engine.NetworkRemove(ctx, name, client.NetworkRemoveOptions{})
		return err
	})
}

// cleanup undoes one thing after the test, even when the test's context has ended.
func (l *Lab) cleanup(what string, undo func(ctx context.Context) error) {
	l.tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), cleanupLimit)
		defer cancel()
		if err := undo(ctx); err != nil && !errdefs.IsNotFound(err) {
			l.tb.Errorf("remove %s: %v", what, err)
		}
	})
}

func (l *Lab) name(service string) string { return l.prefix + "-" + service }

// Run starts a service; one of that name that is there is replaced.
func (l *Lab) Run(service string, s Service) {
	l.tb.Helper()
	l.Remove(service)
	ctx := l.tb.Context()
	host := &container.HostConfig{PortBindings: network.PortMap{}}
	exposed := network.PortSet{}
	for name, path := range s.Volumes {
		host.Mounts = append(host.Mounts, mount.Mount{Type: mount.TypeVolume, Source: l.volume(name), Target: path})
	}
	for _, port := range s.Publish {
		p, _ := network.PortFrom(port, network.TCP)
		exposed[p] = struct{}{}
		host.PortBindings[p] = []network.PortBinding{{HostIP: netip.MustParseAddr("127.0.0.1")}}
	}
	made, err := l.engine.ContainerCreate(ctx, client.ContainerCreateOptions{
		Name:       l.name(service),
		Config:     &container.Config{Image: s.Image, Cmd: s.Command, Env: s.Env, ExposedPorts: exposed},
		HostConfig: host,
		NetworkingConfig: &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{
			l.prefix: {Aliases: []string{service}},
		}},
	})
	if err != nil {
		l.tb.Fatalf("make container %s: %v", service, err)
	}
	l.cleanup("container "+service, func(ctx context.Context) error {
		if l.tb.Failed() && l.LastWords != nil {
			l.LastWords(service)
		}
		_, err := l.engine.ContainerRemove(ctx, made.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
		return err
	})
	if len(s.Files) > 0 {
		l.put(made.ID, s.Files)
	}
	if _, err := l.engine.ContainerStart(ctx, made.ID, client.ContainerStartOptions{}); err != nil {
		l.tb.Fatalf("start container %s: %v", service, err)
	}
}

// volume gives the engine's name of a volume and removes it after the test; before the containers' clean-up is asked
// for, so that it runs after it.
func (l *Lab) volume(name string) string {
	full := l.name(name)
	l.cleanup("volume "+full, func(ctx context.Context) error {
		_, err := l.engine.VolumeRemove(ctx, full, client.VolumeRemoveOptions{Force: true})
		return err
	})
	return full
}

func (l *Lab) put(id string, files map[string]File) {
	l.tb.Helper()
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for path, f := range files {
		header := &tar.Header{Name: path, Mode: f.Mode, Uid: f.Owner, Gid: f.Owner, Size: int64(len(f.Content))}
		if err := w.WriteHeader(header); err != nil {
			l.tb.Fatal(err)
		}
		if _, err := io.WriteString(w, f.Content); err != nil {
			l.tb.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		l.tb.Fatal(err)
	}
	_, err := l.engine.CopyToContainer(l.tb.Context(), id, client.CopyToContainerOptions{DestinationPath: "/", Content: &archive})
	if err != nil {
		l.tb.Fatalf("put files into a container: %v", err)
	}
}

// Stop stops a service; Start lets it run again.
func (l *Lab) Stop(service string) {
	l.tb.Helper()
	limit := 0
	if _, err := l.engine.ContainerStop(l.tb.Context(), l.name(service), client.ContainerStopOptions{Timeout: &limit}); err != nil {
		l.tb.Fatalf("stop %s: %v", service, err)
	}
}

// Kill ends a service's processes without warning; Start lets it run again.
func (l *Lab) Kill(service string) {
	l.tb.Helper()
	if _, err := l.engine.ContainerKill(l.tb.Context(), l.name(service), client.ContainerKillOptions{Signal: "KILL"}); err != nil {
		l.tb.Fatalf("kill %s: %v", service, err)
	}
}

// Disconnect cuts a service off from all others and from the host, until Connect.
func (l *Lab) Disconnect(service string) {
	l.tb.Helper()
	l.leave(service, l.prefix)
}

// Connect undoes Disconnect. The service's address may be another one than before.
func (l *Lab) Connect(service string) {
	l.tb.Helper()
	l.join(service, l.prefix, service)
}

// join puts a service on a network, under a name.
func (l *Lab) join(service, into, alias string) {
	l.tb.Helper()
	_, err := l.engine.NetworkConnect(l.tb.Context(), into, client.NetworkConnectOptions{
		Container: l.name(service), EndpointConfig: &network.EndpointSettings{Aliases: []string{alias}},
	})
	if err != nil {
		l.tb.Fatalf("connect %s to %s: %v", service, into, err)
	}
}

// leave takes a service off a network.
func (l *Lab) leave(service, from string) {
	l.tb.Helper()
	_, err := l.engine.NetworkDisconnect(l.tb.Context(), from, client.NetworkDisconnectOptions{Container: l.name(service), Force: true})
	if err != nil {
		l.tb.Fatalf("disconnect %s from %s: %v", service, from, err)
	}
}

// abandon takes services off a network, after the test too; those that are not on it have left.
func (l *Lab) abandon(services []string, from string) {
	for _, service := range services {
		ctx, cancel := context.WithTimeout(context.Background(), cleanupLimit)
		_, _ = l.engine.NetworkDisconnect(ctx, from, client.NetworkDisconnectOptions{Container: l.name(service), Force: true})
		cancel()
	}
}

// Network is the name of the lab's network.
func (l *Lab) Network() string { return l.prefix }

// Attach puts a service of this lab on another one's network too, under a name, until Detach.
func (l *Lab) Attach(other *Lab, service, alias string) {
	l.tb.Helper()
	l.join(service, other.prefix, alias)
}

// Detach undoes Attach.
func (l *Lab) Detach(other *Lab, service string) {
	l.tb.Helper()
	l.leave(service, other.prefix)
}

// Pause freezes a service's processes until the test's end or Unpause. The kernel does not always freeze a busy one at the
// first try.
func (l *Lab) Pause(service string) {
	l.tb.Helper()
	testbed.Eventually(l.tb, cleanupLimit, "pause "+service, func() error {
		_, err := l.engine.ContainerPause(l.tb.Context(), l.name(service), client.ContainerPauseOptions{})
		return err
	})
}

// Unpause lets a frozen service go on.
func (l *Lab) Unpause(service string) {
	l.tb.Helper()
	if _, err := l.engine.ContainerUnpause(l.tb.Context(), l.name(service), client.ContainerUnpauseOptions{}); err != nil {
		l.tb.Fatalf("unpause %s: %v", service, err)
	}
}

// Throttle leaves a service almost no processor time, so that what it does and says comes late, until Unthrottle.
func (l *Lab) Throttle(service string) {
	l.tb.Helper()
	l.limit(service, 1_000_000, throttledTo)
}

// Unthrottle undoes Throttle.
func (l *Lab) Unthrottle(service string) {
	l.tb.Helper()
	l.limit(service, 100_000, -1)
}

// throttledTo is in microseconds of each second.
const throttledTo = 2000

func (l *Lab) limit(service string, period, quota int64) {
	l.tb.Helper()
	_, err := l.engine.ContainerUpdate(l.tb.Context(), l.name(service), client.ContainerUpdateOptions{
		Resources: &container.Resources{CPUPeriod: period, CPUQuota: quota},
	})
	if err != nil {
		l.tb.Fatalf("limit the processor time of %s: %v", service, err)
	}
}

// Start starts a service that was stopped.
func (l *Lab) Start(service string) {
	l.tb.Helper()
	if _, err := l.engine.ContainerStart(l.tb.Context(), l.name(service), client.ContainerStartOptions{}); err != nil {
		l.tb.Fatalf("start %s: %v", service, err)
	}
}

// Remove removes a service's container with its anonymous volumes; named ones stay until the test's end.
func (l *Lab) Remove(service string) {
	l.tb.Helper()
	_, err := l.engine.ContainerRemove(l.tb.Context(), l.name(service), client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
	if err != nil && !errdefs.IsNotFound(err) {
		l.tb.Fatalf("remove %s: %v", service, err)
	}
}

// Published gives where a service's port is published on the host.
func (l *Lab) Published(service string, port uint16) netip.AddrPort {
	l.tb.Helper()
	c, err := l.Find(l.tb.Context(), service)
	if err != nil {
		l.tb.Fatal(err)
	}
	return c.Published[port]
}

// Find implements reconcilers.Services. What is beyond a Part is not found.
func (l *Lab) Find(ctx context.Context, service string) (reconcilers.Container, error) {
	l.mu.Lock()
	far := l.far[service]
	l.mu.Unlock()
	if far {
		return reconcilers.Container{}, &reconcilers.WaitError{For: "service " + service + " to be reached"}
	}
	return l.Where(ctx, service)
}

// Where is Find for one who sees both sides of a Part.
func (l *Lab) Where(ctx context.Context, service string) (reconcilers.Container, error) {
	got, err := l.engine.ContainerInspect(ctx, l.name(service), client.ContainerInspectOptions{})
	if err != nil && !errdefs.IsNotFound(err) {
		return reconcilers.Container{}, fmt.Errorf("inspect %s: %w", service, err)
	}
	if err != nil || got.Container.State == nil || !got.Container.State.Running {
		return reconcilers.Container{}, &reconcilers.WaitError{For: "service " + service + " to run"}
	}
	in := got.Container
	started, err := time.Parse(time.RFC3339Nano, in.State.StartedAt)
	if err != nil {
		return reconcilers.Container{}, err
	}
	c := reconcilers.Container{
		ID: in.ID, Name: in.Name, Service: service, StartedAt: started,
		Addresses: map[string]netip.Addr{}, Published: map[uint16]netip.AddrPort{}, Hostnames: []string{service},
	}
	for name, n := range in.NetworkSettings.Networks {
		c.Addresses[name] = n.IPAddress
		if name == l.beyond() {
			c.Addresses[name] = nowhere
		}
	}
	for port, bindings := range in.NetworkSettings.Ports {
		for _, b := range bindings {
			if at, err := strconv.ParseUint(b.HostPort, 10, 16); err == nil {
				c.Published[port.Num()] = netip.AddrPortFrom(b.HostIP, uint16(at))
			}
		}
	}
	return c, nil
}

// Logs implements reconcilers.Services.
func (l *Lab) Logs(ctx context.Context, service string, since time.Time, lines int) (io.ReadCloser, error) {
	options := client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Since: since.Format(time.RFC3339Nano)}
	if lines > 0 {
		options.Tail = strconv.Itoa(lines)
	}
	raw, err := l.engine.ContainerLogs(ctx, l.name(service), options)
	if err != nil {
		return nil, fmt.Errorf("read the log of %s: %w", service, err)
	}
	r, w := io.Pipe()
	go func() {
		_, err := stdcopy.StdCopy(w, w, raw)
		_ = raw.Close()
		_ = w.CloseWithError(err)
	}()
	return r, nil
}

// Exec implements reconcilers.Services.
func (l *Lab) Exec(ctx context.Context, service string, argv, env []string, stdin io.Reader) ([]byte, int, error) {
	made, err := l.engine.ExecCreate(ctx, l.name(service), client.ExecCreateOptions{
		Cmd: argv, Env: env, AttachStdin: stdin != nil, AttachStdout: true, AttachStderr: true,
	})
	if err != nil {
		return nil, 0, fmt.Errorf("run %s in %s: %w", argv[0], service, err)
	}
	attached, err := l.engine.ExecAttach(ctx, made.ID, client.ExecAttachOptions{})
	if err != nil {
		return nil, 0, fmt.Errorf("run %s in %s: %w", argv[0], service, err)
	}
	defer attached.Close()
	if stdin != nil {
		if _, err := io.Copy(attached.Conn, stdin); err != nil {
			return nil, 0, err
		}
		_ = attached.CloseWrite()
	}
	var out bytes.Buffer
	if _, err := stdcopy.StdCopy(&out, io.Discard, attached.Reader); err != nil {
		return nil, 0, err
	}
	ended, err := l.engine.ExecInspect(ctx, made.ID, client.ExecInspectOptions{})
	return out.Bytes(), ended.ExitCode, err
}
