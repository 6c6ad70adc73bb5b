package gitremote

import (
	"fmt"
	"io"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"
)

// signatureNamespace is what Git signs under, gitformat-signature(5).
const signatureNamespace = "git"

type sshSigner struct{ key ssh.Signer }

// NewSSHSigner signs commits with an SSH private key in PEM (the OpenSSH or a PKCS form), without a passphrase.
// `git verify-commit` accepts the signatures, with the public key in its allowed signers file.
func NewSSHSigner(pem []byte) (Signer, error) {
	key, err := ssh.ParsePrivateKey(pem)
	if err != nil {
		return nil, fmt.Errorf("reading the SSH signing key: %w", err)
	}
	return &sshSigner{key}, nil
}

func (s *sshSigner) Sign(message io.Reader) ([]byte, error) {
	sig, err := sshsig.Sign(message, s.key, sshsig.HashSHA512, signatureNamespace)
	if err != nil {
		return nil, err
	}
	return sshsig.Armor(sig), nil
}
