package certificates

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"path/filepath"
	"time"

	"dive-agent/desired"
	"dive-agent/reconcilers/internal/jsonfile"
)

// ledgerFile is in the component's private folder, mode 0600: it holds the key of the instance's own certificate, not the authority's.
const ledgerFile = "authority.json"

// ledger is what the authority is and what it signed, by the digest of the request. Losing it loses nothing but that: the
// same key makes another certificate of the authority, under which what was signed stays good, and requests are signed
// again.
type ledger struct {
	Authority string            `json:"authority,omitempty"` // PEM
	Signed    map[string]signed `json:"signed,omitempty"`
	Own       *own              `json:"own,omitempty"`
}

type signed struct {
	Instance    string    `json:"instance"`
	Certificate string    `json:"certificate"` // PEM
	Ends        time.Time `json:"ends"`
	By          string    `json:"by"` // id of the authority's key
}

func readLedger(dir string) (ledger, error) {
	l, err := jsonfile.Read[ledger](filepath.Join(dir, ledgerFile), "read what the authority signed")
	if l.Signed == nil {
		l.Signed = map[string]signed{}
	}
	return l, err
}

func (l ledger) write(dir string) error {
	return jsonfile.Write(filepath.Join(dir, ledgerFile), "keep what the authority signed", l)
}

// certificate is the authority's own; nil: there is none.
func (l ledger) certificate() *x509.Certificate { return firstCertificate(l.Authority) }

// renewal says why the authority's certificate is to be made, or nothing.
func (l ledger) renewal(key crypto.Signer, name string, now time.Time) string {
	switch c := l.certificate(); {
	case c == nil:
		return "there is none yet"
	case !sameKey(c.PublicKey, key.Public()):
		return "it has another key"
	case c.Subject.CommonName != name:
		return fmt.Sprintf("it is named %q", c.Subject.CommonName)
	case !now.Before(due(c)):
		return "two thirds of its life are over"
	}
	return ""
}

// reason says why a request is to be signed, or nothing.
func (l ledger) reason(o order, by string, now time.Time) string {
	switch done, ok := l.Signed[o.digest]; {
	case !ok:
		return "it was published, and the merged manifest says the same"
	case !now.Before(done.Ends):
		return "what was signed has ended"
	case done.By != by:
		return "the authority has another key"
	}
	return ""
}

// count is how many of the shown requests are signed.
func (l ledger) count(shown map[string][]string) (count int) {
	for _, digests := range shown {
		for _, digest := range digests {
			if _, ok := l.Signed[digest]; ok {
				count++
			}
		}
	}
	return count
}

// ends is until when what was signed is good, by instance, of the requests that it shows.
func (l ledger) ends(shown map[string][]string) map[string]time.Time {
	until := map[string]time.Time{}
	for instance, digests := range shown {
		for _, digest := range digests {
			if done, ok := l.Signed[digest]; ok && done.Ends.After(until[instance]) {
				until[instance] = done.Ends.UTC()
			}
		}
	}
	return until
}

// outputs are the authority and, for each instance, what was signed of the requests that it shows.
func (l ledger) outputs(shown map[string][]string) map[string]desired.Value {
	outputs := map[string]desired.Value{}
	if l.Authority == "" {
		return outputs
	}
	outputs["ca"] = desired.String(l.Authority)
	if shown == nil { // not known now
		return outputs
	}
	all := map[string]desired.Value{}
	for instance, digests := range shown {
		text := ""
		for _, digest := range digests {
			text += l.Signed[digest].Certificate
		}
		if text != "" {
			all[instance] = desired.String(text)
		}
	}
	outputs["certificates"] = desired.Object(all)
	return outputs
}

// begin makes the authority's own certificate. What was signed under another key is signed anew.
func (r *authority) begin(dir string, s authorityState, lifetime time.Duration) error {
	serial, err := r.serial()
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: s.name}, NotBefore: s.now.Add(-backdated), NotAfter: s.now.Add(lifetime),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
	}
	der, err := x509.CreateCertificate(r.deps.Rand, template, template, s.key.Public(), s.key)
	if err != nil {
		return fmt.Errorf("make the authority's certificate: %w", err)
	}
	s.ledger.Authority = pemOf(certificateBlock, der)
	return s.ledger.write(dir)
}

// sign signs one request and keeps it; what has ended is forgotten.
func (r *authority) sign(dir string, s authorityState, o order, lifetime time.Duration) error {
	l, err := readLedger(dir)
	if err != nil {
		return err
	}
	text, ends, err := r.certify(l, s, o.subject, o.request.PublicKey, lifetime)
	if err != nil {
		return fmt.Errorf("sign the certificate of %s: %w", o.instance, err)
	}
	for digest, done := range l.Signed {
		if s.now.After(done.Ends) {
			delete(l.Signed, digest)
		}
	}
	l.Signed[o.digest] = signed{Instance: o.instance, Certificate: text, Ends: ends, By: keyID(s.key.Public())}
	return l.write(dir)
}

// certify makes a certificate for a public key, no longer good than the authority's own.
func (r *authority) certify(l ledger, s authorityState, w subject, public any, lifetime time.Duration) (text string, ends time.Time, err error) {
	parent := l.certificate()
	if parent == nil {
		return "", time.Time{}, errors.New("the authority has no certificate")
	}
	serial, err := r.serial()
	if err != nil {
		return "", time.Time{}, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: w.CommonName}, NotBefore: s.now.Add(-backdated), NotAfter: s.now.Add(lifetime),
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
	}
	if template.NotAfter.After(parent.NotAfter) {
		template.NotAfter = parent.NotAfter
	}
	template.DNSNames, template.IPAddresses = split(w.Names)
	if w.Server {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	if w.Client {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
	}
	der, err := x509.CreateCertificate(r.deps.Rand, template, parent, public, s.key)
	if err != nil {
		return "", time.Time{}, err
	}
	return pemOf(certificateBlock, der), template.NotAfter, nil
}

// serial is 128 bits at random, as RFC 5280 allows.
func (r *authority) serial() (*big.Int, error) {
	n, err := rand.Int(r.deps.Rand, new(big.Int).Lsh(big.NewInt(1), 128))
	if err != nil {
		return nil, fmt.Errorf("make a serial number: %w", err)
	}
	return n, nil
}
