package testbed

import (
	"bytes"
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
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// RegistryOptions say who a registry lets in, and how.
type RegistryOptions struct {
	User, Password string      // who may push and pull (basic authentication); empty: everybody
	Tokens         bool        // the user signs in for a token, as with Docker Hub and the registries of forges
	TLS            *tls.Config // of its address; nil: plain HTTP
}

// Registry is a real registry (Debian's docker-registry) behind an address of its own on this machine. Engines take what is
// in 127.0.0.0/8 for insecure: they speak plain HTTP to it, or TLS without a look at the certificate.
//
// All requests go through a front in this process, which counts them and can keep them from being answered.
type Registry struct {
	Address string // 127.0.0.1:PORT, the first part of its images' names

	tb      testing.TB
	options RegistryOptions
	inner   string // where docker-registry itself listens
	front   *registryFront
	tokens  *tokenIssuer // nil without them
	server  *http.Server
	mu      sync.Mutex
	said    bytes.Buffer // by docker-registry
}

// NewRegistry starts an empty registry; it ends with the test. Nothing of it outlives the test but images that an engine took.
func NewRegistry(tb testing.TB, options RegistryOptions) *Registry {
	tb.Helper()
	program, err := registryProgram(tb.Context(), logProgress(tb))
	if err != nil {
		tb.Fatalf("test bed: %v", err)
	}
	r := &Registry{tb: tb, options: options, inner: fmt.Sprintf("127.0.0.1:%d", FreePort(tb))}
	r.front = newRegistryFront(r.inner)
	r.listen("127.0.0.1:0")
	tb.Cleanup(r.Close)
	config, err := r.configure(tb.TempDir())
	if err != nil {
		tb.Fatalf("test bed: configure the registry: %v", err)
	}
	r.run(program, config)
	return r
}

// registryProgram gives docker-registry, taken out of Debian's package: installed, its service would be started where there
// is a service manager.
func registryProgram(ctx context.Context, say Progress) (string, error) {
	const program = "usr/bin/docker-registry"
	if path := lookPath("docker-registry"); path != "" {
		return path, nil
	}
	dir, err := cached(ctx, "docker-registry", func(ctx context.Context, path string) error {
		if err := os.MkdirAll(path, 0o755); err != nil {
			return err
		}
		fetch := command{dir: path, name: "apt-get", args: []string{"download", "-q", "docker-registry"}}
		say("apt-get download docker-registry")
		if _, err := fetch.run(ctx); err != nil {
			say("apt-get update")
			if _, err := (command{name: "apt-get", args: []string{"update", "-q"}}).run(ctx); err != nil {
				return fmt.Errorf("refresh Debian's package lists: %w", err)
			}
			if _, err := fetch.run(ctx); err != nil {
				return fmt.Errorf("get Debian's package docker-registry: %w", err)
			}
		}
		found, err := filepath.Glob(filepath.Join(path, "docker-registry_*.deb"))
		if err != nil || len(found) != 1 {
			return fmt.Errorf("apt-get left %d packages of docker-registry, not one", len(found))
		}
		if _, err := (command{name: "dpkg-deb", args: []string{"-x", found[0], path}}).run(ctx); err != nil {
			return fmt.Errorf("unpack docker-registry: %w", err)
		}
		return os.Remove(found[0])
	})
	return filepath.Join(dir, program), err
}

// configure writes the registry's configuration and gives its path.
func (r *Registry) configure(dir string) (string, error) {
	config := fmt.Sprintf("version: 0.1\nlog: {level: warn}\nstorage:\n  filesystem: {rootdirectory: %q}\n  delete: {enabled: true}\n"+
		"http: {addr: %q, relativeurls: true}\n", filepath.Join(dir, "data"), r.inner)
	if r.options.Tokens {
		issuer, bundle, err := newTokenIssuer(dir, r.options.User, r.options.Password)
		if err != nil {
			return "", err
		}
		r.tokens = issuer
		r.front.token(issuer)
		config += fmt.Sprintf("auth:\n  token: {realm: %q, service: %s, issuer: %s, rootcertbundle: %q}\n",
			"http://"+r.Address+"/token", tokenService, tokenService, bundle)
	} else if r.options.User != "" {
		hash, err := bcrypt.GenerateFromPassword([]byte(r.options.Password), bcrypt.MinCost)
		if err != nil {
			return "", err
		}
		users := filepath.Join(dir, "htpasswd")
		if err := os.WriteFile(users, []byte(r.options.User+":"+string(hash)+"\n"), 0o600); err != nil {
			return "", err
		}
		config += fmt.Sprintf("auth:\n  htpasswd: {realm: test bed, path: %q}\n", users)
	}
	path := filepath.Join(dir, "config.yml")
	return path, os.WriteFile(path, []byte(config), 0o600)
}

// run starts docker-registry and waits until it listens. It ends with the test.
func (r *Registry) run(program, config string) {
	r.tb.Helper()
	cmd := exec.Command(program, "serve", config)
	cmd.Stdout, cmd.Stderr = registryLog{r}, registryLog{r}
	endGroup(cmd)
	cmd.Cancel = nil
	if err := cmd.Start(); err != nil {
		r.tb.Fatalf("test bed: start docker-registry: %v", err)
	}
	r.tb.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	err := Until(r.tb.Context(), 20*time.Second, 10*time.Millisecond, "docker-registry to listen", func() error {
		connection, err := net.DialTimeout("tcp", r.inner, time.Second)
		if err != nil {
			return err
		}
		return connection.Close()
	})
	if err != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.tb.Fatalf("test bed: %v\n%s", err, lastLines(r.said.String(), 20))
	}
}

// registryLog keeps what docker-registry says.
type registryLog struct{ r *Registry }

func (l registryLog) Write(text []byte) (int, error) {
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	return l.r.said.Write(text)
}

// listen opens the front.
func (r *Registry) listen(address string) {
	r.tb.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		r.tb.Fatalf("test bed: listen for the registry: %v", err)
	}
	r.Address = listener.Addr().String()
	if r.options.TLS != nil {
		listener = tls.NewListener(listener, r.options.TLS)
	}
	r.server = &http.Server{Handler: r.front, ReadHeaderTimeout: 10 * time.Second, ErrorLog: quietLog}
	server := r.server
	go func() { _ = server.Serve(listener) }()
}

// Close takes the registry off the network: nothing listens at its address any more.
func (r *Registry) Close() {
	r.front.Hang(false)
	_ = r.server.Close()
}

// Open puts a closed registry back, at its address.
func (r *Registry) Open() {
	r.tb.Helper()
	r.listen(r.Address)
}

// Hang makes the registry take requests for parts of images and never answer them, until it is told not to any more.
func (r *Registry) Hang(on bool) { r.front.Hang(on) }

// Asked counts the requests by their method and what they were for, such as "HEAD manifests", "GET blobs".
func (r *Registry) Asked() map[string]int { return r.front.Asked() }

// Image gives the name of an image in this registry, such as "127.0.0.1:5000/app:1" of "app:1".
func (r *Registry) Image(name string) string { return r.Address + "/" + name }

// do sends one request to docker-registry itself, past the front. It gives the answer's header.
func (r *Registry) do(method, path, mediaType string, body []byte) (http.Header, error) {
	ctx, cancel := context.WithTimeout(r.tb.Context(), 30*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, "http://"+r.inner+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if mediaType != "" {
		request.Header.Set("Content-Type", mediaType)
	}
	request.Header.Set("Accept", typeManifest)
	if r.tokens != nil {
		name, _, _ := strings.Cut(strings.TrimPrefix(path, "/v2/"), "/")
		token, err := r.tokens.issue("repository:" + name + ":pull,push,delete")
		if err != nil {
			return nil, err
		}
		request.Header.Set("Authorization", "Bearer "+token)
	} else if r.options.User != "" {
		request.SetBasicAuth(r.options.User, r.options.Password)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	var said bytes.Buffer
	if _, err := said.ReadFrom(response.Body); err != nil {
		return nil, err
	}
	if response.StatusCode/100 != 2 {
		return nil, errors.New(method + " " + path + ": " + response.Status + ": " + said.String())
	}
	return response.Header, nil
}
