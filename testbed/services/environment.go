package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"
)

// environment is where a service learns what it works with. A variable that is empty counts as not given.
type environment struct {
	get  func(string) string
	role string // in capitals: BACKEND, KAS, ...
}

func (e environment) or(name, otherwise string) string {
	if value := e.get(name); value != "" {
		return value
	}
	return otherwise
}

func (e environment) duration(name string, otherwise time.Duration) (time.Duration, error) {
	text := e.get(name)
	if text == "" {
		return otherwise, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("config: %s must be a duration such as 30s", name)
	}
	return d, nil
}

// failure is what the service was told to do wrong: exit, unhealthy, slow, or nothing. <ROLE>_FAIL is for one service,
// BACKEND_FAIL for whichever gets it.
func (e environment) failure() string { return e.or(e.role+"_FAIL", e.get("BACKEND_FAIL")) }

func (e environment) validate() error {
	switch e.failure() {
	case "", "unhealthy", "slow":
		return nil
	case "exit":
		return fmt.Errorf("told to fail by %s_FAIL or BACKEND_FAIL", e.role)
	}
	return fmt.Errorf("config: %s_FAIL must be one of: exit, unhealthy, slow", e.role)
}

// client talks HTTPS and trusts the authority in the file that the variable names, or the system's when there is none.
func (e environment) client(caVariable string) (*http.Client, error) {
	transport := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}}
	if e.get(caVariable) != "" {
		pool, err := e.pool(caVariable)
		if err != nil {
			return nil, err
		}
		transport.TLSClientConfig.RootCAs = pool
	}
	return &http.Client{Transport: transport, Timeout: 10 * time.Second}, nil
}

// pool are the authorities in the file that the variable names.
func (e environment) pool(variable string) (*x509.CertPool, error) {
	file := e.get(variable)
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("config: %s: %w", variable, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("config: %s: %s holds no certificate", variable, file)
	}
	return pool, nil
}

func join(base, path string) string { return strings.TrimRight(base, "/") + path }
