package published

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"gopkg.in/yaml.v3"
)

// The format's name and version, and where it lies in a status branch.
const (
	APIVersion = "dive/v1alpha1"
	Kind       = "Outputs"
	File       = "outputs.yaml"
)

// MaxBytes bounds a document, as it is written and as it is read.
const MaxBytes = 1 << 20

// JSON is the type of a value whose text is JSON; that of a text that means itself is empty.
const JSON = "json"

// Document is all that an instance publishes.
type Document struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string `yaml:"kind"`
	Instance   string `yaml:"instance"`
	Host       string `yaml:"host"` // whose agent wrote it
	// Generation grows with each change of the outputs and never goes back, whatever the agent forgets: it is at least the time of
	// the change, in seconds since 1970.
	Generation int64 `yaml:"generation"`
	// Outputs are in the order of component, name and For.
	Outputs []Output `yaml:"outputs"`
}

// Output is one published value.
type Output struct {
	Component string `yaml:"component"`
	Name      string `yaml:"name"`
	// For is the instance that a value is meant for, of an output that has one for each.
	For string `yaml:"for,omitempty"`
	// Type says what the text of a plain value is: JSON, or empty.
	Type string `yaml:"type,omitempty"`
	// Value is a plain value; Sealed one that only Readers can open, armoured. One of the two is there.
	Value  *string `yaml:"value,omitempty"`
	Sealed string  `yaml:"sealed,omitempty"`
	// Readers are the hosts that a secret value is sealed to.
	Readers []string `yaml:"readers,omitempty"`
	// Generation is that of the document in which the value, or who reads it, changed last, at the time Since.
	Generation int64     `yaml:"generation"`
	Since      time.Time `yaml:"since"`
}

// Key tells an output of a document from the others.
func (o *Output) Key() Key { return Key{Component: o.Component, Name: o.Name, For: o.For} }

// Key names an output within an instance.
type Key struct{ Component, Name, For string }

func (k Key) String() string {
	if k.For != "" {
		return k.Component + "." + k.Name + " for " + k.For
	}
	return k.Component + "." + k.Name
}

func (k Key) compare(other Key) int {
	return cmp.Or(cmp.Compare(k.Component, other.Component), cmp.Compare(k.Name, other.Name), cmp.Compare(k.For, other.For))
}

// Find gives the output with a key, nil when there is none.
func (d *Document) Find(key Key) *Output {
	if d == nil {
		return nil
	}
	if i, found := slices.BinarySearchFunc(d.Outputs, key, func(o Output, k Key) int { return o.Key().compare(k) }); found {
		return &d.Outputs[i]
	}
	return nil
}

// Encode writes a document. Equal documents give equal bytes, and Decode reads them.
func (d *Document) Encode() ([]byte, error) {
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(d); err != nil {
		return nil, fmt.Errorf("write what %s publishes: %w", d.Instance, err)
	}
	if err := enc.Close(); err != nil {
		return nil, fmt.Errorf("write what %s publishes: %w", d.Instance, err)
	}
	if b.Len() > MaxBytes {
		return nil, fmt.Errorf("write what %s publishes: it has %d bytes and may have %d; publish less, or shorter values", d.Instance, b.Len(), MaxBytes)
	}
	return b.Bytes(), nil
}

// Digest is of a document's bytes: two documents of one generation have to be the same.
func Digest(content []byte) string {
	sum := sha256.Sum256(content)
	return "sha256:" + hex.EncodeToString(sum[:])
}
