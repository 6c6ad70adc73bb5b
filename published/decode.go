package published

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

const (
	maxName    = 253 // bytes of a name
	maxReaders = 1000
	maxFields  = 16 // of one mapping: the format has fewer, and the YAML parser compares all keys of one with each other
	maxDepth   = 8
)

// validName holds for names of instances, hosts, components and outputs alike; each has stricter rules elsewhere.
var validName = regexp.MustCompile(`\A[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\z`)

// Decode reads a document strictly: one YAML document of this kind and version, no unknown or repeated field, no aliases, every
// name possible, every output once and in order, and no more than MaxBytes. An error names what is wrong, and repeats no value.
func Decode(content []byte) (*Document, error) {
	d, err := decode(content)
	if err != nil {
		return nil, fmt.Errorf("read published outputs: %w", err)
	}
	return d, nil
}

func decode(content []byte) (*Document, error) {
	if len(content) > MaxBytes {
		return nil, fmt.Errorf("it has %d bytes, allowed are %d", len(content), MaxBytes)
	}
	if !utf8.Valid(content) {
		return nil, errors.New("it is no UTF-8 text")
	}
	var tree yaml.Node
	if err := single(yaml.NewDecoder(bytes.NewReader(content)), &tree); err != nil {
		return nil, err
	}
	if err := plain(&tree, 0); err != nil {
		return nil, err
	}
	d := &Document{}
	strict := yaml.NewDecoder(bytes.NewReader(content))
	strict.KnownFields(true)
	if err := single(strict, d); err != nil {
		return nil, err
	}
	return d, d.check()
}

// single reads the one document that there is.
func single(from *yaml.Decoder, into any) error {
	if err := from.Decode(into); err != nil {
		return unquoted(err)
	}
	if err := from.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return errors.New("it is more than one YAML document")
	}
	return nil
}

// unquoted leaves out of an error of the YAML parser what it repeats of the text: it may be a value.
func unquoted(err error) error {
	var mismatch *yaml.TypeError
	if !errors.As(err, &mismatch) {
		return errors.New("it is no valid YAML")
	}
	text := mismatch.Errors[0]
	if line, field, ok := strings.Cut(text, ": field "); ok && strings.HasPrefix(line, "line ") {
		if name, _, ok := strings.Cut(field, " not found"); ok && validName.MatchString(name) && len(name) < 64 {
			return fmt.Errorf("%s: unknown field %q: a newer agent may have written it", line, name)
		}
	}
	line, _, _ := strings.Cut(text, ":")
	return fmt.Errorf("%.20s: a field is not of its type, or unknown", line)
}

// plain refuses what makes small texts large, and mappings that no document has.
func plain(n *yaml.Node, depth int) error {
	switch {
	case n.Kind == yaml.AliasNode, n.Anchor != "":
		return fmt.Errorf("line %d: aliases and anchors are not allowed", n.Line)
	case depth > maxDepth:
		return fmt.Errorf("line %d: it is nested too deeply", n.Line)
	case n.Kind == yaml.MappingNode && len(n.Content) > 2*maxFields:
		return fmt.Errorf("line %d: a mapping has too many fields", n.Line)
	}
	for i, child := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 && (child.Kind != yaml.ScalarNode || child.ShortTag() != "!!str") {
			return fmt.Errorf("line %d: the name of a field is no text", child.Line)
		}
		if err := plain(child, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (d *Document) check() error {
	switch {
	case d.APIVersion != APIVersion || d.Kind != Kind:
		return fmt.Errorf("it is no %s of %s", Kind, APIVersion)
	case !possible(d.Instance):
		return errors.New("it names no instance")
	case !possible(d.Host):
		return errors.New("it names no host")
	case d.Generation < 1:
		return errors.New("its generation is not above 0")
	}
	for i := range d.Outputs {
		o := &d.Outputs[i]
		if err := o.check(d.Generation); err != nil {
			return fmt.Errorf("output %d: %w", i+1, err)
		}
		if i > 0 && d.Outputs[i-1].Key().compare(o.Key()) >= 0 {
			return fmt.Errorf("output %d: %s is there twice, or not in order", i+1, o.Key())
		}
	}
	return nil
}

func (o *Output) check(generation int64) error {
	switch {
	case !possible(o.Component) || !possible(o.Name) || o.For != "" && !possible(o.For):
		return errors.New("its component, name or for is no possible name")
	case (o.Value == nil) == (o.Sealed == ""):
		return fmt.Errorf("%s has to have either a value or something sealed", o.Key())
	case o.Type != "" && (o.Type != JSON || o.Value == nil):
		return fmt.Errorf("%s has an unknown type", o.Key())
	case o.Type == JSON && !json.Valid([]byte(*o.Value)):
		return fmt.Errorf("%s is said to be JSON and is not", o.Key())
	case o.Generation < 1 || o.Generation > generation:
		return fmt.Errorf("%s is of generation %d, which the document, of %d, cannot have", o.Key(), o.Generation, generation)
	case o.Since.IsZero() || o.Since.Location() != time.UTC:
		return fmt.Errorf("%s does not say since when, in UTC", o.Key())
	case (o.Sealed != "") != (len(o.Readers) > 0) || len(o.Readers) > maxReaders:
		return fmt.Errorf("%s has to have readers when it is sealed, at most %d, and none otherwise", o.Key(), maxReaders)
	}
	for i, reader := range o.Readers {
		if !possible(reader) || i > 0 && o.Readers[i-1] >= reader {
			return fmt.Errorf("%s has a reader that is no possible host, or twice, or not in order", o.Key())
		}
	}
	return nil
}

func possible(name string) bool { return len(name) <= maxName && validName.MatchString(name) }
