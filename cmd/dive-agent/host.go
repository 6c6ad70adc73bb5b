package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/client"

	"dive-agent/agent"
	"dive-agent/config"
	"dive-agent/gitremote"
	"dive-agent/reconcilers"
	"dive-agent/reconcilers/all"
	"dive-agent/report"
	"dive-agent/secrets"
	"dive-agent/source"
	"dive-agent/state"
)

// host is all parts of an agent on this host, put together.
type host struct {
	config   *config.Config
	log      *slog.Logger
	redactor *secrets.Redactor
	store    state.Store
	engine   *client.Client
	remote   *gitremote.Remote
	source   *source.Source
	agent    *agent.Agent
	reporter *report.Reporter
	closers  []func() error
	statuses chan struct{} // holds one while the status branches of other instances are to be read
	taking   sync.Mutex    // held while a revision is taken or refused
}

// hostOptions say what a command needs of the host.
type hostOptions struct {
	// readOnly is for commands that may run beside the daemon: they take no lock and change no state.
	readOnly bool
	// lifetime ends the agent's workers; default: the command's context.
	lifetime context.Context
	// failpoint is the agent's.
	failpoint func(string)
}

// openHost reads the configuration and puts the parts together. Nothing is started.
func openHost(ctx context.Context, g *globals, o hostOptions) (_ *host, err error) {
	c, err := config.Load(g.config)
	if err != nil {
		return nil, err
	}
	h := &host{config: c, redactor: secrets.NewRedactor(), statuses: make(chan struct{}, 1)}
	h.log = newLogger(g.streams, c.LogLevel, h.redactor)
	defer func() {
		if err != nil {
			h.close()
		}
	}()
	if err := h.openState(ctx, o); err != nil {
		return nil, err
	}
	if err := h.openSource(); err != nil {
		return nil, err
	}
	if h.engine, err = client.New(client.WithHost(c.Engine)); err != nil {
		return nil, fmt.Errorf("cannot use the engine %s: %w", c.Engine, err)
	}
	h.closers = append(h.closers, h.engine.Close)
	engines, err := h.makeReconcilers(reconcilers.Deps{
		Engine: h.engine, Clock: reconcilers.SystemClock{}, Rand: rand.Reader, Log: h.log, Redact: h.redactor.String,
		Terraform:    reconcilers.Terraform{Path: c.Terraform.Path, CLIConfig: c.Terraform.CLIConfig, Allow: c.Terraform.Allow},
		OpenTofu:     reconcilers.Terraform{Path: c.OpenTofu.Path, CLIConfig: c.OpenTofu.CLIConfig},
		DockerConfig: c.DockerConfig,
		Compose:      reconcilers.Compose{Allow: c.Compose.Allow},
	})
	if err != nil {
		return nil, err
	}
	lifetime := o.lifetime
	if lifetime == nil {
		lifetime = ctx
	}
	options := agent.Options{
		Host: c.Host, MachineID: machineID(c), Dir: c.StateDir, Store: h.store, Kinds: all.Registry.Kinds(), Allow: slices.Concat(c.Terraform.Allow, c.Compose.Allow), Reconcilers: engines,
		IDs: state.NewIDs(time.Now, rand.Reader), Secrets: agent.HostSecrets{Random: rand.Reader, Now: time.Now, Keys: hostKey(c), Sources: secretSources(c.Secrets, h.redactor)},
		Redactor: h.redactor, Clock: reconcilers.SystemClock{}, Random: rand.Reader, Log: h.log,
		Resync: time.Duration(c.Resync), Failpoint: o.failpoint,
	}
	options.HostKeys = keysFolder(c) // no key is made before a revision is taken
	if !o.readOnly {
		if options.SigningKey, err = signingKey(c.Report); err != nil {
			return nil, err
		}
		if options.Reporter, err = h.openReports(); err != nil {
			return nil, err
		}
		if options.Statuses, err = h.openStatuses(); err != nil {
			return nil, err
		}
	}
	h.agent = agent.New(lifetime, options)
	return h, nil
}

// makeReconcilers makes one of each kind, which close ends.
func (h *host) makeReconcilers(deps reconcilers.Deps) (map[string]reconcilers.Reconciler, error) {
	engines, err := all.Registry.Make(deps)
	if err != nil {
		return nil, err
	}
	for _, engine := range engines {
		if closer, ok := engine.(io.Closer); ok {
			h.closers = append(h.closers, closer.Close)
		}
	}
	return engines, nil
}

func (h *host) openState(ctx context.Context, o hostOptions) error {
	if err := os.MkdirAll(h.config.StateDir, 0o700); err != nil {
		return fmt.Errorf("cannot make the state folder: %w", err)
	}
	if !o.readOnly {
		if err := os.Chmod(h.config.StateDir, 0o700); err != nil {
			return fmt.Errorf("cannot close the state folder to others: %w", err)
		}
		lock, err := state.Lock(h.config.StateDir)
		if err != nil {
			return err
		}
		h.closers = append(h.closers, lock.Unlock)
	}
	store, notices, err := state.Open(ctx, state.Options{Dir: h.config.StateDir, ReadOnly: o.readOnly})
	if err != nil {
		return err
	}
	for _, notice := range notices {
		h.log.Error("the state could not be read and was begun anew; what was there is kept aside", "kept", notice.Path, "reason", notice.Reason)
	}
	h.store = store
	h.closers = append(h.closers, store.Close)
	return nil
}

func (h *host) openSource() (err error) {
	c := h.config.Source
	if h.remote, err = gitremote.New(remoteConfig(c.Remote)); err != nil {
		return err
	}
	h.closers = append(h.closers, func() error { h.remote.Close(); return nil })
	signers, err := readSigners(c)
	if err != nil {
		return err
	}
	h.source, err = source.New(source.Options{Remote: h.remote, Branch: c.Branch, Dir: h.config.StateDir, Signers: signers})
	if err != nil {
		return err
	}
	for _, notice := range h.source.Notices() {
		h.log.Warn(notice)
	}
	return nil
}

// followed is the revision in force, for commands that are about what it declares.
func (h *host) followed() (agent.Revision, error) {
	revision, ok := h.source.Current()
	if !ok {
		return revision, errors.New("this host follows no revision yet: nothing is known of its instances. Start the agent first")
	}
	return revision, nil
}

// readSigners reads who must have signed what is followed; nil when nobody must.
func readSigners(c config.Source) (*source.Signers, error) {
	if c.Signers == "" && c.Keyring == "" {
		return nil, nil
	}
	var files [2][]byte
	for i, path := range []string{c.Signers, c.Keyring} {
		if path == "" {
			continue
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("cannot read the trusted signers: %w", err)
		}
		files[i] = content
	}
	signers, err := source.ParseSigners(files[0], files[1])
	if err != nil {
		return nil, fmt.Errorf("the trusted signers in %s: %w", strings.TrimSpace(c.Signers+" "+c.Keyring), err)
	}
	return signers, nil
}

func remoteConfig(r config.Remote) gitremote.Config {
	return gitremote.Config{
		URL: r.URL, Username: r.Username, PasswordFile: r.PasswordFile, TokenFile: r.TokenFile, CAFile: r.CAFile,
		ClientCertFile: r.ClientCertFile, ClientKeyFile: r.ClientKeyFile, IdentityFile: r.IdentityFile,
		PassphraseFile: r.PassphraseFile, KnownHostsFile: r.KnownHostsFile, Proxy: r.Proxy,
		AllowLoopbackHTTP: r.AllowLoopbackHTTP, UserAgent: "git/dive-agent-" + versionText(),
	}
}

// close ends what was opened, last first.
func (h *host) close() {
	for i := len(h.closers) - 1; i >= 0; i-- {
		if err := h.closers[i](); err != nil && h.log != nil {
			h.log.Warn("cannot close", "error", err)
		}
	}
	h.closers = nil
}

// keysFolder is where the host's own keys are.
func keysFolder(c *config.Config) string { return filepath.Join(c.StateDir, "host") }

// machineID is the identity instances are bound to.
func machineID(c *config.Config) string {
	if c.MachineID != "" {
		return c.MachineID
	}
	id, err := os.ReadFile("/etc/machine-id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}

// newLogger writes text to a terminal and JSON elsewhere, every line redacted.
func newLogger(s streams, level string, redactor *secrets.Redactor) *slog.Logger {
	levels := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}
	options := &slog.HandlerOptions{Level: levels[level]}
	var handler slog.Handler = slog.NewJSONHandler(s.err, options)
	if s.terminal() {
		handler = slog.NewTextHandler(s.err, options)
	}
	return slog.New(redactor.Handler(handler))
}

// note logs what went wrong beside the matter itself; what says what was tried.
func (h *host) note(what string, err error) {
	if err != nil {
		h.log.Warn("cannot "+what, "error", err)
	}
}
