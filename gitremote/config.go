package gitremote

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"
)

// Config says where a remote is and how to reach it. Values that are secret can be given as files, which are
// read anew for each operation, so that a rotated credential is used without a restart.
type Config struct {
	// URL is https://host/path, ssh://user@host:port/path, user@host:path, file:///path or an absolute path.
	// http:// is accepted for a loopback address only, and only with AllowLoopbackHTTP.
	// A password in the URL is refused.
	URL string

	// Username and Password are HTTPS basic credentials; the user of an SSH URL takes precedence over Username.
	Username     string
	Password     string
	PasswordFile string
	// Token is an HTTPS bearer token. It excludes Password.
	Token     string
	TokenFile string
	// ClientCertFile and ClientKeyFile are a PEM certificate and its key for TLS client authentication.
	ClientCertFile string
	ClientKeyFile  string
	// CAFile holds PEM certificates of authorities. When it is set, it is what this remote is checked
	// against, instead of the system's authorities; other connections of the process are not affected.
	CAFile string

	// IdentityFile is the SSH private key; mandatory for SSH. PassphraseFile opens it when it is encrypted.
	IdentityFile   string
	PassphraseFile string
	// KnownHostsFile holds the host keys that are trusted; mandatory for SSH. The check cannot be turned off.
	KnownHostsFile string

	// Proxy is the proxy to use: http://, https:// or socks5:// for HTTPS, socks5:// for SSH.
	// Empty means a direct connection; the environment is not asked.
	Proxy string
	// AllowLoopbackHTTP lets http:// URLs through when the host is a loopback address.
	AllowLoopbackHTTP bool

	// Timeout bounds each operation as a whole. Default 60 s.
	Timeout time.Duration
	Limits  Limits
	// UserAgent is sent to the server. Default "git/dive-agent" (some servers look for the "git/").
	UserAgent string
}

const (
	defaultTimeout   = 60 * time.Second
	defaultUserAgent = "git/dive-agent"
)

// Remote is one Git remote. It is safe for concurrent use. Close it to drop idle connections.
type Remote struct {
	cfg     Config
	display string
	wire    wire

	// secrets replaces in texts the secret values that were used last.
	secrets    atomic.Pointer[strings.Replacer]
	urlSecrets []string // values of the URL's query string
}

// New checks the configuration and returns the remote. It reads the certificates, keys and host keys that are
// named, so that a missing one is found here, and has no other effect: no connection, no goroutine, no global state.
// Errors are of kind Misconfigured.
func New(cfg Config) (*Remote, error) {
	if cfg.Timeout <= 0 {
		cfg.Timeout = defaultTimeout
	}
	if cfg.UserAgent == "" {
		cfg.UserAgent = defaultUserAgent
	}
	cfg.Limits = cfg.Limits.withDefaults()
	r := &Remote{cfg: cfg}

	u, err := parseURL(cfg.URL)
	if err != nil {
		return nil, &Error{Op: "configure", Remote: "the Git remote", Kind: Misconfigured, Err: err, text: err.Error()}
	}
	r.display = displayURL(u)
	switch u.Scheme {
	case "https", "http":
		r.wire, err = newHTTPWire(r, u)
	case "ssh":
		r.wire, err = newSSHWire(r, u)
	default:
		r.wire = newFileWire(r, u)
	}
	if err != nil {
		return nil, &Error{Op: "configure", Remote: r.display, Kind: Misconfigured, Err: err, text: r.scrub(err.Error())}
	}
	return r, nil
}

// String is the remote's URL without credentials and without a query string.
func (r *Remote) String() string { return r.display }

// Limits are the limits in force, defaults filled in.
func (r *Remote) Limits() Limits { return r.cfg.Limits }

// Close drops idle connections. Operations under way end as they would have; later ones still work.
func (r *Remote) Close() { r.wire.close() }

// String hides the secrets of a configuration from careless prints.
func (c Config) String() string {
	u, err := parseURL(c.URL)
	if err != nil {
		return "gitremote.Config(invalid)"
	}
	return "gitremote.Config(" + displayURL(u) + ")"
}

// GoString hides the secrets from %#v.
func (c Config) GoString() string { return c.String() }

// parseURL never repeats the URL in an error: it may hold a password or a token.
func parseURL(raw string) (*url.URL, error) {
	if raw == "" {
		return nil, errors.New("the URL is empty: give https://, ssh:// or an absolute path")
	}
	if filepath.IsAbs(raw) {
		return &url.URL{Scheme: "file", Path: filepath.Clean(raw)}, nil
	}
	if u, ok := parseSCP(raw); ok {
		return u, nil
	}
	u, err := url.Parse(raw)
	if err != nil {
		return nil, errors.New("the URL cannot be read: give https://, ssh:// or an absolute path") // the cause repeats the URL
	}
	if _, has := u.User.Password(); has {
		return nil, errors.New("the URL contains a password: put it into a file and name that file instead")
	}
	switch u.Scheme {
	case "https", "http", "ssh":
		if u.Hostname() == "" || strings.HasPrefix(u.Hostname(), "-") {
			return nil, errors.New("the URL names no usable host")
		}
		if strings.Trim(u.Path, "/") == "" {
			return nil, errors.New("the URL names no repository")
		}
		return u, nil
	case "file":
		if u.Host != "" && u.Host != "localhost" || !filepath.IsAbs(u.Path) {
			return nil, errors.New("a file URL needs an absolute path: file:///srv/fleet.git")
		}
		return &url.URL{Scheme: "file", Path: filepath.Clean(u.Path)}, nil
	default:
		return nil, fmt.Errorf("the scheme %q is not supported: use https, ssh or an absolute path", u.Scheme)
	}
}

// parseSCP reads Git's short form user@host:path (gitprotocol: "scp-like syntax").
func parseSCP(raw string) (*url.URL, bool) {
	if strings.Contains(raw, "://") {
		return nil, false
	}
	host, path, ok := strings.Cut(raw, ":")
	if !ok || path == "" || strings.ContainsAny(host, "/ ") {
		return nil, false
	}
	u := &url.URL{Scheme: "ssh", Path: path}
	if user, h, ok := strings.Cut(host, "@"); ok {
		u.User, host = url.User(user), h
	}
	if host == "" || strings.HasPrefix(host, "-") {
		return nil, false
	}
	u.Host = host
	return u, true
}

func displayURL(u *url.URL) string {
	if u.Scheme == "file" {
		return u.Path
	}
	d := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
	if u.Scheme == "ssh" && !strings.HasPrefix(u.Path, "/") {
		return u.Host + ":" + u.Path
	}
	return d.String()
}

func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	if a, err := netip.ParseAddr(host); err == nil {
		return a.Unmap().IsLoopback()
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
