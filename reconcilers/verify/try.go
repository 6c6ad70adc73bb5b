package verify

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

const (
	maxSaw     = 300     // characters of what was seen
	maxCABytes = 1 << 20 // of a file of certificate authorities
	minHidden  = 4       // shorter values would hide too much of a text
)

// try is one run of one check.
type try struct {
	r      *Reconciler
	target reconcilers.Target
	check  Check
	hidden []string // secret values that were used
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
	case c.Logs != nil:
		return t.logs(ctx, c.Logs)
	case c.Certificate != nil:
		return t.certificate(ctx, c.Certificate)
	case c.OIDC != nil:
		return t.oidc(ctx, c.OIDC)
	}
	return fail("the check names nothing to look at")
}

// text evaluates an expression. Secrets in it are taken out of whatever the check says.
func (t *try) text(e desired.Expr) (string, error) {
	value, err := e.Eval(t.target.Scope)
	if err != nil {
		return "", err
	}
	if !value.Known() {
		name := e.Source()
		if refs := e.References(); len(refs) > 0 {
			name = refs[0].String()
		}
		return "", &reconcilers.WaitError{For: name}
	}
	if value.Secret() {
		t.hide(value.Text())
	}
	return value.Text(), nil
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
	for _, e := range tree.Exprs() {
		if _, err := t.text(e); err != nil {
			return nil, err
		}
	}
	return tree.Go(t.target.Scope)
}

// hide remembers a secret; of a connection string also the password in it.
func (t *try) hide(secret string) {
	t.hidden = append(t.hidden, secret)
	if u, err := url.Parse(secret); err == nil && u.User != nil {
		if password, has := u.User.Password(); has {
			t.hidden = append(t.hidden, password, url.QueryEscape(password))
		}
	}
}

// clean makes a text fit for the status: no secrets, one line, not too long.
func (t *try) clean(text string) string {
	for _, secret := range t.hidden {
		if len(secret) >= minHidden {
			text = strings.ReplaceAll(text, secret, "(secret)")
		}
	}
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
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: serverName, Time: t.r.deps.Clock.Now}
	pem, err := t.text(trust.CA)
	if err != nil {
		return nil, err
	}
	if trust.CAFile != "" {
		if pem, err = readInside(t.target.SourceDir, trust.CAFile); err != nil {
			return nil, fmt.Errorf("read caFile %s: %w", trust.CAFile, err)
		}
	}
	if strings.TrimSpace(pem) == "" {
		return config, nil
	}
	config.RootCAs = x509.NewCertPool()
	if !config.RootCAs.AppendCertsFromPEM([]byte(pem)) {
		return nil, errors.New("the certificate authority is no PEM certificate")
	}
	return config, nil
}

// readInside reads a file of a folder; a path or a link that leaves it is refused.
func readInside(folder, name string) (string, error) {
	root, err := os.OpenRoot(folder)
	if err != nil {
		return "", err
	}
	defer func() { _ = root.Close() }()
	f, err := root.Open(name)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	raw, err := io.ReadAll(io.LimitReader(f, maxCABytes))
	return string(raw), err
}
