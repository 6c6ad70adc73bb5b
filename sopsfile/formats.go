package sopsfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// Errors of the parsers give no text of the file: where it is not encrypted as it should be, that may be a secret.
var (
	errNoMap   = errors.New("it is no map of names to values")
	errTooMany = fmt.Errorf("it has more than %d keys and values", maxNodes)
)

// parseYAML reads the documents of a YAML file. SOPS writes no anchors, aliases and merges.
func parseYAML(text []byte) (all []branch, err error) {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	left := maxNodes
	for {
		var doc yaml.Node
		switch err := dec.Decode(&doc); {
		case errors.Is(err, io.EOF):
			return all, nil
		case err != nil:
			return nil, errors.New("it is no YAML")
		}
		if len(doc.Content) != 1 || doc.Content[0].ShortTag() == "!!null" {
			continue
		}
		value, err := fromYAML(doc.Content[0], &left)
		if err != nil {
			return nil, err
		}
		b, ok := value.(branch)
		if !ok {
			return nil, errNoMap
		}
		all = append(all, b)
	}
}

func fromYAML(n *yaml.Node, left *int) (any, error) {
	if *left--; *left < 0 {
		return nil, errTooMany
	}
	switch n.Kind {
	case yaml.MappingNode:
		out := branch{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Kind != yaml.ScalarNode {
				return nil, fmt.Errorf("line %d: a key is no text", n.Content[i].Line)
			}
			value, err := fromYAML(n.Content[i+1], left)
			if err != nil {
				return nil, err
			}
			out = append(out, item{n.Content[i].Value, value})
		}
		return out, nil
	case yaml.SequenceNode:
		out := []any{}
		for _, one := range n.Content {
			value, err := fromYAML(one, left)
			if err != nil {
				return nil, err
			}
			out = append(out, value)
		}
		return out, nil
	case yaml.ScalarNode:
		var value any
		if err := n.Decode(&value); err != nil {
			return nil, fmt.Errorf("line %d: a value cannot be read", n.Line)
		}
		switch value.(type) {
		case nil, string, int, float64, bool, time.Time:
			return value, nil
		}
		return nil, fmt.Errorf("line %d: a value is of a type that SOPS does not know", n.Line)
	}
	return nil, fmt.Errorf("line %d: an alias; SOPS writes none", n.Line)
}

func parseJSON(text []byte) ([]branch, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	left := maxNodes
	value, err := fromJSON(dec, &left)
	if err != nil {
		if errors.Is(err, errTooMany) {
			return nil, err
		}
		return nil, fmt.Errorf("it is no JSON from byte %d on", dec.InputOffset())
	}
	b, ok := value.(branch)
	if !ok {
		return nil, errNoMap
	}
	return []branch{b}, nil
}

func fromJSON(dec *json.Decoder, left *int) (any, error) {
	if *left--; *left < 0 {
		return nil, errTooMany
	}
	token, err := dec.Token()
	if err != nil {
		return nil, err
	}
	if n, ok := token.(json.Number); ok {
		if i, err := n.Int64(); err == nil {
			return int(i), nil
		}
		return n.Float64()
	}
	var end error
	switch token {
	case json.Delim('{'):
		out := branch{}
		for dec.More() {
			key, err := dec.Token()
			if err != nil {
				return nil, err
			}
			value, err := fromJSON(dec, left)
			if err != nil {
				return nil, err
			}
			name, _ := key.(string) // the decoder takes nothing else
			out = append(out, item{name, value})
		}
		_, end = dec.Token()
		return out, end
	case json.Delim('['):
		out := []any{}
		for dec.More() {
			value, err := fromJSON(dec, left)
			if err != nil {
				return nil, err
			}
			out = append(out, value)
		}
		_, end = dec.Token()
		return out, end
	}
	return token, nil
}

// parseDotenv reads lines of NAME=value. A line break in a value is written as \n; comments are left out.
func parseDotenv(text []byte) ([]branch, error) {
	var out branch
	n := 0
	for line := range strings.SplitSeq(string(text), "\n") {
		if n++; n > maxNodes {
			return nil, errTooMany
		}
		if line == "" || line[0] == '#' {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			return nil, fmt.Errorf("line %d: it is not NAME=value", n)
		}
		out = append(out, item{key, strings.ReplaceAll(value, `\n`, "\n")})
	}
	return []branch{out}, nil
}
