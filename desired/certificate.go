package desired

import (
	"net/netip"
	"regexp"
	"slices"
	"time"
)

// Kinds of generated secrets that are certificates.
const (
	AuthorityKind   = "ca"
	CertificateKind = "certificate"
)

// Lifetimes of what says none.
const (
	authorityLifetime   = 10 * 365 * 24 * time.Hour
	certificateLifetime = 90 * 24 * time.Hour
	shortestLifetime    = time.Minute
)

// Subject is whom a certificate is for.
type Subject struct {
	CommonName         Expr `yaml:"commonName" doc:"Default: the first of names, else the instance's name; of a ca, the names of instance and secret."`
	Organization       Expr `yaml:"organization" doc:"Default: the instance's name."`
	OrganizationalUnit Expr `yaml:"organizationalUnit" doc:"Default: the secret's name. Members of a replica set with x.509 cluster authentication need the same organization and unit, and clients another one."`
}

// Certificate is what a secret of kind ca or certificate is to be, its expressions evaluated.
type Certificate struct {
	Authority    string // secret of the authority that signs it; empty: it is one, and signs itself
	CommonName   string
	Organization string
	Unit         string
	Names        []string // DNS names and IP addresses
	Server       bool     // may be shown by a server
	Client       bool     // may be shown by a client
	Lifetime     time.Duration
}

// hostName is a DNS name, of which the first label may be a wildcard.
var hostName = regexp.MustCompile(`^(\*\.)?[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?)*$`)

// IsHost says whether a text is a DNS name or an IP address, as a server's certificate may have it.
func IsHost(text string) bool {
	_, err := netip.ParseAddr(text)
	return err == nil || hostName.MatchString(text)
}

// certificate evaluates what a secret says of a certificate; nil for other kinds.
func (b *builder) certificate(d *Decoder, f field, g *Generate) *Certificate {
	if g == nil || g.Kind != AuthorityKind && g.Kind != CertificateKind || f.value.get("generate").kind != mappingNode {
		return nil
	}
	at := f.value.get("generate").at
	eval := func(x Expr, otherwise string) string {
		return b.plainText(d, x, otherwise, "secret "+f.name, "a certificate may use values")
	}
	c := &Certificate{Lifetime: g.Lifetime.Std(), Server: true, Client: true}
	name := b.name + " " + f.name
	if g.Kind == CertificateKind {
		c.Authority, name = g.CA, b.name
		for _, x := range g.Names {
			host := eval(x, "")
			if host != "" && !IsHost(host) {
				d.Errorf(x.Position(), "secret %s: %q is no DNS name and no IP address", f.name, host)
			}
			c.Names = append(c.Names, host)
		}
		if len(c.Names) > 0 {
			name = c.Names[0]
		}
		if len(g.Usages) > 0 {
			c.Server, c.Client = slices.Contains(g.Usages, "server"), slices.Contains(g.Usages, "client")
		}
	}
	c.CommonName, c.Organization, c.Unit = eval(g.Subject.CommonName, name), eval(g.Subject.Organization, b.name), eval(g.Subject.OrganizationalUnit, f.name)
	c.check(d, at, f.name, g)
	return c
}

func (c *Certificate) check(d *Decoder, at Position, secret string, g *Generate) {
	for _, usage := range g.Usages {
		if usage != "server" && usage != "client" {
			d.Errorf(at, "usage %q of secret %s: server and client are possible", usage, secret)
		}
	}
	switch {
	case g.Kind == AuthorityKind && (g.CA != "" || len(g.Names) > 0 || len(g.Usages) > 0):
		d.Errorf(at, "secret %s is an authority: ca, names and usages belong to certificates", secret)
	case g.Kind == CertificateKind && g.CA == "":
		d.Errorf(at, "certificate %s needs ca: the secret that signs it", secret)
	case g.Kind == CertificateKind && c.Server && len(c.Names) == 0:
		d.Errorf(at, "certificate %s needs names: nobody would take it for any server's. For clients alone say usages: [client]", secret)
	}
	switch {
	case c.Lifetime == 0 && g.Kind == AuthorityKind:
		c.Lifetime = authorityLifetime
	case c.Lifetime == 0:
		c.Lifetime = certificateLifetime
	case c.Lifetime < shortestLifetime:
		d.Errorf(at, "lifetime of secret %s must be %s or more", secret, shortestLifetime)
	}
}

// checkAuthorities holds certificates against the secrets that sign them.
func (b *builder) checkAuthorities(d *Decoder) {
	for _, secret := range b.instance.Secrets {
		c := secret.Certificate
		if c == nil || c.Authority == "" {
			continue
		}
		signer := b.instance.Secret(c.Authority)
		switch {
		case signer == nil || signer.Certificate == nil || signer.Certificate.Authority != "":
			d.Errorf(secret.Position, "certificate %s: %q is no secret of kind %s", secret.Name, c.Authority, AuthorityKind)
		case c.Lifetime > signer.Certificate.Lifetime:
			d.Errorf(secret.Position, "certificate %s would be valid for longer than its authority %s", secret.Name, c.Authority)
		}
	}
}
