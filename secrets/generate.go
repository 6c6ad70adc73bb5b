package secrets

import (
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"strings"

	"dive-agent/desired"
)

const (
	lower  = "abcdefghijklmnopqrstuvwxyz"
	upper  = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	digits = "0123456789"
	// marks need no escape in a URL, a shell, YAML or an environment file.
	marks = "-_."

	// keyfileBytes makes 1008 characters of base64 without padding, below the
	// 1024 that mongod reads.
	keyfileBytes = 756

	minLength = 12
	maxLength = 1024
)

// generate makes the value of a secret with randomness from random (RSA keys
// take theirs from the system, as crypto/rsa does).
func generate(spec desired.Generate, random io.Reader) ([]byte, error) {
	switch spec.Kind {
	case "", "password":
		return password(length(spec.Length, 24), random)
	case "token":
		n := length(spec.Length, 43)
		if err := checkLength(n); err != nil {
			return nil, err
		}
		raw, err := randomBytes(random, n)
		if err != nil {
			return nil, err
		}
		return []byte(base64.RawURLEncoding.EncodeToString(raw)[:n]), nil
	case "mongodb-keyfile":
		raw, err := randomBytes(random, keyfileBytes)
		if err != nil {
			return nil, err
		}
		return []byte(base64.StdEncoding.EncodeToString(raw)), nil
	case "rsa":
		bits := spec.Bits
		if bits == 0 {
			bits = 3072
		}
		if bits < 2048 || bits > 8192 {
			return nil, fmt.Errorf("an RSA key of %d bits: 2048 to 8192 are possible", bits)
		}
		key, err := rsa.GenerateKey(random, bits)
		if err != nil {
			return nil, fmt.Errorf("make an RSA key: %w", err)
		}
		return privatePEM(key)
	case "ed25519":
		seed, err := randomBytes(random, ed25519.SeedSize)
		if err != nil {
			return nil, err
		}
		return privatePEM(ed25519.NewKeyFromSeed(seed))
	}
	return nil, fmt.Errorf("cannot make a secret of kind %q (possible: password, token, mongodb-keyfile, rsa, ed25519, ca, certificate)", spec.Kind)
}

func length(n, otherwise int) int {
	if n == 0 {
		return otherwise
	}
	return n
}

func checkLength(n int) error {
	if n < minLength || n > maxLength {
		return fmt.Errorf("a length of %d characters: %d to %d are possible", n, minLength, maxLength)
	}
	return nil
}

func randomBytes(random io.Reader, n int) ([]byte, error) {
	b := make([]byte, n)
	if _, err := io.ReadFull(random, b); err != nil {
		return nil, fmt.Errorf("read randomness: %w", err)
	}
	return b, nil
}

// password makes one that starts with a letter and has at least one lower case
// letter, one upper case letter, a digit and a mark: uniform among all of these.
func password(n int, random io.Reader) ([]byte, error) {
	if err := checkLength(n); err != nil {
		return nil, err
	}
	const alphabet = lower + upper + digits + marks
	const tries = 10_000 // a length of 12 needs 3 on average
	for range tries {
		out := make([]byte, 0, n)
		for len(out) < n {
			raw, err := randomBytes(random, n)
			if err != nil {
				return nil, err
			}
			for _, b := range raw {
				// Values above the last full round would favour the first letters.
				if int(b) < 256/len(alphabet)*len(alphabet) && len(out) < n {
					out = append(out, alphabet[int(b)%len(alphabet)])
				}
			}
		}
		if good(string(out)) {
			return out, nil
		}
	}
	return nil, fmt.Errorf("the source of randomness gives the same again and again")
}

func good(p string) bool {
	return strings.ContainsAny(p[:1], lower+upper) && strings.ContainsAny(p, lower) && strings.ContainsAny(p, upper) &&
		strings.ContainsAny(p, digits) && strings.ContainsAny(p, marks)
}

func privatePEM(key any) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode a private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// publicPEM gives the public half of a PKCS #8 private key in PEM.
func publicPEM(private []byte) (string, error) {
	block, _ := pem.Decode(private)
	if block == nil {
		return "", fmt.Errorf("it is not PEM")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return "", fmt.Errorf("it is not a PKCS #8 private key")
	}
	var public any
	switch k := key.(type) {
	case *rsa.PrivateKey:
		public = &k.PublicKey
	case ed25519.PrivateKey:
		public = k.Public()
	default:
		return "", fmt.Errorf("it is a key of another kind than RSA or Ed25519")
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return "", fmt.Errorf("encode its public half: %w", err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), nil
}

// PublicName is the name under which the public half of a key is a value.
func PublicName(name string) string {
	public, _ := desired.SecretSpec{Name: name}.PublicName()
	return public
}
