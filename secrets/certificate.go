package secrets

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"slices"
	"time"

	"dive-agent/desired"
)

// backdated is how far before its making a certificate begins to be valid: clocks differ.
const backdated = time.Hour

// authority is a secret of kind ca: its key, and its certificate, which is the first; older ones that are still trusted may follow.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// newAuthority makes an authority whose value is its key and its certificate in PEM.
func newAuthority(c desired.Certificate, random io.Reader, now time.Time) ([]byte, error) {
	template, err := templateOf(c, random, now)
	if err != nil {
		return nil, err
	}
	template.IsCA, template.BasicConstraintsValid, template.MaxPathLenZero = true, true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	return signed(template, nil)
}

// readAuthority reads the value of a ca. What a parser says is dropped: it may quote the PEM, which may be a key.
func readAuthority(value []byte) (authority, error) {
	pair, err := tls.X509KeyPair(value, value)
	if err != nil {
		return authority{}, errors.New("it is no key and certificate in PEM: it cannot be read, or key and certificate do not belong together")
	}
	signer, ok := pair.PrivateKey.(crypto.Signer)
	if !ok || !pair.Leaf.IsCA {
		return authority{}, errors.New("its certificate is not one of an authority")
	}
	return authority{pair.Leaf, signer}, nil
}

// certificates gives the certificates of a PEM, without anything else that is in it.
func certificates(value []byte) []byte { return bytes.Join(bundleOf(value).certs, nil) }

// issue makes a certificate and its key. It does not outlive its authority.
func (a authority) issue(c desired.Certificate, random io.Reader, now time.Time) ([]byte, error) {
	template, err := templateOf(c, random, now)
	if err != nil {
		return nil, err
	}
	template.NotAfter = a.end(c, now)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = usages(c)
	template.DNSNames, template.IPAddresses = namesOf(c)
	return signed(template, &a)
}

// end is when a certificate that is made now ends to be valid.
func (a authority) end(c desired.Certificate, now time.Time) time.Time {
	end := now.Add(c.Lifetime).UTC().Truncate(time.Second)
	if a.cert.NotAfter.Before(end) {
		return a.cert.NotAfter
	}
	return end
}

// due says why a certificate is to be made anew, or "".
func (a authority) due(value []byte, c desired.Certificate, now time.Time) string {
	pair, err := tls.X509KeyPair(value, value)
	if err != nil {
		return "it cannot be read"
	}
	leaf := pair.Leaf
	dns, ips := namesOf(c)
	switch {
	case leaf.CheckSignatureFrom(a.cert) != nil:
		return "its authority is another one"
	case !slices.Equal(leaf.DNSNames, dns) || !slices.EqualFunc(leaf.IPAddresses, ips, net.IP.Equal):
		return "its names change"
	case subjectOf(c).String() != leaf.Subject.String():
		return "its subject changes"
	case !slices.Equal(leaf.ExtKeyUsage, usages(c)):
		return "its usages change"
	case !leaf.NotAfter.Equal(a.end(c, leaf.NotBefore.Add(backdated))):
		return "its lifetime changes"
	case !now.Before(leaf.NotAfter.Add(-c.Lifetime/3)) && a.end(c, now).After(leaf.NotAfter):
		return "two thirds of its life are over"
	}
	return ""
}

func subjectOf(c desired.Certificate) pkix.Name {
	name := pkix.Name{CommonName: c.CommonName}
	if c.Organization != "" {
		name.Organization = []string{c.Organization}
	}
	if c.Unit != "" {
		name.OrganizationalUnit = []string{c.Unit}
	}
	return name
}

func usages(c desired.Certificate) (list []x509.ExtKeyUsage) {
	if c.Server {
		list = append(list, x509.ExtKeyUsageServerAuth)
	}
	if c.Client {
		list = append(list, x509.ExtKeyUsageClientAuth)
	}
	return list
}

func namesOf(c desired.Certificate) (dns []string, ips []net.IP) {
	for _, name := range c.Names {
		if ip := net.ParseIP(name); ip != nil {
			ips = append(ips, ip)
		} else {
			dns = append(dns, name)
		}
	}
	return dns, ips
}

func templateOf(c desired.Certificate, random io.Reader, now time.Time) (*x509.Certificate, error) {
	serial, err := randomBytes(random, 16)
	if err != nil {
		return nil, err
	}
	serial[0] &= 0x7f // positive (RFC 5280, 4.1.2.2)
	now = now.UTC().Truncate(time.Second)
	return &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(serial), Subject: subjectOf(c),
		NotBefore: now.Add(-backdated), NotAfter: now.Add(c.Lifetime),
	}, nil
}

// signed makes a key and a certificate for it, signed by the authority or, without one, by itself; both in PEM, the key
// first. As all of crypto/ecdsa it takes its randomness from the system.
func signed(template *x509.Certificate, by *authority) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the key of a certificate: %w", err)
	}
	if by == nil {
		by = &authority{template, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by.cert, key.Public(), by.key)
	if err != nil {
		return nil, fmt.Errorf("sign a certificate: %w", err)
	}
	private, err := privatePEM(key)
	if err != nil {
		return nil, err
	}
	return append(private, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...), nil
}

// isAuthority and isIssued tell the two kinds of certificates apart from all other secrets.
func isAuthority(spec desired.SecretSpec) bool {
	return spec.Certificate != nil && spec.Certificate.Authority == ""
}

func isIssued(spec desired.SecretSpec) bool {
	return spec.Certificate != nil && spec.Certificate.Authority != ""
}

// seenOf is what containers and expressions get of a secret: the key of an authority never leaves the store.
func seenOf(kind string, value []byte) []byte {
	if kind == desired.AuthorityKind {
		return certificates(value)
	}
	return value
}

// issueAll makes the certificates that are not there, or due.
func (e *ensuring) issueAll(specs []desired.SecretSpec) (made []string, err error) {
	for _, spec := range specs {
		if !isIssued(spec) {
			continue
		}
		signer, err := readAuthority(e.values[spec.Certificate.Authority])
		if err != nil {
			return nil, fmt.Errorf("secret %s of %s cannot sign certificates: %w", spec.Certificate.Authority, e.instance, err)
		}
		now := e.now()
		if value := e.values[spec.Name]; value != nil && signer.due(value, *spec.Certificate, now) == "" {
			continue
		}
		if !now.Before(signer.cert.NotAfter) {
			return nil, &EndedError{Instance: e.instance, Name: spec.Certificate.Authority, End: signer.cert.NotAfter}
		}
		value, err := signer.issue(*spec.Certificate, e.random, now)
		if err != nil {
			return nil, fmt.Errorf("make secret %s of %s: %w", spec.Name, e.instance, err)
		}
		if err := e.keep(spec.Name, kindOf(spec), value); err != nil {
			return nil, err
		}
		made = append(made, spec.Name)
	}
	return made, nil
}

// endOf is until when the certificate in a value is valid; zero when it cannot be read.
func endOf(value []byte) time.Time {
	pair, err := tls.X509KeyPair(value, value)
	if err != nil {
		return time.Time{}
	}
	return pair.Leaf.NotAfter.UTC()
}
