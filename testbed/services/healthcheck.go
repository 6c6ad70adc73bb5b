package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"
)

// runHealthcheck asks the service of this container. HEALTHCHECK_PATH and PORT say where; without them it tries the
// backend's, the KAS's and the frontend's own.
func runHealthcheck(ctx context.Context, env environment, _ *slog.Logger) error {
	client, scheme, err := ownClient(env)
	if err != nil {
		return err
	}
	var failed error
	for _, place := range healthPlaces(env) {
		if failed = getJSON(ctx, client, scheme+"://"+net.JoinHostPort("127.0.0.1", place[0])+place[1], nil); failed == nil {
			return nil
		}
	}
	return failed
}

func healthPlaces(env environment) [][2]string {
	path, port := env.get("HEALTHCHECK_PATH"), env.get("PORT")
	if path != "" && port != "" {
		return [][2]string{{port, path}}
	}
	if port != "" {
		return [][2]string{{port, "/api/health"}, {port, "/health"}}
	}
	return [][2]string{{"4000", "/api/health"}, {"9000", "/health"}, {"3000", "/health"}}
}

// ownClient trusts the very certificate that the service was given, under whatever name it is issued, and shows it where the
// service asks for one.
func ownClient(env environment) (*http.Client, string, error) {
	file := env.get("TLS_CERT_FILE")
	if file == "" {
		return &http.Client{Timeout: 5 * time.Second}, "http", nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, "", fmt.Errorf("config: TLS_CERT_FILE: %w", err)
	}
	block, rest := pem.Decode(data)
	for block != nil && block.Type != "CERTIFICATE" { // its key may stand before it
		block, rest = pem.Decode(rest)
	}
	if block == nil {
		return nil, "", fmt.Errorf("config: TLS_CERT_FILE: %s holds no certificate", file)
	}
	same := func(raw [][]byte, _ [][]*x509.Certificate) error {
		if len(raw) == 0 || !bytes.Equal(raw[0], block.Bytes) {
			return errors.New("another certificate than the one in TLS_CERT_FILE answers")
		}
		return nil
	}
	config := &tls.Config{InsecureSkipVerify: true, VerifyPeerCertificate: same} // same is stricter than the check it replaces
	if env.get("TLS_CLIENT_CA_FILE") != "" {
		own, err := tls.LoadX509KeyPair(file, env.get("TLS_KEY_FILE"))
		if err != nil {
			return nil, "", fmt.Errorf("config: TLS_KEY_FILE: %w", err)
		}
		config.Certificates = []tls.Certificate{own}
	}
	return &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: config}}, "https", nil
}
