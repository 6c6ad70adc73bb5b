package verify

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

const maxSaw = 300 // characters of what was seen

// try is one run of one check.
type try struct {
	r      *Reconciler
	target reconcilers.Target
	check  Check
}

func (t *try) run(ctx context.Context) outcome {
	c := t.check
	switch {
	case c.HTTP != nil:
		return t.http(ctx, c.HTTP)
	case c.TCP != nil:
		return t.tcp(ctx, c.TCP)
	case c.Mongo != nil:
		return t.mongo(ctx, c.Mongo)
	case c.SQL != nil:
		return t.sql(ctx, c.SQL)
	case c.Audit != nil:
		return t.audit(ctx, c.Audit)
	case c.Logs != nil:
		return t.logs(ctx, c.Logs)
	case c.Certificate != nil:
		return t.certificate(ctx, c.Certificate)
	case c.OIDC != nil:
		return t.oidc(ctx, c.OIDC)
	case c.Federation != nil:
		return t.federation(ctx, c.Federation)
	case c.Policy != nil:
		return t.policy(ctx, c.Policy)
	}
	return fail("the check names nothing to look at")
}

// text evaluates an expression.
func (t *try) text(e desired.Expr) (string, error) {
	value, err := e.Eval(t.target.Scope)
	if err == nil && !value.Known() {
		err = &reconcilers.WaitError{For: e.Missing(t.target.Scope)[0]}
	}
	return value.Text(), err
}

// texts evaluates several, up to the first error.
func (t *try) texts(expressions ...desired.Expr) ([]string, error) {
	var list []string
	for _, e := range expressions {
		text, err := t.text(e)
		if err != nil {
			return nil, err
		}
		list = append(list, text)
	}
	return list, nil
}

// tree evaluates a piece of the manifest to plain Go.
func (t *try) tree(tree desired.Tree) (any, error) {
	value, err := tree.Eval(t.target.Scope)
	if err != nil || value.Known() {
		return value.Go(), err
	}
	for _, e := range tree.Exprs() {
		if _, err := t.text(e); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("the value at %s is not known", tree.Position())
}

// clean makes a text fit for the status: no secrets, one line, not too long.
func (t *try) clean(text string) string {
	if t.r.deps.Redact != nil {
		text = t.r.deps.Redact(text)
	}
	text = strings.Join(strings.Fields(text), " ")
	if runes := []rune(text); len(runes) > maxSaw {
		text = string(runes[:maxSaw]) + "..."
	}
	return text
}

// find gives where a service's container is.
func (t *try) find(ctx context.Context, service string, port int) (string, error) {
	c, err := t.target.Services.Find(ctx, service)
	if err != nil {
		return "", err
	}
	if addr := c.Addr(); addr.IsValid() {
		return net.JoinHostPort(addr.String(), strconv.Itoa(port)), nil
	}
	if at, ok := c.Published[uint16(port)]; ok {
		if at.Addr().IsUnspecified() {
			at = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), at.Port())
		}
		return at.String(), nil
	}
	return "", &reconcilers.WaitError{For: "a network address of service " + service}
}

// address gives what to dial and the name to expect there: of a service, or of an expression.
func (t *try) address(ctx context.Context, service string, port int, e desired.Expr) (address, name string, err error) {
	if service != "" {
		address, err = t.find(ctx, service, port)
		return address, service, err
	}
	if address, err = t.text(e); err != nil {
		return "", "", err
	}
	name, _, err = net.SplitHostPort(address)
	if err != nil {
		return "", "", fmt.Errorf("the address %q is not host:port", address)
	}
	return address, name, nil
}

// tls makes the client side of a connection that trusts what the check says, and nothing else.
func (t *try) tls(trust Trust, serverName string) (*tls.Config, error) {
	pem, err := t.authorities(trust)
	if err != nil {
		return nil, err
	}
	return t.trusting(pem, serverName)
}

// authorities are the certificates, in PEM, by which others are trusted. Without any it is those of the host.
func (t *try) authorities(trust Trust) (pem string, err error) {
	if trust.CAFile == "" {
		return t.text(trust.CA)
	}
	if pem, err = reconcilers.ReadInside(t.target.SourceDir, trust.CAFile); err != nil {
		return "", fmt.Errorf("read caFile %s: %w", trust.CAFile, err)
	}
	return pem, nil
}

// trusting is tls with authorities that have been read.
func (t *try) trusting(pem, serverName string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: serverName, Time: t.r.deps.Clock.Now}
	if strings.TrimSpace(pem) == "" {
		return config, nil
	}
	config.RootCAs = x509.NewCertPool()
	if !config.RootCAs.AppendCertsFromPEM([]byte(pem)) {
		return nil, errors.New("the certificate authority is no PEM certificate")
	}
	return config, nil
}
