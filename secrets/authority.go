package secrets

import (
	"bytes"
	"encoding/pem"
	"fmt"

	"dive-agent/desired"
)

// An authority is replaced in three steps, each of which everything that uses it follows before the next: whoever shows a
// certificate by one of the two is trusted by all meanwhile. The value itself tells the step, as long as former ones are kept:
//
//	key 1, certificate 1                            none
//	key 1, certificate 1, certificate 2, key 2      all learn to trust the new one
//	key 2, certificate 2, certificate 1             the new one signs, all certificates are made anew
//	key 2, certificate 2                            the former one is trusted no more

// bundle are the keys and the certificates of a PEM, each as PEM. The first of both sign.
type bundle struct{ keys, certs [][]byte }

func bundleOf(value []byte) (b bundle) {
	for block, rest := pem.Decode(value); block != nil; block, rest = pem.Decode(rest) {
		text := pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes})
		if block.Type == "CERTIFICATE" {
			b.certs = append(b.certs, text)
		} else {
			b.keys = append(b.keys, text)
		}
	}
	return b
}

// bothAuthorities is what an authority has to hold so that another takes its place.
func (e *ensuring) bothAuthorities(name string, present, value []byte) ([]byte, error) {
	if _, err := readAuthority(value); err != nil {
		return nil, fmt.Errorf("secret %s of %s is an authority: %w", name, e.instance, err)
	}
	have, err := readAuthority(present)
	if err != nil || !e.now().Before(have.cert.NotAfter) || bytes.Equal(present, value) {
		return value, nil // nobody trusts the one that is there; or nothing is new
	}
	former, err := e.pending(name, present)
	if err != nil {
		return nil, err
	}
	if len(former) > 0 {
		return nil, fmt.Errorf("the authority %s of %s is being replaced already: see dive-agent status %s", name, e.instance, e.instance)
	}
	now, next := bundleOf(present), bundleOf(value)
	return bytes.Join([][]byte{now.keys[0], now.certs[0], next.certs[0], next.keys[0]}, nil), nil
}

// nextAuthority is the value after one that is in use everywhere; nil when no authority is being replaced.
func nextAuthority(known entry, present []byte, former [][]byte) []byte {
	b := bundleOf(present)
	switch {
	case known.Kind != desired.AuthorityKind || len(former) == 0 || len(b.certs) != 2:
		return nil
	case len(b.keys) == 2:
		return bytes.Join([][]byte{b.keys[1], b.certs[1], b.certs[0]}, nil)
	}
	return bytes.Join([][]byte{b.keys[0], b.certs[0]}, nil)
}

// renewAuthorities begins to replace those of which two thirds of the life are over. One that an operator gave, which has
// another subject, is his to replace.
func (e *ensuring) renewAuthorities(specs []desired.SecretSpec) (made []string, err error) {
	for _, spec := range specs {
		value := e.values[spec.Name]
		if !isAuthority(spec) || value == nil {
			continue
		}
		have, err := readAuthority(value)
		if err != nil || len(bundleOf(value).certs) != 1 || have.cert.Subject.String() != subjectOf(*spec.Certificate).String() ||
			e.now().Before(have.cert.NotAfter.Add(-spec.Certificate.Lifetime/3)) {
			continue
		}
		if former, err := e.pending(spec.Name, value); err != nil || len(former) > 0 {
			return nil, err
		}
		next, err := e.generate(spec)
		if err != nil {
			return nil, err
		}
		if err := e.replace(spec.Name, next); err != nil {
			return nil, err
		}
		made = append(made, spec.Name)
	}
	return made, nil
}
