package certificates

import (
	"crypto/x509"
	"errors"
	"time"

	"dive-agent/desired"
)

// own is the certificate of the authority's own instance: its key is made here, so that nothing has to cross hosts.
type own struct {
	pair
	By string `json:"by"` // id of the authority's key
}

// certificate is the one that is in use; nil: there is none.
func (o *own) certificate() *x509.Certificate {
	if o == nil {
		return nil
	}
	return firstCertificate(o.Certificate)
}

func (o *own) outputs() map[string]desired.Value {
	if o == nil {
		return nil
	}
	outputs := kept{Current: &o.pair}.outputs()
	delete(outputs, "request")
	return outputs
}

// ownReason says why the certificate of the authority's own instance is to be made, or nothing.
func (s authorityState) ownReason() string {
	switch c := s.ledger.Own.certificate(); {
	case s.own.CommonName == "":
		return ""
	case c == nil:
		return "there is none yet"
	case !s.ledger.Own.For.equal(s.own):
		return "the manifest says otherwise than the certificate"
	case s.ledger.Own.By != keyID(s.key.Public()):
		return "the authority has another key"
	case !s.now.Before(due(c)):
		return "two thirds of its life are over, it ends " + c.NotAfter.UTC().Format(time.RFC3339)
	}
	return ""
}

// makeOwn makes key and certificate of the authority's own instance.
func (r *authority) makeOwn(dir string, s authorityState, lifetime time.Duration) error {
	l, err := readLedger(dir)
	if err != nil {
		return err
	}
	next := &own{pair: pair{For: s.own}, By: keyID(s.key.Public())}
	if next.Key, next.Request, err = newRequest(s.own, r.deps.Rand); err != nil {
		return err
	}
	der := blocks(next.Request, requestBlock, 1)
	if len(der) == 0 {
		return errors.New("the request that was just made is none")
	}
	request, err := x509.ParseCertificateRequest(der[0])
	if err != nil {
		return err
	}
	if next.Certificate, _, err = r.certify(l, s, s.own, request.PublicKey, lifetime); err != nil {
		return err
	}
	l.Own = next
	return l.write(dir)
}
