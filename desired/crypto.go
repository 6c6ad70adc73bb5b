package desired

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"regexp"

	"golang.org/x/crypto/ssh"
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

var (
	machineIDPattern = regexp.MustCompile(`^[0-9a-f]{32}$`)
	recipientPattern = regexp.MustCompile(`^age1[02-9ac-hj-np-z]{58}$`)
)

func (d *Decoder) checkHost(spec Tree, h hostSpec) {
	if h.MachineID != "" && !machineIDPattern.MatchString(h.MachineID) {
		d.Errorf(spec.Get("machineID").Position(), "machineID must be 32 hexadecimal digits, as in /etc/machine-id")
	}
	if h.Recipient != "" && !recipientPattern.MatchString(h.Recipient) {
		d.Errorf(spec.Get("recipient").Position(), "recipient must be an age public key (age1...)")
	}
	if h.SigningKey != "" {
		if _, _, _, _, err := ssh.ParseAuthorizedKey([]byte(h.SigningKey)); err != nil {
			d.Errorf(spec.Get("signingKey").Position(), "signingKey must be an SSH public key (ssh-ed25519 ...)")
		}
	}
}
