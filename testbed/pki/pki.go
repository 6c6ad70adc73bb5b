// Package pki makes the private certificate authorities of the test bed: one for the hub, one for the Git
// server, one for whatever a test wants to distrust. It knows nothing of who uses the certificates.
package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Lifetime of every certificate made here: long enough for a run that is left up for a week, short enough
// that nobody takes it for a real one.
const Lifetime = 60 * 24 * time.Hour

// CA is a private certificate authority.
type CA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// New makes an authority in memory.
func New(name string) (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the key of authority %s: %w", name, err)
	}
	template, err := template(name)
	if err != nil {
		return nil, err
	}
	template.IsCA = true
	template.BasicConstraintsValid = true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("sign authority %s: %w", name, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read authority %s back: %w", name, err)
	}
	return &CA{cert: cert, key: key}, nil
}

// LoadOrCreate reads ca.crt and ca.key in dir, or makes both (the key with mode 0600), so that a server that
// is stopped and started again is trusted as before.
func LoadOrCreate(dir, name string) (*CA, error) {
	ca, err := load(dir)
	if !errors.Is(err, os.ErrNotExist) {
		return ca, err
	}
	if ca, err = New(name); err != nil {
		return nil, err
	}
	keyDER, err := x509.MarshalECPrivateKey(ca.key)
	if err != nil {
		return nil, fmt.Errorf("encode the key of authority %s: %w", name, err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "ca.key"), block("EC PRIVATE KEY", keyDER), 0o600); err != nil {
		return nil, err
	}
	return ca, os.WriteFile(filepath.Join(dir, "ca.crt"), ca.PEM(), 0o644)
}

func load(dir string) (*CA, error) {
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key"))
	if err != nil {
		return nil, fmt.Errorf("read the authority in %s: %w", dir, err)
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("read the authority in %s: its key is not ECDSA", dir)
	}
	return &CA{cert: pair.Leaf, key: key}, nil
}

// PEM is the authority's certificate.
func (ca *CA) PEM() []byte { return block("CERTIFICATE", ca.cert.Raw) }

// Pool trusts this authority and no other.
func (ca *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	return pool
}

// Issue makes a server certificate for names and addresses; the first is the subject. The PEM of the
// certificate carries the authority behind it.
func (ca *CA) Issue(hosts ...string) (certPEM, keyPEM []byte, err error) {
	if len(hosts) == 0 {
		return nil, nil, errors.New("issue a certificate: no host named")
	}
	return ca.IssueAs(Certificate{Subject: subject(hosts[0]), Hosts: hosts})
}

// Certificate is what IssueAs makes. Without an end it is valid for Lifetime.
type Certificate struct {
	Subject  pkix.Name
	Hosts    []string
	NotAfter time.Time
}

// IssueAs makes a certificate that servers and clients may show.
func (ca *CA) IssueAs(c Certificate) (certPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make the key of %s: %w", c.Subject, err)
	}
	template, err := template(c.Subject.CommonName)
	if err != nil {
		return nil, nil, err
	}
	template.Subject = c.Subject
	if !c.NotAfter.IsZero() {
		template.NotAfter = c.NotAfter
		template.NotBefore = c.NotAfter.Add(-Lifetime)
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	for _, host := range c.Hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, &key.PublicKey, ca.key)
	if err != nil {
		return nil, nil, fmt.Errorf("sign the certificate of %s: %w", c.Subject, err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("encode the key of %s: %w", c.Subject, err)
	}
	return append(block("CERTIFICATE", der), ca.PEM()...), block("EC PRIVATE KEY", keyDER), nil
}

func subject(name string) pkix.Name {
	return pkix.Name{CommonName: name, Organization: []string{"dive-agent test bed"}}
}

// Server is a TLS configuration with a fresh certificate for the hosts.
func (ca *CA) Server(hosts ...string) (*tls.Config, error) {
	certPEM, keyPEM, err := ca.Issue(hosts...)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("pair the certificate of %s: %w", hosts[0], err)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}, nil
}

func template(name string) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("choose a serial number: %w", err)
	}
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      subject(name),
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(Lifetime),
	}, nil
}

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
