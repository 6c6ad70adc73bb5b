package pki_test

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/testbed/pki"
)

func TestIssuedCertificateIsTrustedByItsAuthorityOnly(t *testing.T) {
	ca, err := pki.New("one")
	require.NoError(t, err)
	other, err := pki.New("two")
	require.NoError(t, err)
	certPEM, _, err := ca.Issue("hub.test", "127.0.0.1")
	require.NoError(t, err)
	block, _ := pem.Decode(certPEM)
	cert, err := x509.ParseCertificate(block.Bytes)
	require.NoError(t, err)

	_, err = cert.Verify(x509.VerifyOptions{Roots: ca.Pool(), DNSName: "hub.test"})
	require.NoError(t, err)
	_, err = cert.Verify(x509.VerifyOptions{Roots: ca.Pool(), DNSName: "127.0.0.1"})
	require.NoError(t, err)
	_, err = cert.Verify(x509.VerifyOptions{Roots: ca.Pool(), DNSName: "elsewhere.test"})
	require.Error(t, err)
	_, err = cert.Verify(x509.VerifyOptions{Roots: other.Pool(), DNSName: "hub.test"})
	require.Error(t, err)
}

func TestLoadOrCreateKeepsTheAuthority(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	first, err := pki.LoadOrCreate(dir, "kept")
	require.NoError(t, err)
	second, err := pki.LoadOrCreate(dir, "kept")
	require.NoError(t, err)
	require.Equal(t, first.PEM(), second.PEM())
	info, err := os.Stat(filepath.Join(dir, "ca.key"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
}
