package mongo

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"

	"dive-agent/reconcilers"
)

// wantTLS is how members are spoken to, and what their clients are told.
type wantTLS struct {
	roots       *x509.CertPool
	authorities []*x509.Certificate
	own         []tls.Certificate // shown to members; none: nothing is shown
	caFile      string            // in the containers of clients
	keyFile     string            // the same, of a client's certificate
	digest      string            // of what connections depend on
}

// resolve reads authorities and certificate. nil while they do not exist yet, and where the manifest has no TLS.
func (t *TLS) resolve(eval *evaluator) (*wantTLS, error) {
	if t == nil {
		return nil, nil
	}
	before := *eval.unknown
	ca, own := eval.text(t.CA), eval.text(t.Certificate)
	if eval.err != nil || *eval.unknown != before {
		return nil, nil
	}
	sum := sha256.Sum256([]byte(ca + "\x00" + own))
	w := &wantTLS{roots: x509.NewCertPool(), caFile: t.CAFile, keyFile: t.CertificateKeyFile, digest: hex.EncodeToString(sum[:8])}
	for block, rest := pem.Decode([]byte(ca)); block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil || block.Type != "CERTIFICATE" {
			return nil, badPEM("tls.ca", "certificates in PEM")
		}
		w.authorities = append(w.authorities, cert)
		w.roots.AddCert(cert)
	}
	if len(w.authorities) == 0 {
		return nil, badPEM("tls.ca", "certificates in PEM")
	}
	if own != "" {
		pair, err := tls.X509KeyPair([]byte(own), []byte(own))
		if err != nil { // it may quote what it read
			return nil, badPEM("tls.certificate", "a key and its certificate in PEM")
		}
		w.own = append(w.own, pair)
	}
	return w, nil
}

func badPEM(field, want string) error {
	return &reconcilers.BlockedError{
		Reason: "InvalidCertificate", Message: field + " is to be " + want + ", and is not",
		Do: "Name a secret of kind ca or certificate, or give one of that form with dive-agent secrets set",
	}
}

// fingerprint tells what clients depend on beside login and container.
func (w *wantTLS) fingerprint() string {
	if w == nil {
		return ""
	}
	return " tls " + w.digest
}

func (w *wantTLS) client(host string) *tls.Config {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return &tls.Config{RootCAs: w.roots, Certificates: w.own, ServerName: host, MinVersion: tls.VersionTLS12}
}

// speech is what a server was heard to speak, which holds as long as its container runs.
type speech struct {
	container string // the same for all times of a member on another host
	tls       bool
	begins    time.Time // of its certificate's life; zero without TLS
	ends      time.Time
}

func (r *Reconciler) heard(member, container string) (speech, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, known := r.speeches[member]
	return s, known && s.container == container
}

func (r *Reconciler) hear(member string, s speech) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.speeches[member] = s
}

// dial connects to a member: by TLS where the manifest has it, and without where a server does not speak it, as on the way
// from one to the other. A server that spoke TLS since its start is never spoken to without. The error is a BlockedError
// where the member's certificate is not as it must be.
func (s *session) dial(ctx context.Context, m wantMember, at place) (net.Conn, error) {
	conn, err := s.dialPlain(ctx, at.address)
	name := s.component + "/" + m.host
	known, heard := s.r.heard(name, at.identity())
	if err != nil || s.want.tls == nil || heard && !known.tls {
		return conn, err
	}
	limited, cancel := context.WithTimeout(ctx, helloLimit)
	defer cancel()
	secure := tls.Client(conn, s.want.tls.client(m.host))
	if err = secure.HandshakeContext(limited); err == nil {
		leaf := secure.ConnectionState().PeerCertificates[0]
		s.r.hear(name, speech{at.identity(), true, leaf.NotBefore.UTC(), leaf.NotAfter.UTC()})
		return secure, nil
	}
	_ = conn.Close()
	if hungUp(err) && !heard {
		return s.dialPlain(ctx, at.address)
	}
	return nil, s.wrongCertificate(m, err)
}

func (s *session) dialPlain(ctx context.Context, address string) (net.Conn, error) {
	limited, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	return s.r.dial(limited, "tcp", address)
}

// hungUp says whether the other side closed the connection without a word: what a server does that speaks no TLS, or
// nothing else.
func hungUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// wrongCertificate says what is wrong with the certificate that a member shows. Other errors stay as they are.
func (s *session) wrongCertificate(m wantMember, err error) error {
	var bad *tls.CertificateVerificationError
	if !errors.As(err, &bad) || len(bad.UnverifiedCertificates) == 0 {
		if alert, refused := alertOf(err); refused {
			return s.ownRefused(m, alert)
		}
		return fmt.Errorf("speak TLS to %s: %w", m.host, err)
	}
	leaf := bad.UnverifiedCertificates[0]
	var (
		invalid   x509.CertificateInvalidError
		name      x509.HostnameError
		authority x509.UnknownAuthorityError
		what      string
	)
	switch now := s.r.deps.Clock.Now(); {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && now.Before(leaf.NotBefore):
		what = "begins to be valid only at " + timeText(leaf.NotBefore)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		what = "ended"
	case errors.As(err, &name):
		what = "is for " + strings.Join(namesOf(leaf), ", ") + ", not for " + name.Host
	case errors.As(err, &authority):
		what = fmt.Sprintf("is signed by %q, none of the authorities in tls.ca", leaf.Issuer)
	default:
		what = "is refused: " + bad.Err.Error()
	}
	return &reconcilers.BlockedError{
		Reason:  "WrongCertificate",
		Message: fmt.Sprintf("the certificate of %s %s (it is valid until %s)", m.host, what, timeText(leaf.NotAfter)),
		Do:      "Give the member a certificate for its host name by an authority of tls.ca, and restart it if it has one already: docker restart CONTAINER",
	}
}

func namesOf(leaf *x509.Certificate) []string {
	names := leaf.DNSNames
	for _, ip := range leaf.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		names = []string{"no name at all"}
	}
	return names
}

// ownRefused says that a member does not want to speak to who shows this certificate, or none.
func (s *session) ownRefused(m wantMember, alert string) error {
	blocked := &reconcilers.BlockedError{
		Reason:  "CertificateRefused",
		Message: m.host + " wants to see a certificate, and the manifest gives the agent none",
		Do:      "Name one in tls.certificate, or start mongod with --tlsAllowConnectionsWithoutCertificates",
	}
	if len(s.want.tls.own) > 0 {
		blocked.Message = fmt.Sprintf("%s does not take the certificate that the agent shows, %q, valid until %s", m.host,
			s.want.tls.own[0].Leaf.Subject, timeText(s.want.tls.own[0].Leaf.NotAfter))
		blocked.Do = "Give tls.certificate one by an authority of the member's --tlsCAFile; its log says why it refuses this one"
	}
	if alert != "" {
		blocked.Message += " (" + alert + ")"
	}
	return blocked
}

// explainSilence finds out why a server closed a connection without an answer to hello.
func (s *session) explainSilence(ctx context.Context, m wantMember, at place, p *probe, err error) error {
	_, isTLS := p.conn.(*tls.Conn)
	alert, refused := alertOf(err)
	switch {
	case ctx.Err() != nil || !refused && !hungUp(err):
		return err
	case isTLS && refused:
		return s.ownRefused(m, alert)
	case isTLS:
		return s.silentTwice(ctx, m, at, err)
	case s.want.tls != nil || !s.speaksTLS(ctx, at.address):
		return err
	}
	return &reconcilers.BlockedError{
		Reason: "TLSRequired", Message: m.host + " takes connections by TLS alone, and the manifest does not say how to trust it",
		Do: "Name the authority of its certificate in tls.ca of this component",
	}
}

// silentTwice tells a server that refuses us from one that is going down: that one takes no second connection.
func (s *session) silentTwice(ctx context.Context, m wantMember, at place, err error) error {
	again, dialErr := s.openProbe(ctx, m, at)
	if dialErr != nil {
		return err
	}
	defer again.close()
	_, second := again.hello(ctx, nil, 0)
	_, refused := alertOf(second)
	if _, isTLS := again.conn.(*tls.Conn); isTLS && (refused || hungUp(second)) {
		return s.ownRefused(m, "")
	}
	return err
}

// alertOf is what a server said when it refused TLS: crypto/tls wraps that in a network error and exports no type for it.
func alertOf(err error) (alert string, refused bool) {
	var operation *net.OpError
	if !errors.As(err, &operation) {
		return "", false
	}
	return strings.CutPrefix(operation.Error(), "remote error: tls: ")
}

// speaksTLS shakes hands with whoever is there, and sends nothing.
func (s *session) speaksTLS(ctx context.Context, address string) bool {
	limited, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	conn, err := s.dialPlain(limited, address)
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close() }()
	return tls.Client(conn, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}).HandshakeContext(limited) == nil //nolint:gosec // whether, not whom
}

// connectionTrouble joins what keeps the agent from speaking to members as the manifest says; nil when nothing does.
func connectionTrouble(seen []sighting) error {
	var all *reconcilers.BlockedError
	for _, one := range seen {
		var blocked *reconcilers.BlockedError
		switch {
		case !errors.As(one.err, &blocked):
		case all == nil:
			first := *blocked
			all = &first
		default:
			all.Message += "; " + blocked.Message
		}
	}
	if all == nil {
		return nil
	}
	return all
}

// tellClients remembers whether clients are to speak TLS: once all members were heard to, until one was heard to speak
// without. A member that is silent changes nothing, so that clients are not restarted for it.
func (s *session) tellClients(seen []sighting) error {
	all, now := true, s.memory.TLS
	for _, one := range seen {
		switch {
		case !one.answers():
			all = false
		case !one.tls:
			s.memory.TLS = "no"
			return s.memory.save()
		}
	}
	if all || now == "" {
		s.memory.TLS = "yes"
	}
	return s.memory.save()
}

// endings tells of certificates of which less than a sixth of the life is left: whoever renews them has not.
func (s *session) endings(seen []sighting) []string {
	now := s.r.deps.Clock.Now()
	left := func(what string, begins, ends time.Time) (string, bool) {
		return fmt.Sprintf("%s ends at %s", what, timeText(ends)), !ends.IsZero() && ends.Sub(now) < ends.Sub(begins)/6
	}
	var notes []string
	for _, one := range seen {
		heard, _ := s.r.heard(s.component+"/"+one.member.host, one.place.identity())
		if note, near := left("the certificate of "+one.member.host, heard.begins, heard.ends); near {
			notes = append(notes, note+": give it another one, and restart it")
		}
	}
	for _, own := range s.want.tls.own {
		if note, near := left("the agent's certificate for the members", own.Leaf.NotBefore, own.Leaf.NotAfter); near {
			notes = append(notes, note+": replace tls.certificate")
		}
	}
	for _, ca := range s.want.tls.authorities {
		if note, near := left(fmt.Sprintf("the authority %q of the members' certificates", ca.Subject), ca.NotBefore, ca.NotAfter); near {
			notes = append(notes, note+": give the secret another one, or rotate it: dive-agent secrets rotate")
		}
	}
	return notes
}
