package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"dive-agent/agent"
	"dive-agent/desired"
	"dive-agent/source"
)

// drainLimit is how long a stopping agent waits for changes that have begun. Terraform may need minutes to stop cleanly;
// the unit's TimeoutStopSec is longer.
const drainLimit = 4 * time.Minute

func newRun(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "run",
		Short: "Follow the fleet repository and keep this host's instances as it declares (the service)",
		Long: `Runs until SIGTERM or interrupt: then changes that have begun are finished and nothing new is begun; a second signal
stops at once. SIGHUP looks at everything again now.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runDaemon(cmd.Context(), g) },
	}
}

// runDaemon serves until ctx ends. Then, in this order: no new work and no new revision, what has begun ends and is
// recorded, and only then the reports and the listeners end, so that the last status still leaves the host.
func runDaemon(ctx context.Context, g *globals) error {
	lifetime, endOfLife := context.WithCancel(context.WithoutCancel(ctx))
	defer endOfLife()
	h, err := openHost(ctx, g, hostOptions{lifetime: lifetime, failpoint: failpointFromEnvironment()})
	if err != nil {
		return err
	}
	defer h.close()
	schedule, err := h.schedule()
	if err != nil {
		return err
	}
	if err := h.agent.Recover(ctx); err != nil {
		return err
	}
	d := &serving{host: h, wake: make(chan struct{}, 1)}
	h.takeCurrent()
	servers, err := d.listen(lifetime)
	if err != nil {
		return errors.Join(err, h.drain())
	}
	h.log.Info("dive-agent runs", "version", versionText(), "host", h.config.Host, "source", h.remote.String())
	following := make(chan struct{})
	follow, unfollow := context.WithCancel(lifetime)
	defer unfollow()
	go func() { d.follow(follow, schedule); close(following) }()
	reading := make(chan struct{})
	go func() { h.followStatuses(follow); close(reading) }()
	reporting := make(chan struct{})
	go func() { h.deliver(lifetime); close(reporting) }()
	go h.keepSmall(lifetime)
	d.tell(daemon.SdNotifyReady)
	d.work(ctx, lifetime)

	h.log.Info("stopping: what has begun is finished")
	d.tell(daemon.SdNotifyStopping)
	stopAtOnce(h)
	unfollow()
	<-following
	<-reading
	err = h.drain()
	endOfLife()
	<-reporting
	h.flush()
	for _, server := range servers {
		h.note("close a listener", server.Close())
	}
	h.log.Info("stopped")
	return err
}

// takeCurrent takes what was valid when it was accepted. A new agent may see it otherwise, and says so.
func (h *host) takeCurrent() {
	if revision, ok := h.source.Current(); ok {
		h.note("take the revision that was in force", h.agent.Take(revision))
	}
}

// drain lets what has begun come to its end.
func (h *host) drain() error {
	ctx, cancel := context.WithTimeout(context.Background(), drainLimit)
	defer cancel()
	return h.agent.Drain(ctx)
}

// flushLimit is how long a stopping agent tries to deliver its last reports; what is left goes out after the next start.
const flushLimit = 10 * time.Second

func (h *host) flush() {
	ctx, cancel := context.WithTimeout(context.Background(), flushLimit)
	defer cancel()
	if err := h.deliverAll(ctx); err != nil {
		h.log.Warn("not all reports were delivered; they go out after the next start", "error", err)
	}
}

// stopAtOnce makes a second signal end the process.
func stopAtOnce(h *host) {
	again := make(chan os.Signal, 1)
	signal.Notify(again, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-again
		h.log.Warn("stopped at once")
		os.Exit(exitFailed)
	}()
}

// serving is the running daemon.
type serving struct {
	*host
	wake chan struct{}
}

// poll asks the source for a poll now.
func (d *serving) poll() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// pollNow polls the source and takes what it brought.
func (d *serving) pollNow(ctx context.Context) (err error) {
	for range 3 {
		var o source.Outcome
		o.Revision, o.Changed, o.Err = d.source.Poll(ctx)
		if err = d.handle(ctx, o); !errors.Is(err, errOvertaken) {
			break
		}
	}
	return err
}

// work waits for the end, tells the watchdog that the agent lives, and hears SIGHUP.
func (d *serving) work(ctx, lifetime context.Context) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	var beat <-chan time.Time
	if interval, err := daemon.SdWatchdogEnabled(false); err == nil && interval > 0 {
		ticker := time.NewTicker(interval / 3)
		defer ticker.Stop()
		beat = ticker.C
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-lifetime.Done():
			return
		case <-hup:
			d.tell(daemon.SdNotifyReloading + "\n" + monotonic())
			d.poll()
			d.agent.RouseAll("reload")
			d.tell(daemon.SdNotifyReady)
		case <-beat:
			if d.agent.Alive() {
				d.tell(daemon.SdNotifyWatchdog)
			}
		}
	}
}

// monotonic is what systemd wants to know of a reload.
func monotonic() string {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return ""
	}
	return fmt.Sprintf("MONOTONIC_USEC=%d", now.Nano()/1000)
}

func (d *serving) tell(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		d.log.Warn("cannot notify systemd", "error", err)
	}
}

// told logs what a poll ended with, unless it was said already.
func (d *serving) told(err error) {
	if errors.Is(err, errOvertaken) {
		d.poll()
		return
	}
	if err != nil {
		d.log.Debug("poll", "error", err)
	}
}

// follow polls the fleet repository until ctx ends.
func (d *serving) follow(ctx context.Context, schedule source.Schedule) {
	_ = d.source.Watch(ctx, source.WatchOptions{ // the error is the context's
		Schedule: schedule, Wake: d.wake,
		Handle: func(ctx context.Context, o source.Outcome) { d.told(d.handle(ctx, o)) },
	})
}

func (h *host) schedule() (source.Schedule, error) {
	if cron := h.config.Source.Schedule; cron != "" {
		return source.Cron(cron)
	}
	return source.Every(time.Duration(h.config.Source.Interval)), nil
}

// errOvertaken says that a poll beside this one was taken in between, and this one's snapshot went with it: another poll
// brings the revision again.
var errOvertaken = errors.New("another poll was taken in between")

// handle takes or refuses what a poll brought, and tells how the repository can be reached.
func (h *host) handle(ctx context.Context, o source.Outcome) (err error) {
	h.taking.Lock()
	defer h.taking.Unlock()
	if o.Err == nil {
		h.agent.HeadIs(h.source.State().Head)
	}
	if o.Err == nil && o.Changed && h.source.State().Head == o.Revision.Commit { // a poll beside this one may have brought a newer one
		err = h.take(ctx, o.Revision)
	}
	state := h.source.State()
	health := agent.SourceHealth{Since: state.Since, Polled: state.Answered}
	if state.Problem != source.None && state.Problem != source.Refused {
		health.Err, health.Reason = state.Message, "Git"+string(state.Problem)
	}
	h.agent.SourceIs(health)
	if h.reporter != nil {
		h.note("tell the reports that Git answers", h.reporter.GitAnswers(ctx, health.Err == ""))
	}
	h.readStatuses()
	if o.Err != nil {
		return o.Err
	}
	return err
}

func (h *host) take(ctx context.Context, revision source.Revision) error {
	if _, err := os.Stat(revision.Dir); errors.Is(err, os.ErrNotExist) {
		return errOvertaken
	}
	if err := h.agent.Take(revision); err != nil {
		var problems desired.Problems
		if errors.As(err, &problems) {
			h.source.Refuse(revision, err.Error())
		}
		return err
	}
	if err := h.source.Accept(revision); err != nil {
		return fmt.Errorf("cannot keep revision %s: %w", revision.Short(), err)
	}
	keep, err := h.agent.InUse(ctx)
	if err != nil {
		return err
	}
	return h.source.Keep(keep...)
}

// listen opens the local socket and, when it is configured, the listener.
func (d *serving) listen(lifetime context.Context) ([]*http.Server, error) {
	started := time.Now()
	if err := os.MkdirAll(filepath.Dir(d.config.Socket), 0o755); err != nil {
		return nil, fmt.Errorf("cannot make the folder of the socket: %w", err)
	}
	if other, err := net.DialTimeout("unix", d.config.Socket, 5*time.Second); err == nil {
		_ = other.Close() // that it answers is all that is asked
		return nil, fmt.Errorf("another agent answers at %s: stop it, or give this one a socket of its own (socket: in its configuration)", d.config.Socket)
	}
	if err := os.Remove(d.config.Socket); err != nil && !errors.Is(err, os.ErrNotExist) { // left by an agent that was killed
		return nil, fmt.Errorf("cannot replace the socket: %w", err)
	}
	socket, err := net.Listen("unix", d.config.Socket)
	if err != nil {
		return nil, fmt.Errorf("cannot listen at %s: %w", d.config.Socket, err)
	}
	if err := os.Chmod(d.config.Socket, 0o660); err != nil {
		return nil, fmt.Errorf("cannot protect the socket: %w", err)
	}
	servers := []*http.Server{d.serve(lifetime, socket, d.agent.API(versionText(), started, d.pollNow))}
	if d.config.Listen.Address == "" {
		return servers, nil
	}
	public, err := net.Listen("tcp", d.config.Listen.Address)
	if err != nil {
		return nil, fmt.Errorf("cannot listen at %s: %w", d.config.Listen.Address, err)
	}
	handler, err := d.listener()
	if err != nil {
		return nil, err
	}
	return append(servers, d.serve(lifetime, public, handler)), nil
}

func (d *serving) serve(lifetime context.Context, at net.Listener, handler http.Handler) *http.Server {
	server := &http.Server{
		Handler: handler, ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: 64 << 10,
		BaseContext: func(net.Listener) context.Context { return lifetime },
	}
	go func() {
		if err := server.Serve(at); err != nil && !errors.Is(err, http.ErrServerClosed) {
			d.log.Error("a listener ended", "address", at.Addr().String(), "error", err)
		}
	}()
	return server
}
