package desired

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
)

func checkCertificates(text []byte) error {
	found := false
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return errors.New("it holds a " + block.Type)
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return err
		}
		found, text = true, rest
	}
	if !found {
		return errors.New("no certificate in it")
	}
	return nil
}
