package certificates

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"
)

// PEM types.
const (
	keyBlock         = "PRIVATE KEY"
	requestBlock     = "CERTIFICATE REQUEST"
	certificateBlock = "CERTIFICATE"
)

// backdated is how much before its making a certificate begins to be valid: clocks of hosts differ.
const backdated = 5 * time.Minute

func pemOf(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// blocks are the contents of all blocks of a type, at most limit.
func blocks(text, kind string, limit int) (all [][]byte) {
	for rest := []byte(text); len(all) < limit; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return all
		}
		if block.Type == kind {
			all = append(all, block.Bytes)
		}
	}
	return all
}

// firstCertificate is the first certificate of a text; nil: it has none that can be read.
func firstCertificate(text string) *x509.Certificate {
	for _, der := range blocks(text, certificateBlock, 1) {
		if c, err := x509.ParseCertificate(der); err == nil {
			return c
		}
	}
	return nil
}

// newRequest makes a key and a request for it.
func newRequest(w subject, random io.Reader) (keyPEM, requestPEM string, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), random)
	if err != nil {
		return "", "", fmt.Errorf("make a key: %w", err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", "", fmt.Errorf("make a key: %w", err)
	}
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: w.CommonName}}
	template.DNSNames, template.IPAddresses = split(w.Names)
	der, err := x509.CreateCertificateRequest(random, template, key)
	if err != nil {
		return "", "", fmt.Errorf("make a request for a certificate: %w", err)
	}
	return pemOf(keyBlock, keyDER), pemOf(requestBlock, der), nil
}

func split(names []string) (dns []string, addresses []net.IP) {
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			addresses = append(addresses, ip)
		} else {
			dns = append(dns, name)
		}
	}
	return dns, addresses
}

// namesOf are the names of a request, sorted.
func namesOf(r *x509.CertificateRequest) []string {
	names := slices.Clone(r.DNSNames)
	for _, ip := range r.IPAddresses {
		names = append(names, ip.String())
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// objection says why a request is not signed for a subject, or nothing. It asks for names alone: what else a certificate
// says is the authority's.
func objection(r *x509.CertificateRequest, w subject) string {
	switch {
	case r.CheckSignature() != nil:
		return "the request is not signed by its own key"
	case !strong(r.PublicKey):
		return "its key is weaker than RSA 2048, ECDSA P-256 or Ed25519"
	case r.Subject.CommonName != w.CommonName:
		return fmt.Sprintf("it asks for the name %q, and the manifest says %q", r.Subject.CommonName, w.CommonName)
	case !slices.Equal(namesOf(r), canonical(w.Names)) || len(r.EmailAddresses)+len(r.URIs) > 0:
		return fmt.Sprintf("it asks for %q, and the manifest says %q", namesOf(r), w.Names)
	}
	return ""
}

// canonical are names as namesOf gives them.
func canonical(names []string) []string {
	all := slices.Clone(names)
	for i, name := range all {
		if ip := net.ParseIP(name); ip != nil {
			all[i] = ip.String()
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func strong(key any) bool {
	switch k := key.(type) {
	case *rsa.PublicKey:
		return k.N.BitLen() >= 2048
	case *ecdsa.PublicKey:
		return k.Curve.Params().BitSize >= 256
	case ed25519.PublicKey:
		return true
	}
	return false
}

// authorityKey reads the authority's private key.
func authorityKey(text string) (crypto.Signer, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, errors.New("it is no PEM")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		if parsed, err = x509.ParsePKCS1PrivateKey(block.Bytes); err != nil {
			return nil, errors.New("it is no private key in PKCS 8 or PKCS 1 form")
		}
	}
	key, ok := parsed.(crypto.Signer)
	if !ok || !strong(key.Public()) {
		return nil, errors.New("it cannot sign, or is weaker than RSA 2048, ECDSA P-256 or Ed25519")
	}
	return key, nil
}

// sameKey compares public keys.
func sameKey(a, b any) bool {
	id := keyID(a)
	return id != "" && id == keyID(b)
}

// keyID tells one public key from another.
func keyID(public any) string {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:16])
}

// due is when a certificate is to be made anew: when two thirds of its life are over.
func due(c *x509.Certificate) time.Time { return c.NotBefore.Add(c.NotAfter.Sub(c.NotBefore) * 2 / 3) }
