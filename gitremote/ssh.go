package gitremote

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"sync"
	"time"

	"github.com/skeema/knownhosts"
	"golang.org/x/crypto/ssh"
	"golang.org/x/net/proxy"
)

// sshWire reaches a server over SSH with an identity and known host keys from the configuration; no agent, no
// user configuration. One connection per operation; the operation's context bounds all of it, the handshake too.
type sshWire struct {
	streamWire
	addr string
	user string
	path string

	mu     sync.Mutex
	opened *openedIdentity
}

// openedIdentity is the key that was read last: opening an encrypted one takes a tenth of a second by design.
type openedIdentity struct {
	of  [sha256.Size]byte // the file and the passphrase
	key ssh.Signer
}

const defaultSSHUser = "git"

// newSSHWire reads identity and host keys once, so that a bad file is told at the start and not by each poll. A remote
// without known host keys is refused: there is no trust at first sight.
func newSSHWire(r *Remote, u *url.URL) (*sshWire, error) {
	s := &sshWire{user: defaultSSHUser, path: u.Path}
	s.streamWire = streamWire{r: r, open: s.open}
	switch {
	case u.User.Username() != "":
		s.user = u.User.Username()
	case r.cfg.Username != "":
		s.user = r.cfg.Username
	}
	port := u.Port()
	if port == "" {
		port = "22"
	}
	s.addr = net.JoinHostPort(u.Hostname(), port)
	if len(s.path) > 2 && s.path[:2] == "/~" { // ssh://host/~user/path is relative to a home
		s.path = s.path[1:]
	}
	if r.cfg.Proxy != "" {
		if _, err := parseProxy(r.cfg.Proxy, "socks5"); err != nil {
			return nil, err
		}
	}
	if r.cfg.IdentityFile == "" {
		return nil, errors.New("SSH needs an identity: name the private key as identityFile")
	}
	if r.cfg.KnownHostsFile == "" {
		return nil, errors.New("SSH needs known host keys: name a known_hosts file as knownHostsFile (ssh-keyscan writes the lines; check them)")
	}
	if _, err := s.identity(); err != nil {
		return nil, err
	}
	if _, err := s.hostKeys(); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *sshWire) identity() (ssh.Signer, error) {
	cfg := s.r.cfg
	pem, err := os.ReadFile(cfg.IdentityFile)
	if err != nil {
		return nil, ofKind(Misconfigured, "reading the SSH identity: %w", err)
	}
	pass := ""
	if cfg.PassphraseFile != "" {
		if pass, err = secretFile("passphrase", cfg.PassphraseFile); err != nil {
			return nil, err
		}
		s.r.hide(pass)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	of := sha256.Sum256(append(append(pem[:len(pem):len(pem)], 0), pass...))
	if s.opened != nil && s.opened.of == of {
		return s.opened.key, nil
	}
	key, err := openIdentity(cfg, pem, pass)
	if err == nil {
		s.opened = &openedIdentity{of, key}
	}
	return key, err
}

func openIdentity(cfg Config, pem []byte, pass string) (ssh.Signer, error) {
	if pass == "" {
		key, err := ssh.ParsePrivateKey(pem)
		var locked *ssh.PassphraseMissingError
		if errors.As(err, &locked) {
			return nil, ofKind(Misconfigured, "the SSH identity %s is encrypted: name the file of its passphrase as passphraseFile", cfg.IdentityFile)
		}
		if err != nil {
			return nil, ofKind(Misconfigured, "the SSH identity %s cannot be used: %w", cfg.IdentityFile, err)
		}
		return key, nil
	}
	key, err := ssh.ParsePrivateKeyWithPassphrase(pem, []byte(pass))
	if err != nil {
		return nil, ofKind(Misconfigured, "the SSH identity %s cannot be opened with its passphrase: %w", cfg.IdentityFile, err)
	}
	return key, nil
}

func (s *sshWire) hostKeys() (*knownhosts.HostKeyDB, error) {
	db, err := knownhosts.NewDB(s.r.cfg.KnownHostsFile)
	if err != nil {
		return nil, ofKind(Misconfigured, "reading the known hosts: %w", err)
	}
	return db, nil
}

func (s *sshWire) dial(ctx context.Context) (net.Conn, error) {
	direct := &net.Dialer{Timeout: 15 * time.Second, KeepAlive: 30 * time.Second}
	if s.r.cfg.Proxy == "" {
		return direct.DialContext(ctx, "tcp", s.addr)
	}
	u, err := parseProxy(s.r.cfg.Proxy, "socks5")
	if err != nil {
		return nil, err
	}
	d, err := proxy.FromURL(u, direct)
	if err != nil {
		return nil, err
	}
	return d.(proxy.ContextDialer).DialContext(ctx, "tcp", s.addr)
}

// connect dials and shakes hands. The connection is closed when the context ends.
func (s *sshWire) connect(ctx context.Context) (*ssh.Client, func(), error) {
	key, err := s.identity()
	if err != nil {
		return nil, nil, err
	}
	db, err := s.hostKeys()
	if err != nil {
		return nil, nil, err
	}
	conn, err := s.dial(ctx)
	if err != nil {
		return nil, nil, err
	}
	if t, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(t)
	}
	unwatch := context.AfterFunc(ctx, func() { conn.Close() })
	asked := false
	check := db.HostKeyCallback()
	cfg := &ssh.ClientConfig{
		User:              s.user,
		HostKeyAlgorithms: db.HostKeyAlgorithms(s.addr),
		HostKeyCallback: func(host string, remote net.Addr, k ssh.PublicKey) error {
			if err := check(host, remote, k); err != nil {
				return &hostKeyError{host: host, file: s.r.cfg.KnownHostsFile, key: k, err: err}
			}
			return nil
		},
		Auth: []ssh.AuthMethod{ssh.PublicKeysCallback(func() ([]ssh.Signer, error) {
			asked = true
			return []ssh.Signer{key}, nil
		})},
		ClientVersion: "SSH-2.0-dive-agent",
	}
	c, chans, reqs, err := ssh.NewClientConn(conn, s.addr, cfg)
	if err != nil {
		unwatch()
		conn.Close()
		var netErr net.Error
		if asked && ctx.Err() == nil && !errors.As(err, &netErr) && !errors.Is(err, io.EOF) {
			return nil, nil, ofKind(Authentication, "the remote does not accept the SSH identity of user %q: %w", s.user, err)
		}
		return nil, nil, err
	}
	client := ssh.NewClient(c, chans, reqs)
	return client, func() { unwatch(); client.Close(); _ = client.Wait() }, nil
}

func (s *sshWire) open(ctx context.Context, svc service, v2 bool) (*stream, error) {
	client, closeClient, err := s.connect(ctx)
	if err != nil {
		return nil, err
	}
	st, err := s.start(client, svc, v2)
	if err != nil {
		closeClient()
		return nil, err
	}
	endSession := st.stop
	st.stop = func() { endSession(); closeClient() }
	return st, nil
}

func (s *sshWire) start(client *ssh.Client, svc service, v2 bool) (*stream, error) {
	session, err := client.NewSession()
	if err != nil {
		return nil, err
	}
	st := &stream{said: &tail{}}
	session.Stderr = st.said
	if st.in, err = session.StdinPipe(); err != nil {
		return nil, err
	}
	if st.out, err = session.StdoutPipe(); err != nil {
		return nil, err
	}
	if v2 {
		_ = session.Setenv("GIT_PROTOCOL", "version=2") // a server that does not take it speaks version 0
	}
	if err := session.Start(string(svc) + " " + quote(s.path)); err != nil {
		return nil, err
	}
	st.stop = func() { session.Close() }
	st.wait = session.Wait
	return st, nil
}

// hostKeyError says which key a server showed.
type hostKeyError struct {
	host, file string
	key        ssh.PublicKey
	err        error
}

func (e *hostKeyError) Error() string {
	what := "is not in"
	if knownhosts.IsHostKeyChanged(e.err) {
		what = "differs from the one in"
	}
	return fmt.Sprintf("the host key of %s (%s %s) %s %s: if it is the right one, put it there",
		e.host, e.key.Type(), ssh.FingerprintSHA256(e.key), what, e.file)
}

func (e *hostKeyError) Unwrap() error { return e.err }

// untrusted says whether the other side failed to prove who it is.
func untrusted(err error) bool {
	var (
		hostKey *hostKeyError
		verify  *tls.CertificateVerificationError
		unknown x509.UnknownAuthorityError
		name    x509.HostnameError
		invalid x509.CertificateInvalidError
	)
	return errors.As(err, &hostKey) || errors.As(err, &verify) || errors.As(err, &unknown) ||
		errors.As(err, &name) || errors.As(err, &invalid)
}
