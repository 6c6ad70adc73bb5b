package gitserver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"dive-agent/testbed/pki"
)

// User may read, and push when Write is set. It logs in over HTTPS by basic authentication with Name and
// Password, or by bearer token with Password alone.
type User struct {
	Name     string
	Password string
	Write    bool
}

// Options of a server. The zero value listens on free ports of 127.0.0.1, keeps everything in Dir, and knows
// the two users of DefaultUsers.
type Options struct {
	// Dir holds ca.crt, the SSH keys and repos/. Start takes a temporary folder when it is empty.
	Dir string
	// Listen and ListenSSH are host:port; "off" in ListenSSH leaves SSH out.
	Listen, ListenSSH string
	// Names are further names and addresses of the HTTPS certificate, beyond those of this machine and host.docker.internal.
	Names []string
	// Users who may log in over HTTPS; nil means DefaultUsers, empty means that anyone may read and write.
	Users []User
	// ErrorLog takes what git writes to stderr; nil drops it.
	ErrorLog func(line string)
}

// DefaultUsers are a reader and a writer, as the agent needs them: it follows with one, and pushes its status
// with the other.
func DefaultUsers() []User {
	return []User{
		{Name: "reader", Password: "reader-password"},
		{Name: "writer", Password: "writer-password", Write: true},
	}
}

// Server serves the repositories of one folder. All methods may be called at any time from any goroutine.
type Server struct {
	options Options
	ca      *pki.CA
	tls     *tls.Config
	ssh     *ssh.ServerConfig
	keys    sshKeys
	backend string // path of git-http-backend
	faults  faults
	log     requestLog

	mu       sync.Mutex
	http     *http.Server
	sshd     *sshListener
	httpAddr string
	sshAddr  string
}

// TB is what Start needs of a test.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
	Cleanup(func())
	TempDir() string
}

// Start runs a server until the end of the test.
func Start(tb TB, options Options) *Server {
	tb.Helper()
	if options.Dir == "" {
		options.Dir = tb.TempDir()
	}
	server, err := New(options)
	if err != nil {
		tb.Fatalf("start the Git server: %v", err)
		return nil
	}
	tb.Cleanup(server.Stop)
	if err := server.Up(); err != nil {
		tb.Fatalf("start the Git server: %v", err)
	}
	return server
}

// New prepares folders, authority and keys, and listens on nothing yet. A folder that was used before gives
// the same authority and keys again.
func New(options Options) (*Server, error) {
	if options.Users == nil {
		options.Users = DefaultUsers()
	}
	if options.Listen == "" {
		options.Listen = "127.0.0.1:0"
	}
	if options.ListenSSH == "" {
		options.ListenSSH = "127.0.0.1:0"
	}
	server := &Server{options: options, httpAddr: options.Listen, sshAddr: options.ListenSSH}
	out, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		return nil, fmt.Errorf("ask git for its folder of commands: %w", err)
	}
	server.backend = filepath.Join(strings.TrimSpace(string(out)), "git-http-backend")
	if _, err := os.Stat(server.backend); err != nil {
		return nil, fmt.Errorf("look for git-http-backend, which is part of the package git: %w", err)
	}
	if err := os.MkdirAll(server.root(), 0o755); err != nil {
		return nil, err
	}
	if server.ca, err = pki.LoadOrCreate(options.Dir, "git server"); err != nil {
		return nil, err
	}
	if server.tls, err = server.ca.Server(append([]string{"localhost", "127.0.0.1", "::1", "git.test", "host.docker.internal"}, options.Names...)...); err != nil {
		return nil, err
	}
	if server.keys, err = loadSSHKeys(options.Dir); err != nil {
		return nil, err
	}
	server.ssh = server.keys.serverConfig()
	return server, nil
}

// Up listens; after Stop it listens on the same ports as before. Faults stay as they are.
func (s *Server) Up() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.http != nil {
		return nil
	}
	listener, err := net.Listen("tcp", s.httpAddr)
	if err != nil {
		return fmt.Errorf("listen for HTTPS on %s: %w", s.httpAddr, err)
	}
	s.httpAddr = listener.Addr().String()
	if s.options.ListenSSH != "off" {
		if s.sshd, err = s.listenSSH(s.sshAddr); err != nil {
			listener.Close()
			return err
		}
		s.sshAddr = s.sshd.addr()
	}
	s.http = &http.Server{
		Handler:           http.HandlerFunc(s.serveHTTP),
		TLSConfig:         s.tls.Clone(),
		ReadHeaderTimeout: time.Minute,
		ErrorLog:          quietLog,
	}
	go func(server *http.Server) {
		if err := server.ServeTLS(s.faults.listener(listener), "", ""); !errors.Is(err, http.ErrServerClosed) {
			s.complain(fmt.Sprintf("HTTPS ended: %v", err))
		}
	}(s.http)
	return nil
}

// Stop closes the ports and every connection at once, as a killed server would; connecting is refused until
// Up. Requests that hang by a fault are let go.
func (s *Server) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.http != nil {
		_ = s.http.Close()
		s.http = nil
	}
	if s.sshd != nil {
		s.sshd.close()
		s.sshd = nil
	}
	s.faults.releaseHung()
}

// Run serves until the context ends.
func (s *Server) Run(ctx context.Context) error {
	if err := s.Up(); err != nil {
		return err
	}
	<-ctx.Done()
	s.Stop()
	return nil
}

// URL of a repository over HTTPS, without credentials.
func (s *Server) URL(name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return "https://" + s.httpAddr + "/" + repositoryFolder(name)
}

// SSHURL of a repository: ssh://git@host:port/name.git.
func (s *Server) SSHURL(name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return "ssh://git@" + s.sshAddr + "/" + repositoryFolder(name)
}

// CAFile is the PEM file of the private authority that signed the HTTPS certificate.
func (s *Server) CAFile() string { return filepath.Join(s.options.Dir, "ca.crt") }

// CA is the private authority itself.
func (s *Server) CA() *pki.CA { return s.ca }

// Reader is the first user without the right to push, Writer the first with it; zero when there is none.
func (s *Server) Reader() User { return s.user(false) }

// Writer is the first user who may push; zero when there is none.
func (s *Server) Writer() User { return s.user(true) }

func (s *Server) user(write bool) User {
	for _, user := range s.options.Users {
		if user.Write == write {
			return user
		}
	}
	return User{}
}

func (s *Server) root() string { return filepath.Join(s.options.Dir, "repos") }

func (s *Server) complain(line string) {
	if s.options.ErrorLog != nil {
		s.options.ErrorLog(line)
	}
}
