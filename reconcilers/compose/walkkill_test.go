package compose

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"

	"dive-agent/reconcilers"
	"dive-agent/testbed"
)

// killedPass is a pass in which the agent ends: asked to, at one of its safe points or at any time; or by SIGKILL at a request
// that changes something. Or it goes through, and each stream of events breaks meanwhile. The next one remembers nothing.
func (s *walk) killedPass() {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	defer cancel()
	switch s.random.IntN(4) {
	case 0:
		after := time.Duration(20+s.random.IntN(1500)) * time.Millisecond
		s.t.Logf("  the agent is asked to end after %s", after)
		timer := time.AfterFunc(after, cancel)
		defer timer.Stop()
	case 1:
		var mu sync.Mutex
		left := s.random.IntN(6)
		s.t.Logf("  the agent is asked to end at safe point %d", left)
		s.amid = func() {
			mu.Lock()
			defer mu.Unlock()
			if left--; left < 0 {
				cancel()
			}
		}
	case 2:
		s.brokenStreams()
		return
	default:
		s.kill(s.random)
		return
	}
	s.pass(ctx)
	s.amid = nil
	s.restart()
}

// walkProgress ends the agent, perhaps, at the points where it may be ended.
type walkProgress struct {
	*heard
	amid func()
}

func (p *walkProgress) point() {
	if p.amid != nil {
		p.amid()
	}
}

func (p *walkProgress) Begin(ctx context.Context, changes ...reconcilers.Change) error {
	p.point()
	if err := ctx.Err(); err != nil {
		return err
	}
	return p.heard.Begin(ctx, changes...)
}

func (p *walkProgress) Started() { p.point() }

func (p *walkProgress) Say(format string, args ...any) {
	p.heard.Say(format, args...)
	p.point()
}

// kill is a pass whose process ends right before or right after one of its requests to the engine. What the code of the test's
// process still writes into its records afterwards is taken back.
func (s *walk) kill(random *rand.Rand) {
	s.t.Helper()
	d := &dying{left: random.IntN(12), after: random.IntN(2) == 0, open: map[net.Conn]bool{}, last: s.readState}
	s.t.Logf("  the agent is killed at change %d, after it was sent: %t", d.left, d.after)
	cli := s.engineBy(d.dial)
	s.restart()
	s.r.engine = cli
	s.dead = d.isDead
	s.pass(s.t.Context())
	s.dead = nil
	require.NoError(s.t, cli.Close())
	if d.isDead() {
		s.writeState(d.state)
	}
	s.restart()
}

type dialer func(context.Context) (net.Conn, error)

// engineBy gives a client of the engine whose connections are made by a function.
func (s *walk) engineBy(dial func(context.Context, dialer) (net.Conn, error)) *client.Client {
	s.t.Helper()
	address, ok := strings.CutPrefix(testbed.Host(s.t), "unix://")
	network := "unix"
	if !ok {
		network, address = "tcp", strings.TrimPrefix(testbed.Host(s.t), "tcp://")
	}
	plain := func(ctx context.Context) (net.Conn, error) { return (&net.Dialer{}).DialContext(ctx, network, address) }
	cli, err := client.New(client.WithHost(testbed.Host(s.t)), client.WithDialContext(func(ctx context.Context, _, _ string) (net.Conn, error) {
		return dial(ctx, plain)
	}))
	require.NoError(s.t, err)
	return cli
}

// brokenStreams is a pass in which each stream of the engine's events breaks a while after it was opened.
func (s *walk) brokenStreams() {
	s.t.Helper()
	after := time.Duration(s.random.IntN(800)) * time.Millisecond
	s.t.Logf("  streams of events break after %s", after)
	cli := s.engineBy(func(ctx context.Context, dialEngine dialer) (net.Conn, error) {
		conn, err := dialEngine(ctx)
		if err != nil {
			return nil, err
		}
		return &breaking{Conn: conn, after: after}, nil
	})
	s.restart()
	s.r.engine = cli
	s.pass(s.t.Context())
	require.NoError(s.t, cli.Close())
	s.restart()
}

// breaking is a connection that breaks when events come by it.
type breaking struct {
	net.Conn
	after  time.Duration
	breaks *time.Timer
}

func (b *breaking) Write(p []byte) (int, error) {
	if b.breaks != nil {
		b.breaks.Stop() // those events came to their end, and the connection is used for something else
	}
	line, _, _ := bytes.Cut(p, []byte("\r\n"))
	if bytes.HasPrefix(line, []byte("GET ")) && bytes.Contains(line, []byte("/events?")) {
		b.breaks = time.AfterFunc(b.after, func() { _ = b.Close() })
	}
	return b.Conn.Write(p)
}

// CloseWrite is for what is attached to a container.
func (b *breaking) CloseWrite() error {
	if half, ok := b.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// dying are the connections of an agent to the engine, which break for good at one of its changes.
type dying struct {
	mu    sync.Mutex
	left  int  // changes until then
	after bool // the engine still gets that one
	dead  bool
	open  map[net.Conn]bool
	last  func() map[string][]byte
	state map[string][]byte // records at its death
}

var errKilled = errors.New("the agent was killed")

func (d *dying) isDead() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.dead
}

func (d *dying) dial(ctx context.Context, dialEngine dialer) (net.Conn, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dead {
		return nil, errKilled
	}
	conn, err := dialEngine(ctx)
	if err != nil {
		return nil, err
	}
	d.open[conn] = true
	return &mortal{conn, d}, nil
}

// mortal is one of the connections.
type mortal struct {
	net.Conn
	d *dying
}

func (m *mortal) Write(p []byte) (int, error) {
	d := m.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dead {
		return 0, errKilled
	}
	if !bytes.HasPrefix(p, []byte("POST ")) && !bytes.HasPrefix(p, []byte("DELETE ")) {
		return m.Conn.Write(p)
	}
	if d.left--; d.left >= 0 {
		return m.Conn.Write(p)
	}
	d.dead, d.state = true, d.last()
	if d.after {
		_, _ = m.Conn.Write(p)
	}
	for conn := range d.open {
		_ = conn.Close()
	}
	return 0, errKilled
}

// CloseWrite is for what is attached to a container.
func (m *mortal) CloseWrite() error {
	if half, ok := m.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

func (s *walk) readState() map[string][]byte {
	all := map[string][]byte{}
	dir := filepath.Join(s.dirs, "state")
	entries, err := os.ReadDir(dir)
	if err != nil {
		s.t.Error(err)
	}
	for _, entry := range entries {
		if text, err := os.ReadFile(filepath.Join(dir, entry.Name())); err == nil {
			all[entry.Name()] = text
		}
	}
	return all
}

func (s *walk) writeState(all map[string][]byte) {
	s.t.Helper()
	for name := range s.readState() {
		require.NoError(s.t, os.Remove(filepath.Join(s.dirs, "state", name)))
	}
	for name, text := range all {
		require.NoError(s.t, os.WriteFile(filepath.Join(s.dirs, "state", name), text, 0o600))
	}
}
