package source

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"

	"dive-agent/gitremote"
)

// Signers are the keys whose signatures on commits count.
type Signers struct {
	ssh     []sshSigner
	openpgp openpgp.EntityList
	digest  string // of what they were parsed from
}

type sshSigner struct {
	name          string
	key           ssh.PublicKey
	after, before time.Time // zero: open
}

// signatureNamespace is what Git signs under with SSH keys.
const signatureNamespace = "git"

// ParseSigners reads the keys that are trusted: allowedSigners in the format of ssh-keygen(1), "ALLOWED SIGNERS", and
// keyring as armoured OpenPGP public keys. Either may be empty, not both. Of the SSH options namespaces, valid-after and
// valid-before are honoured (validity is judged by the commit's time, as Git does); certificate
// authorities are refused. Errors name the line.
func ParseSigners(allowedSigners, keyring []byte) (*Signers, error) {
	sum := sha256.Sum256(bytes.Join([][]byte{allowedSigners, keyring}, []byte{0}))
	s := &Signers{digest: hex.EncodeToString(sum[:])}
	scan := bufio.NewScanner(bytes.NewReader(allowedSigners))
	for n := 1; scan.Scan(); n++ {
		line := strings.TrimSpace(scan.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		signer, counts, err := parseAllowedSigner(line)
		if err != nil {
			return nil, fmt.Errorf("allowed signers, line %d: %w", n, err)
		}
		if counts {
			s.ssh = append(s.ssh, signer)
		}
	}
	if err := scan.Err(); err != nil {
		return nil, fmt.Errorf("allowed signers: %w", err)
	}
	if len(bytes.TrimSpace(keyring)) > 0 {
		list, err := openpgp.ReadArmoredKeyRing(bytes.NewReader(keyring))
		if err != nil {
			return nil, fmt.Errorf("OpenPGP keyring: %w", err)
		}
		s.openpgp = list
	}
	if len(s.ssh) == 0 && len(s.openpgp) == 0 {
		return nil, errors.New("no key is trusted to sign: name at least one")
	}
	return s, nil
}

// HostSigners trusts SSH public keys ("type base64", a comment may follow), all in the name of a host. It is what a status
// branch of that host is checked against; with no key nothing can be trusted, which is an error.
func HostSigners(host string, keys []string) (*Signers, error) {
	if len(keys) == 0 {
		return nil, fmt.Errorf("host %s has no signing key: on it, dive-agent enroll prints the file hosts/%s.yaml, which lists them; merge it", host, host)
	}
	s := &Signers{}
	sum := sha256.New()
	for _, text := range keys {
		key, _, options, rest, err := ssh.ParseAuthorizedKey([]byte(text))
		if err != nil || len(options) > 0 || len(rest) > 0 {
			return nil, fmt.Errorf("a signing key of host %s is no SSH public key", host)
		}
		s.ssh = append(s.ssh, sshSigner{name: printable(host, 100), key: key})
		_, _ = sum.Write(key.Marshal())
	}
	s.digest = hex.EncodeToString(sum.Sum(nil))
	return s, nil
}

// UntrustedKeyError says that a commit is well signed, or seems to be, by an SSH key that is not among those that are trusted.
type UntrustedKeyError struct {
	Key string // "type base64", as the signature has it
}

func (e *UntrustedKeyError) Error() string {
	return fmt.Sprintf("it is signed with an SSH key that is not trusted (%s)", Fingerprint(e.Key))
}

// Fingerprint is how ssh-keygen calls an SSH public key: SHA256:...
func Fingerprint(key string) string {
	parsed, _, _, _, err := ssh.ParseAuthorizedKey([]byte(key))
	if err != nil {
		return "no key"
	}
	return ssh.FingerprintSHA256(parsed)
}

// Verify checks the signature of one commit, over all that the commit says, and gives the name of who signed it. Errors are for
// people and say "it": the commit; one by an unknown SSH key is an *UntrustedKeyError.
func (s *Signers) Verify(c *object.Commit) (by string, err error) { return s.verify(c) }

// KeyOf is Verify for a commit that an SSH key must have signed; it gives that key's fingerprint.
func (s *Signers) KeyOf(c *object.Commit) (fingerprint string, err error) {
	if _, err := s.verify(c); err != nil {
		return "", err
	}
	sig, err := sshsig.Unarmor([]byte(strings.TrimSpace(c.PGPSignature)))
	if err != nil {
		return "", errors.New("it is signed with OpenPGP, and an SSH key is asked for")
	}
	return ssh.FingerprintSHA256(sig.PublicKey), nil
}

// parseAllowedSigner reads "principals [options] type key [comment]". False: the key is for other purposes than Git.
func parseAllowedSigner(line string) (sshSigner, bool, error) {
	name, rest, ok := strings.Cut(line, " ")
	if !ok {
		return sshSigner{}, false, errors.New("a principal without a key")
	}
	// ParseAuthorizedKey reads "[options] type key [comment]", with quoted options.
	key, _, options, _, err := ssh.ParseAuthorizedKey([]byte(strings.TrimSpace(rest)))
	if err != nil {
		return sshSigner{}, false, fmt.Errorf("the key cannot be read: %w", err)
	}
	s := sshSigner{name: printable(name, 100), key: key}
	for _, o := range options {
		k, v, _ := strings.Cut(o, "=")
		v = strings.Trim(v, `"`)
		switch strings.ToLower(k) {
		case "namespaces":
			if !matchesNamespace(v) {
				return sshSigner{}, false, nil
			}
		case "valid-after":
			s.after, err = parseValidity(v)
		case "valid-before":
			s.before, err = parseValidity(v)
		case "cert-authority":
			err = errors.New("certificate authorities are not supported: name the keys themselves")
		default:
			err = fmt.Errorf("unknown option %q", k)
		}
		if err != nil {
			return sshSigner{}, false, err
		}
	}
	return s, true, nil
}

func matchesNamespace(list string) bool {
	for ns := range strings.SplitSeq(list, ",") {
		if ns == signatureNamespace || ns == "*" {
			return true
		}
	}
	return false
}

func parseValidity(v string) (time.Time, error) {
	zone := time.Local
	if z, ok := strings.CutSuffix(v, "Z"); ok {
		v, zone = z, time.UTC
	}
	for _, layout := range []string{"20060102", "200601021504", "20060102150405"} {
		if len(v) == len(layout) {
			return time.ParseInLocation(layout, v, zone)
		}
	}
	return time.Time{}, fmt.Errorf("%q is not a date as YYYYMMDD[HHMM[SS]][Z]", v)
}

// id tells one list of signers from another; empty when there is none.
func (s *Signers) id() string {
	if s == nil {
		return ""
	}
	return s.digest
}

// check checks the first-parent line from head to the accepted commit, or head alone when nothing was accepted before.
// It returns who signed head. The line must lead to the accepted commit itself: when that one came in by
// the other side of a merge, the line in between cannot be known to be whole.
func (s *Signers) check(fresh *gitremote.Objects, head, accepted plumbing.Hash) (string, error) {
	by := ""
	for h := head; h != accepted; {
		c, err := fresh.Commit(h)
		if err != nil {
			if h == head {
				return "", &UnreadableError{Commit: h.String(), Err: err}
			}
			return "", &SignatureError{Commit: head.String(), Reason: "its first-parent line does not lead to the accepted revision " + gitremote.Short(accepted.String())}
		}
		who, err := s.verify(c)
		if err != nil {
			return "", &SignatureError{Commit: h.String(), Reason: err.Error()}
		}
		if h == head {
			by = who
		}
		if accepted.IsZero() {
			break
		}
		if len(c.ParentHashes) == 0 {
			return "", &SignatureError{Commit: head.String(), Reason: "its first-parent line does not lead to the accepted revision " + gitremote.Short(accepted.String())}
		}
		h = c.ParentHashes[0]
	}
	return by, nil
}

// verify checks one commit and returns who signed it.
func (s *Signers) verify(c *object.Commit) (string, error) {
	signature := strings.TrimSpace(c.PGPSignature)
	if signature == "" {
		return "", errors.New("it is not signed")
	}
	m := &plumbing.MemoryObject{}
	if err := c.EncodeWithoutSignature(m); err != nil {
		return "", fmt.Errorf("its signature cannot be checked: %w", err)
	}
	r, err := m.Reader()
	if err != nil {
		return "", err
	}
	defer r.Close()
	if strings.HasPrefix(signature, "-----BEGIN SSH SIGNATURE-----") {
		return s.verifySSH(r, signature, c.Committer.When)
	}
	return s.verifyOpenPGP(r, signature, c.Committer.When)
}

func (s *Signers) verifySSH(payload io.Reader, signature string, at time.Time) (string, error) {
	sig, err := sshsig.Unarmor([]byte(signature))
	if err != nil {
		return "", fmt.Errorf("its SSH signature cannot be read: %w", err)
	}
	fingerprint := ssh.FingerprintSHA256(sig.PublicKey)
	for _, known := range s.ssh {
		if !bytes.Equal(known.key.Marshal(), sig.PublicKey.Marshal()) {
			continue
		}
		if !known.after.IsZero() && at.Before(known.after) || !known.before.IsZero() && !at.Before(known.before) {
			return "", fmt.Errorf("the key of %s (%s) was not valid at %s", known.name, fingerprint, at.UTC().Format(time.RFC3339))
		}
		if err := sshsig.Verify(payload, sig, known.key, sig.HashAlgorithm, signatureNamespace); err != nil {
			return "", fmt.Errorf("its signature by %s is wrong: %w", known.name, err)
		}
		return known.name, nil
	}
	return "", &UntrustedKeyError{strings.TrimSpace(string(ssh.MarshalAuthorizedKey(sig.PublicKey)))}
}

func (s *Signers) verifyOpenPGP(payload io.Reader, signature string, at time.Time) (string, error) {
	if len(s.openpgp) == 0 {
		return "", errors.New("it is signed with OpenPGP, and no OpenPGP key is trusted")
	}
	// Judged at the commit's time, so that a key that expires does not spoil what it signed before.
	config := &packet.Config{Time: func() time.Time { return at }}
	entity, err := openpgp.CheckArmoredDetachedSignature(s.openpgp, payload, strings.NewReader(signature), config)
	if err != nil {
		return "", fmt.Errorf("its OpenPGP signature does not count: %w", err)
	}
	if id := entity.PrimaryIdentity(); id != nil {
		return printable(id.Name, 100), nil
	}
	return entity.PrimaryKey.KeyIdString(), nil
}
