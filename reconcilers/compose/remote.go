package compose

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/distribution/reference"
	"github.com/moby/moby/client"
)

// engineCertificates is where the Docker Engine has the authorities, and client certificates, of registries:
// https://docs.docker.com/engine/security/certificates/.
const engineCertificates = "/etc/docker/certs.d"

// askLimit bounds one question to a registry.
const askLimit = 15 * time.Second

// remoteDigest asks the registry what a tag leads to, by HEAD of its manifest: nothing is pulled, and no pull is counted. What the
// engine trusts is trusted: its authorities, its mirrors, and the registries that it takes as insecure.
func (r *Reconciler) remoteDigest(ctx context.Context, s *stack, image string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return "", err
	}
	host := reference.Domain(named)
	a, err := r.account(ctx, s, host)
	if err != nil {
		return "", err
	}
	hosts, err := r.registryHosts(ctx, host, a)
	if err != nil {
		return "", err
	}
	resolver := docker.NewResolver(docker.ResolverOptions{
		Hosts:   func(string) ([]docker.RegistryHost, error) { return hosts, nil },
		Headers: http.Header{"User-Agent": {"dive-agent"}},
	})
	_, found, err := resolver.Resolve(ctx, reference.TagNameOnly(named).String())
	if err != nil {
		return "", err
	}
	return found.Digest.String(), nil
}

// registryAnswers says whether something answers at a registry's address, whatever it says.
func (r *Reconciler) registryAnswers(ctx context.Context, host string) error {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	hosts, err := r.registryHosts(ctx, host, account{})
	if err != nil {
		return err
	}
	var silent error
	for _, at := range hosts {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, at.Scheme+"://"+at.Host+at.Path+"/", nil)
		if err != nil {
			return err
		}
		response, err := at.Client.Do(request)
		if err == nil {
			return response.Body.Close()
		}
		silent = errors.Join(silent, err)
	}
	return silent
}

// registryHosts are the places to ask, in their order. Credentials are for the registry itself alone.
func (r *Reconciler) registryHosts(ctx context.Context, host string, a account) ([]docker.RegistryHost, error) {
	info, err := r.engine.Info(ctx, client.InfoOptions{})
	if err != nil {
		return nil, fmt.Errorf("ask the engine for its registries: %w", err)
	}
	var hosts []docker.RegistryHost
	add := func(scheme, address, path string, insecure bool, creds func(string) (string, string, error)) error {
		transport, err := r.registryTransport(address, insecure)
		if err != nil {
			return err
		}
		web := &http.Client{Transport: transport}
		hosts = append(hosts, docker.RegistryHost{
			Client: web, Authorizer: docker.NewDockerAuthorizer(docker.WithAuthClient(web), docker.WithAuthCreds(creds)),
			Scheme: scheme, Host: address, Path: path, Capabilities: docker.HostCapabilityPull | docker.HostCapabilityResolve,
		})
		return nil
	}
	nobody := func(string) (string, string, error) { return "", "", nil }
	registries := info.Info.RegistryConfig
	if host == "docker.io" && registries != nil {
		for _, mirror := range registries.Mirrors {
			if at, err := url.Parse(mirror); err == nil && at.Host != "" {
				if err := add(at.Scheme, at.Host, strings.TrimSuffix(at.Path, "/")+"/v2", false, nobody); err != nil {
					return nil, err
				}
			}
		}
	}
	insecure := false
	if registries != nil {
		if index := registries.IndexConfigs[host]; index != nil && !index.Secure {
			insecure = true
		}
		insecure = insecure || allWithin(ctx, host, registries.InsecureRegistryCIDRs)
	}
	address := host
	if host == "docker.io" {
		address = "registry-1.docker.io"
	}
	creds := func(string) (string, string, error) {
		if a.token != "" {
			return "", a.token, nil
		}
		return a.username, a.password, nil
	}
	err = add("https", address, "/v2", insecure, creds)
	return hosts, err
}

// allWithin says whether all addresses of a host are in one of the networks.
func allWithin(ctx context.Context, host string, networks []netip.Prefix) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = host
	}
	addresses, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name)
	if err != nil || len(addresses) == 0 {
		return false
	}
	for _, address := range addresses {
		inside := false
		for _, network := range networks {
			inside = inside || network.Contains(address.Unmap())
		}
		if !inside {
			return false
		}
	}
	return true
}

// registryTransport speaks TLS to a registry. To an insecure one, as the engine does, it speaks TLS without a look at the
// certificate, and plain HTTP where that is what it hears.
func (r *Reconciler) registryTransport(host string, insecure bool) (http.RoundTripper, error) {
	settings := &tls.Config{MinVersion: tls.VersionTLS12}
	transport := docker.DefaultHTTPTransport(settings)
	transport.DisableKeepAlives = true // one question in a quarter of an hour
	if insecure {
		settings.InsecureSkipVerify = true //nolint:gosec // the engine's own configuration says so, and pulls so
		return docker.NewHTTPFallback(transport), nil
	}
	dir := filepath.Join(r.certificates, host)
	authorities, _ := filepath.Glob(filepath.Join(dir, "*.crt"))
	for _, file := range authorities {
		if settings.RootCAs == nil {
			pool, err := x509.SystemCertPool()
			if err != nil {
				return nil, fmt.Errorf("read this host's authorities: %w", err)
			}
			settings.RootCAs = pool
		}
		content, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read the engine's authorities for registry %s: %w", host, err)
		}
		if !settings.RootCAs.AppendCertsFromPEM(content) {
			return nil, fmt.Errorf("the engine's authorities for registry %s: %w", host, errors.New(file+" is no certificate"))
		}
	}
	certificates, _ := filepath.Glob(filepath.Join(dir, "*.cert"))
	for _, file := range certificates {
		pair, err := tls.LoadX509KeyPair(file, strings.TrimSuffix(file, ".cert")+".key")
		if err != nil {
			return nil, fmt.Errorf("read the engine's certificate for registry %s: %w", host, err)
		}
		settings.Certificates = append(settings.Certificates, pair)
	}
	return transport, nil
}
