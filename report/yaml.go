package report

import (
	"bytes"
	"fmt"

	"gopkg.in/yaml.v3"
)

// YAML is the status as status.yaml holds it.
func (s *Status) YAML() ([]byte, error) {
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(s); err != nil {
		return nil, fmt.Errorf("write the status of %s: %w", s.Instance, err)
	}
	if err := enc.Close(); err != nil {
		return nil, fmt.Errorf("write the status of %s: %w", s.Instance, err)
	}
	return b.Bytes(), nil
}

// Parse reads a status.yaml. What a newer agent may have added is ignored; a
// document of another kind or version is an error.
func Parse(content []byte) (*Status, error) {
	var s Status
	if err := yaml.Unmarshal(content, &s); err != nil {
		return nil, fmt.Errorf("read a status: %w", err)
	}
	if s.APIVersion != APIVersion || s.Kind != Kind {
		return nil, fmt.Errorf("read a status: it is a %q of %q, expected %q of %q", s.Kind, s.APIVersion, Kind, APIVersion)
	}
	return &s, nil
}
