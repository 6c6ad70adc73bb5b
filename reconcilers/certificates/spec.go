package certificates

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

// HolderKind is Certificate as manifests know it.
var HolderKind = desired.Kind{
	Name: "Certificate",
	Doc:  "A key that is made on the host and never leaves it, and the certificate that the fleet's authority on the hub's host signs for it. It is made anew, with another key, when two thirds of its life are over.",
	New:  func() any { return new(HolderSpec) },
}

// AuthorityKind is CertificateAuthority as manifests know it.
var AuthorityKind = desired.Kind{
	Name: "CertificateAuthority",
	Doc:  "The fleet's certificate authority: signs what spokes publish as their requests, when a merged manifest has a Certificate with the same names.",
	New:  func() any { return new(AuthoritySpec) },
}

// HolderSpec is the component's part of a manifest.
type HolderSpec struct {
	CommonName desired.Expr   `yaml:"commonName" doc:"Default: the first of names, else the instance's name."`
	Names      []desired.Expr `yaml:"names" doc:"DNS names and IP addresses of the servers that show it."`
	Usages     []string       `yaml:"usages" enum:"server,client" doc:"Who may show it: server, client. Default: both."`
	Issued     desired.Expr   `yaml:"issued" required:"true" late:"true" doc:"What the authority signed for this instance: ${instances.usa.authority.certificates}, where authority publishes it."`
}

// AuthoritySpec is the component's part of a manifest.
type AuthoritySpec struct {
	Key        desired.Expr     `yaml:"key" required:"true" doc:"The authority's private key, a secret of the instance of kind rsa or ed25519. What it signed is good as long as the key is the same."`
	CommonName desired.Expr     `yaml:"commonName" doc:"Default: the name of the fleet."`
	Lifetime   desired.Duration `yaml:"lifetime" default:"87600h" doc:"Of the authority's own certificate, which is made anew when two thirds are over."`
	Issue      desired.Duration `yaml:"issue" default:"2160h" doc:"Lifetime of what it signs."`
	Names      []desired.Expr   `yaml:"names" doc:"DNS names and IP addresses of this instance's own servers. With them it has a certificate too, with the outputs of a Certificate."`
	Requests   desired.Expr     `yaml:"requests" required:"true" late:"true" doc:"Requests by instance: ${{for s in fleet.spokes : s.name => s.outputs.certificate.request}}, where the spokes publish theirs."`
}

var (
	_ desired.Validator = (*HolderSpec)(nil)
	_ desired.Outputter = (*HolderSpec)(nil)
	_ desired.Validator = (*AuthoritySpec)(nil)
	_ desired.Outputter = (*AuthoritySpec)(nil)
)

const shortestLifetime = time.Minute

// Outputs lists what a holder publishes.
func (*HolderSpec) Outputs() []desired.Output {
	return []desired.Output{
		{Name: "request", Doc: "PEM of the request. Publish it for the authority."},
		{Name: "certificate", Doc: "PEM of the certificate."},
		{Name: "key", Secret: true, Doc: "PEM of its key."},
		{Name: "pem", Secret: true, Doc: "Key and certificate, one after the other. Services that use it are made anew when it is renewed."},
		{Name: "expires", Doc: "When the certificate ends, RFC 3339."},
	}
}

// Outputs lists what an authority publishes.
func (s *AuthoritySpec) Outputs() []desired.Output {
	outputs := []desired.Output{
		{Name: "ca", Doc: "PEM of the authority's certificate."},
		{Name: "certificates", PerInstance: true, Doc: "What it signed for each instance, PEM."},
	}
	if len(s.Names) > 0 {
		outputs = append(outputs, (*HolderSpec)(nil).Outputs()[1:]...)
	}
	return outputs
}

// Validate checks what the types cannot say.
func (s *HolderSpec) Validate(c *desired.Check) {
	for _, e := range append([]desired.Expr{s.CommonName}, s.Names...) {
		c.Merged(e, "the authority's agent has to compare this field with the request before it signs")
	}
	validateNames(c, s.Names)
	if len(s.Names) == 0 && (len(s.Usages) == 0 || slices.Contains(s.Usages, "server")) {
		c.Errorf(c.At(), "names is missing: nobody would take the certificate for any server's. For clients alone say usages: [client]")
	}
}

// Validate checks what the types cannot say.
func (s *AuthoritySpec) Validate(c *desired.Check) {
	validateNames(c, s.Names)
	if c.Scope != nil && !s.Key.IsZero() {
		if v, err := s.Key.Eval(c.Scope); err == nil && !v.Secret() {
			c.Errorf(s.Key.Position(), "key must come from a secret of the instance, such as FLEET_CA_KEY: {generate: {kind: rsa}}")
		}
	}
	for field, lasts := range map[string]desired.Duration{"lifetime": s.Lifetime, "issue": s.Issue} {
		if lasts.Std() < shortestLifetime {
			c.Errorf(c.At(field), "%s must be %s or more", field, shortestLifetime)
		}
	}
	if s.Issue > s.Lifetime {
		c.Errorf(c.At("issue"), "what is signed would be valid for longer than the authority")
	}
}

func validateNames(c *desired.Check, names []desired.Expr) {
	for _, name := range names {
		if text, ok := c.Known(name); ok && !desired.IsHost(text) {
			c.Errorf(name.Position(), "%q is no DNS name and no IP address", text)
		}
	}
}

// subject is what a certificate is for, evaluated.
type subject struct {
	CommonName string   `json:"commonName"`
	Names      []string `json:"names,omitempty"`
	Server     bool     `json:"server,omitempty"`
	Client     bool     `json:"client,omitempty"`
}

func (s subject) equal(o subject) bool {
	return s.CommonName == o.CommonName && slices.Equal(s.Names, o.Names) && s.Server == o.Server && s.Client == o.Client
}

// subject evaluates a holder's manifest. The error is a WaitError while something is not known.
func (s *HolderSpec) subject(instance *desired.Instance, scope *desired.Scope) (subject, error) {
	w := subject{Server: true, Client: true}
	if len(s.Usages) > 0 {
		w.Server, w.Client = slices.Contains(s.Usages, "server"), slices.Contains(s.Usages, "client")
	}
	for _, x := range s.Names {
		name, err := plain("names", x, scope)
		if err != nil {
			return w, err
		}
		if !desired.IsHost(name) {
			return w, &reconcilers.BlockedError{Reason: "NotAHost", Message: fmt.Sprintf("%q is no DNS name and no IP address", name), Do: "Mend names of the Certificate."}
		}
		w.Names = append(w.Names, name)
	}
	first := instance.Name
	if len(w.Names) > 0 {
		first = w.Names[0]
	}
	slices.Sort(w.Names)
	w.Names = slices.Compact(w.Names)
	name, err := plain("commonName", s.CommonName, scope)
	w.CommonName = cmp.Or(name, first)
	return w, err
}

// plain evaluates a text that stands in a certificate, where everybody reads it.
func plain(field string, x desired.Expr, scope *desired.Scope) (string, error) {
	v, err := x.Eval(scope)
	switch {
	case err != nil:
		return "", err
	case !v.Known():
		return "", &reconcilers.WaitError{For: fmt.Sprintf("%s (%s)", field, x.Source())}
	case v.Secret():
		return "", &reconcilers.BlockedError{Reason: "SecretInCertificate", Message: field + " would show a secret in a certificate", Do: "Use a plain value."}
	}
	return v.Text(), nil
}
