package compose

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/compose/v5/pkg/api"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

// Services is reconcilers.ServiceFinder.
func (r *Reconciler) Services(t reconcilers.Target) reconcilers.Services {
	spec, ok := t.Component.Spec.(*Spec)
	if !ok {
		return &services{err: fmt.Errorf("component %s runs no services", t.Component.Name)}
	}
	project, err := spec.projectName(t.Instance.Name, t.Scope)
	return &services{engine: r.engine, component: t.Component.Name, project: project, err: err}
}

// Data is reconcilers.DataKeeper: the volumes of the project, whether the Compose file still names them or not.
func (r *Reconciler) Data(ctx context.Context, t reconcilers.Target) ([]string, error) {
	spec, ok := t.Component.Spec.(*Spec)
	if !ok {
		return nil, fmt.Errorf("component %s keeps no data", t.Component.Name)
	}
	project, err := spec.projectName(t.Instance.Name, t.Scope)
	if err != nil {
		return nil, err
	}
	list, err := r.engine.VolumeList(ctx, client.VolumeListOptions{Filters: projectFilter(project)})
	if err != nil {
		return nil, fmt.Errorf("list the volumes of project %s: %w", project, away(r.engine, err))
	}
	var names []string
	for _, v := range list.Items {
		names = append(names, v.Name)
	}
	slices.Sort(names)
	return names, nil
}

// services finds the containers of one Compose project by their labels.
type services struct {
	engine    *client.Client
	component string
	project   string
	err       error
}

// Find is reconcilers.Services.
func (s *services) Find(ctx context.Context, service string) (reconcilers.Container, error) {
	c, err := s.inspect(ctx, service)
	if err != nil {
		return reconcilers.Container{}, err
	}
	if !c.State.Running || c.State.Paused || c.State.Restarting {
		return reconcilers.Container{}, s.wait(service, fmt.Errorf("its container is %s", c.State.Status))
	}
	found := reconcilers.Container{
		ID: c.ID, Name: strings.TrimPrefix(c.Name, "/"), Service: service,
		Addresses: map[string]netip.Addr{}, Published: map[uint16]netip.AddrPort{},
	}
	if at, err := time.Parse(time.RFC3339Nano, c.State.StartedAt); err == nil {
		found.StartedAt = at
	}
	if hasHealthCheck(c) {
		found.Health = string(c.State.Health.Status)
	}
	names := map[string]bool{service: true, found.Name: true}
	for network, endpoint := range c.NetworkSettings.Networks {
		if endpoint.IPAddress.IsValid() && !endpoint.IPAddress.IsUnspecified() {
			found.Addresses[network] = endpoint.IPAddress
		}
		for _, alias := range endpoint.Aliases {
			names[alias] = alias != c.ID[:12]
		}
	}
	for name, ok := range names {
		if ok {
			found.Hostnames = append(found.Hostnames, name)
		}
	}
	slices.Sort(found.Hostnames)
	publish(c, found.Published)
	return found, nil
}

// publish lists the TCP ports that are published. A port that is published on all addresses is reached on loopback.
func publish(c *container.InspectResponse, published map[uint16]netip.AddrPort) {
	for port, bindings := range c.NetworkSettings.Ports {
		if port.Proto() != "tcp" {
			continue
		}
		for _, binding := range bindings {
			var number uint16
			if _, err := fmt.Sscan(binding.HostPort, &number); err != nil || number == 0 {
				continue
			}
			address := binding.HostIP
			if !address.IsValid() || address.IsUnspecified() {
				address = netip.AddrFrom4([4]byte{127, 0, 0, 1})
			}
			if have, ok := published[port.Num()]; !ok || have.Addr().Is6() {
				published[port.Num()] = netip.AddrPortFrom(address, number)
			}
		}
	}
}

// list gives the containers of a service; a WaitError when there is none.
func (s *services) list(ctx context.Context, service string) ([]container.Summary, error) {
	if s.err != nil {
		return nil, s.err
	}
	list, err := s.engine.ContainerList(ctx, client.ContainerListOptions{
		All: true, Filters: projectFilter(s.project, api.ServiceLabel+"="+service, api.OneoffLabel+"=False"),
	})
	if err != nil {
		return nil, fmt.Errorf("list containers of service %s: %w", service, away(s.engine, err))
	}
	if len(list.Items) == 0 {
		return nil, s.wait(service, errors.New("it has no container"))
	}
	return list.Items, nil
}

// inspect gives the container of a service that does its work best; a WaitError when there is none.
func (s *services) inspect(ctx context.Context, service string) (*container.InspectResponse, error) {
	list, err := s.list(ctx, service)
	if err != nil {
		return nil, err
	}
	c, err := s.engine.ContainerInspect(ctx, bestOf(list).ID, client.ContainerInspectOptions{})
	if err != nil {
		return nil, s.wait(service, err)
	}
	return &c.Container, nil
}

// bestOf gives the container of a service that others are led to: one that runs and is well before one that only starts, or
// is about to end beside a new one; then the replica with the lowest number, and of two of one number the newer one.
func bestOf(list []container.Summary) container.Summary {
	return slices.MinFunc(list, func(a, b container.Summary) int {
		return cmp.Or(wellness(b)-wellness(a), byNumber(a, b))
	})
}

// firstOf gives the container of a service that stays the same whoever of its replicas is well.
func firstOf(list []container.Summary) container.Summary { return slices.MinFunc(list, byNumber) }

func byNumber(a, b container.Summary) int {
	return cmp.Or(numberOf(a.Labels)-numberOf(b.Labels), cmp.Compare(b.Created, a.Created))
}

// wellness is higher for a container that does more of its work. The list tells the health within the status for people.
func wellness(c container.Summary) int {
	switch {
	case c.State != container.StateRunning:
		return 0
	case strings.Contains(c.Status, "(unhealthy)"):
		return 1
	case strings.Contains(c.Status, "(health: starting)"):
		return 2
	}
	return 3
}

func (s *services) wait(service string, err error) error {
	return &reconcilers.WaitError{For: desired.NodeID(s.component, service), Again: 2 * time.Second, Err: err}
}

// Logs is reconcilers.Services. Of several replicas it gives one log after the other.
func (s *services) Logs(ctx context.Context, service string, since time.Time, lines int) (io.ReadCloser, error) {
	list, err := s.list(ctx, service)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(list, byNumber)
	all := logs{}
	for _, c := range list {
		one, err := containerLogs(ctx, s.engine, c.ID, since, lines)
		if errdefs.IsNotFound(err) && len(list) > 1 {
			continue // it has just made way for another one
		}
		if err != nil {
			_ = all.Close()
			return nil, err
		}
		all.each, all.readers = append(all.each, one), append(all.readers, one)
	}
	all.Reader = io.MultiReader(all.readers...)
	return &all, nil
}

// logs are several logs, read one after the other.
type logs struct {
	io.Reader
	each    []io.Closer
	readers []io.Reader
}

func (l *logs) Close() (err error) {
	for _, one := range l.each {
		err = errors.Join(err, one.Close())
	}
	return err
}

// execOutput bounds what a command may print, in bytes.
const execOutput = 4 << 20

// Exec is reconcilers.Services. When the command fails, what it wrote to standard error follows its standard output.
func (s *services) Exec(ctx context.Context, service string, argv, env []string, stdin io.Reader) ([]byte, int, error) {
	c, err := s.inspect(ctx, service)
	if err != nil {
		return nil, 0, err
	}
	if !c.State.Running {
		return nil, 0, s.wait(service, fmt.Errorf("its container is %s", c.State.Status))
	}
	created, err := s.engine.ExecCreate(ctx, c.ID, client.ExecCreateOptions{
		Cmd: argv, Env: env, AttachStdin: stdin != nil, AttachStdout: true, AttachStderr: true,
	})
	if err != nil {
		return nil, 0, fmt.Errorf("run %s in service %s: %w", argv[0], service, err)
	}
	attached, err := s.engine.ExecAttach(ctx, created.ID, client.ExecAttachOptions{})
	if err != nil {
		return nil, 0, fmt.Errorf("run %s in service %s: %w", argv[0], service, err)
	}
	defer attached.Close()
	stop := context.AfterFunc(ctx, attached.Close)
	defer stop()
	if stdin != nil {
		go func() {
			_, _ = io.Copy(attached.Conn, stdin)
			_ = attached.CloseWrite()
		}()
	}
	var stdout, stderr bytes.Buffer
	if _, err := stdcopy.StdCopy(&limited{&stdout}, &limited{&stderr}, attached.Reader); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return stdout.Bytes(), 0, fmt.Errorf("read what %s in service %s prints: %w", argv[0], service, err)
	}
	done, err := s.engine.ExecInspect(ctx, created.ID, client.ExecInspectOptions{})
	if err != nil {
		return nil, 0, fmt.Errorf("ask how %s in service %s ended: %w", argv[0], service, err)
	}
	if done.ExitCode != 0 {
		stdout.Write(stderr.Bytes())
	}
	return stdout.Bytes(), done.ExitCode, nil
}

// limited keeps the beginning of what is written to it.
type limited struct{ *bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	if room := execOutput - l.Len(); room > 0 {
		l.Buffer.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}
