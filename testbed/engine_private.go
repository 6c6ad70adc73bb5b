package testbed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/client"
)

// PrivateEngine is an engine of one test's own, which it may stop, kill and start at will. It keeps no firewall rules:
// its containers reach each other and are reached by their addresses and published ports, but not the world outside.
type PrivateEngine struct {
	tb     testing.TB
	engine ownEngine
}

// NewPrivateEngine starts an engine without any image; see [PrivateEngine.Load]. It ends with the test.
func NewPrivateEngine(tb testing.TB) *PrivateEngine {
	tb.Helper()
	return newPrivateEngine(tb, "")
}

// NewPrivateEngineOnDisk is [NewPrivateEngine] with a disk of its own for all that the engine keeps, of a size as tmpfs takes it
// (40m), which [PrivateEngine.Resize] changes.
func NewPrivateEngineOnDisk(tb testing.TB, size string) *PrivateEngine {
	tb.Helper()
	return newPrivateEngine(tb, size)
}

// Resize gives the engine's own disk another size.
func (p *PrivateEngine) Resize(size string) {
	p.tb.Helper()
	if err := syscall.Mount("tmpfs", filepath.Dir(p.engine.data), "tmpfs", syscall.MS_REMOUNT, "size="+size); err != nil {
		p.tb.Fatalf("test bed: give the engine a disk of %s: %v", size, err)
	}
}

func newPrivateEngine(tb testing.TB, disk string) *PrivateEngine {
	tb.Helper()
	Host(tb) // installs what an engine needs
	run, err := os.MkdirTemp("", "tb-engine-")
	if err != nil {
		tb.Fatalf("test bed: %v", err)
	}
	// A bridge of its own, and no pool of addresses of its own: with either left as for the shared engine, a restarting
	// dockerd takes docker0 away from the engine that has it.
	name := Prefix(tb)
	bridge := "tbe" + name[len(name)-8:]
	e := ownEngine{
		run: run, data: filepath.Join(run, "data"),
		extra: []string{"--bridge=" + bridge, "--iptables=false", "--ip6tables=false"},
	}
	if disk != "" {
		e.data = filepath.Join(run, "disk", "data") // what a killed engine left mounted at its data is let go, and the disk is not that
	}
	p := &PrivateEngine{tb: tb, engine: e}
	p.system("ip", "link", "add", "name", bridge, "type", "bridge")
	tb.Cleanup(func() { p.system("ip", "link", "delete", bridge, "type", "bridge") })
	p.system("ip", "address", "add", fmt.Sprintf("10.%d.%d.1/24", 214+os.Getpid()%32, bridgeNumber.Add(1)%256), "dev", bridge)
	p.system("ip", "link", "set", bridge, "up")
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := p.end(ctx); err != nil {
			tb.Errorf("test bed: %v", err)
		}
		if disk != "" {
			if err := syscall.Unmount(filepath.Dir(e.data), 0); err != nil {
				tb.Errorf("test bed: unmount the engine's disk: %v", err)
			}
		}
		if err := os.RemoveAll(run); err != nil {
			tb.Errorf("test bed: %v", err)
		}
	})
	if disk != "" {
		at := filepath.Dir(e.data)
		if err := errors.Join(os.Mkdir(at, 0o711), syscall.Mount("tmpfs", at, "tmpfs", 0, "size="+disk)); err != nil {
			tb.Fatalf("test bed: give the engine a disk of %s: %v", disk, err)
		}
	}
	p.Start()
	return p
}

// system has the machine's own programs set up what the engine needs of the network.
func (p *PrivateEngine) system(program string, args ...string) {
	p.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if _, err := (command{name: lookPath(program), args: args}).run(ctx); err != nil {
		p.tb.Fatalf("test bed: %v", err)
	}
}

// OpenBridge names a bridge for a network whose containers reach each other (driver option com.docker.network.bridge.name):
// where the machine's firewall forwards nothing by itself, somebody has to let them, and this engine keeps no rules.
func (p *PrivateEngine) OpenBridge() string {
	p.tb.Helper()
	name := fmt.Sprintf("tbo%x", time.Now().UnixNano()%0xffffffff)
	rule := func(do string) {
		p.system("iptables", "-w", do, "FORWARD", "-i", name, "-o", name, "-j", "ACCEPT")
	}
	rule("-I")
	p.tb.Cleanup(func() { rule("-D") })
	return name
}

// bridgeNumber sets the bridges of one process apart.
var bridgeNumber atomic.Int32

// end removes all containers and networks with the engine's own hands, for which a killed one is started again.
func (p *PrivateEngine) end(ctx context.Context) error {
	say := logProgress(p.tb)
	if answers(ctx, p.Host()) != nil {
		if err := p.engine.start(ctx, say); err != nil {
			return err
		}
	} else if err := p.engine.removeContainers(ctx, say); err != nil {
		return err
	}
	_, err := p.engine.stop(ctx, say)
	return err
}

// Host is the engine's address, the same after each start.
func (p *PrivateEngine) Host() string { return p.engine.host() }

// Client returns a client of the engine, closed with the test.
func (p *PrivateEngine) Client() *client.Client {
	p.tb.Helper()
	cli, err := Connect(p.Host())
	if err != nil {
		p.tb.Fatalf("test bed: %v", err)
	}
	p.tb.Cleanup(func() { _ = cli.Close() })
	return cli
}

// Start starts the engine after Stop or Kill. Images are as they were; containers are not kept.
func (p *PrivateEngine) Start() {
	p.tb.Helper()
	ctx, cancel := context.WithTimeout(p.tb.Context(), engineLimit)
	defer cancel()
	if err := p.engine.start(ctx, logProgress(p.tb)); err != nil {
		p.tb.Fatalf("test bed: %v", err)
	}
}

// StartKeeping starts the engine after Stop or Kill as the machine's service manager would: containers and networks
// stay, and those with a restart policy run again.
func (p *PrivateEngine) StartKeeping() {
	p.tb.Helper()
	ctx, cancel := context.WithTimeout(p.tb.Context(), engineLimit)
	defer cancel()
	_ = os.Remove(p.engine.pidFile())
	if err := p.engine.launch(ctx, logProgress(p.tb)); err != nil {
		p.tb.Fatalf("test bed: %v", err)
	}
}

// Stop ends the engine in an orderly way; its containers stop.
func (p *PrivateEngine) Stop() {
	p.tb.Helper()
	for _, d := range p.engine.daemons() {
		if !stopProcess(d.pid, 30*time.Second) {
			p.tb.Fatalf("test bed: the engine, process %d, does not end", d.pid)
		}
	}
}

// Kill ends the engine's daemon alone, with SIGKILL, and the containerd that goes with it, which the next one must not take
// for one that runs; containers, shims and mounts stay behind.
func (p *PrivateEngine) Kill() {
	p.tb.Helper()
	containerds := processes(func(c process) bool { return c.program() == "containerd" && c.mentions(p.engine.exec()) })
	defer func() { _ = os.Remove(filepath.Join(p.engine.exec(), "containerd", "containerd.pid")) }()
	for _, d := range append(p.engine.daemons(), containerds...) {
		_ = syscall.Kill(d.pid, syscall.SIGKILL)
		if !stopProcess(d.pid, 5*time.Second) {
			p.tb.Fatalf("test bed: the engine, process %d, does not end", d.pid)
		}
	}
}

// Load brings an image over from the shared engine, which makes it when it is missing.
func (p *PrivateEngine) Load(name ImageName) {
	p.tb.Helper()
	if err := loadImage(p.tb.Context(), Engine(p.tb), p.Client(), Image(p.tb, name)); err != nil {
		p.tb.Fatalf("test bed: %v", err)
	}
}

// loadImage brings an image from one engine to another.
func loadImage(ctx context.Context, from, to *client.Client, name string) error {
	saved, err := from.ImageSave(ctx, []string{name})
	if err != nil {
		return fmt.Errorf("take image %s: %w", name, err)
	}
	defer func() { _ = saved.Close() }()
	loaded, err := to.ImageLoad(ctx, saved)
	if err != nil {
		return fmt.Errorf("load image %s: %w", name, err)
	}
	defer func() { _ = loaded.Close() }()
	if err := readStream(loaded); err != nil {
		return fmt.Errorf("load image %s: %w", name, err)
	}
	return nil
}
