package published

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"
	"filippo.io/age/armor"
)

// Place is where a sealed value belongs. It is sealed in with the value.
type Place struct {
	Instance   string
	Host       string
	Key        Key
	Generation int64 // of the value
}

// Place of an output of the document.
func (d *Document) Place(o *Output) Place {
	return Place{Instance: d.Instance, Host: d.Host, Key: o.Key(), Generation: o.Generation}
}

func (p Place) String() string { return fmt.Sprintf("%s.%s on %s", p.Instance, p.Key, p.Host) }

// content is what is sealed.
type content struct {
	Instance   string `json:"instance"`
	Host       string `json:"host"`
	Component  string `json:"component"`
	Name       string `json:"name"`
	For        string `json:"for"`
	Generation int64  `json:"generation"`
	Type       string `json:"type"`
	Value      string `json:"value"`
}

func (c content) place() Place {
	return Place{c.Instance, c.Host, Key{c.Component, c.Name, c.For}, c.Generation}
}

// SealedError says why a sealed value was not taken. It repeats nothing of it.
type SealedError struct {
	Place  Place
	Reason string
}

func (e *SealedError) Error() string {
	return fmt.Sprintf("cannot open what is published as %s: %s", e.Place, e.Reason)
}

// Seal encrypts a value to age recipients (age1...) and binds it to its place. Each call gives another text.
func Seal(place Place, text, typ string, recipients []string) (string, error) {
	fail := func(err error) (string, error) { return "", fmt.Errorf("seal %s: %w", place, err) }
	var to []age.Recipient
	for _, r := range recipients {
		one, err := age.ParseX25519Recipient(r)
		if err != nil {
			return fail(fmt.Errorf("%q is no age recipient (age1...)", r)) // its cause repeats parts of what may have been meant to be secret
		}
		to = append(to, one)
	}
	if len(to) == 0 {
		return fail(errors.New("there is nobody to seal it to"))
	}
	plain, err := json.Marshal(content{place.Instance, place.Host, place.Key.Component, place.Key.Name, place.Key.For, place.Generation, typ, text})
	if err != nil {
		return fail(err)
	}
	var b bytes.Buffer
	armoured := armor.NewWriter(&b)
	w, err := age.Encrypt(armoured, to...)
	if err == nil {
		_, err = w.Write(plain)
	}
	if err == nil {
		err = w.Close()
	}
	if err = errors.Join(err, armoured.Close()); err != nil {
		return fail(err)
	}
	return b.String(), nil
}

// Open decrypts a value with one of the identities and gives its text and type. It does so only when the value was sealed for
// this very place; else the error is a [*SealedError].
func Open(place Place, sealed string, identities ...age.Identity) (text, typ string, err error) {
	fail := func(reason string) (string, string, error) { return "", "", &SealedError{place, reason} }
	if len(identities) == 0 {
		return fail("this host has no key to open it; make one with: dive-agent enroll")
	}
	r, err := age.Decrypt(armor.NewReader(strings.NewReader(sealed)), identities...)
	var stranger *age.NoIdentityMatchError
	switch {
	case errors.As(err, &stranger):
		return fail("it is not sealed to this host")
	case err != nil:
		return fail("it is damaged")
	}
	plain, err := io.ReadAll(io.LimitReader(r, MaxBytes+1))
	if err != nil || len(plain) > MaxBytes {
		return fail("it is damaged")
	}
	var c content
	strict := json.NewDecoder(bytes.NewReader(plain))
	strict.DisallowUnknownFields()
	if err := strict.Decode(&c); err != nil {
		return fail("what is sealed is no published value")
	}
	if found := c.place(); found != place {
		return fail(fmt.Sprintf("it was sealed as %s, generation %d, and stands as generation %d: somebody copied it", found, found.Generation, place.Generation))
	}
	if c.Type != "" && (c.Type != JSON || !json.Valid([]byte(c.Value))) {
		return fail("its type is unknown")
	}
	return c.Value, c.Type, nil
}
