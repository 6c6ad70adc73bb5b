package keycloak

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// message is what is read of a line of Terraform's JSON output. Values of outputs and of resources are not read.
type message struct {
	Type       string     `json:"type"`
	Terraform  string     `json:"terraform"` // its version, in the first message
	Tofu       string     `json:"tofu"`      // OpenTofu's
	Time       time.Time  `json:"@timestamp"`
	Hook       hook       `json:"hook"`
	Diagnostic diagnostic `json:"diagnostic"`
	Change     struct {
		Resource resourceName `json:"resource"`
		Action   string       `json:"action"`
	} `json:"change"`
}

type hook struct {
	Resource resourceName `json:"resource"`
	Action   string       `json:"action"`
	IDKey    string       `json:"id_key"`
	IDValue  string       `json:"id_value"`
}

type resourceName struct {
	Addr string `json:"addr"`
}

type diagnostic struct {
	Severity string `json:"severity"`
	Summary  string `json:"summary"`
	Detail   string `json:"detail"`
	Address  string `json:"address"`
	Range    *struct {
		Filename string `json:"filename"`
		Start    struct {
			Line   int `json:"line"`
			Column int `json:"column"`
		} `json:"start"`
	} `json:"range"`
}

func (d diagnostic) text() string { return d.Summary + " " + d.Detail }

// conflict tells whether the server refused since there is something of that name. It answers 409, and 400 for
// mappers of identity providers.
func (d diagnostic) conflict() bool {
	text := d.text()
	return strings.Contains(text, "409 Conflict") || strings.Contains(text, "already exists") || strings.Contains(text, "Failed to add mapper")
}

// failure is how the provider words an answer of 5xx to a request that changes nothing.
var failure = regexp.MustCompile(`error sending GET request to \S+: 5\d\d `)

// noise tells whether a diagnostic only follows from another one.
func (d diagnostic) noise() bool {
	return strings.Contains(d.Summary, "execution halted") || strings.Contains(d.Summary, "Request cancelled")
}

func (d diagnostic) String() string {
	text := d.Summary
	if d.Address != "" {
		text = d.Address + ": " + text
	}
	if d.Range != nil {
		text = fmt.Sprintf("%s:%d:%d: %s", d.Range.Filename, d.Range.Start.Line, d.Range.Start.Column, text)
	}
	if detail := strings.TrimSpace(d.Detail); detail != "" && !strings.HasPrefix(detail, "keycloak_") {
		text += ": " + detail
	}
	return strings.Join(strings.Fields(text), " ")
}

// stream reads Terraform's JSON lines as they come. Every line goes to heard when that is set.
type stream struct {
	heard func(message)

	mu     sync.Mutex
	rest   []byte
	errors []diagnostic
	drift  map[string]string // address -> action, of what was changed outside

	version string // of the program, by its own word
}

func (s *stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rest = append(s.rest, p...)
	for {
		end := bytes.IndexByte(s.rest, '\n')
		if end < 0 {
			return len(p), nil
		}
		s.line(s.rest[:end])
		s.rest = s.rest[end+1:]
	}
}

func (s *stream) line(line []byte) {
	var m message
	if json.Unmarshal(line, &m) != nil {
		return
	}
	switch {
	case m.Type == "diagnostic" && m.Diagnostic.Severity == "error":
		s.errors = append(s.errors, m.Diagnostic)
	case m.Type == "version":
		s.version = cmp.Or(m.Terraform, m.Tofu)
	case m.Type == "resource_drift":
		if s.drift == nil {
			s.drift = map[string]string{}
		}
		s.drift[m.Change.Resource.Addr] = m.Change.Action
	}
	if s.heard != nil {
		s.heard(m)
	}
}

// telling are the errors that say something, at most a handful, each once.
func (s *stream) telling() []diagnostic {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []diagnostic
	seen := map[string]bool{}
	for _, d := range s.errors {
		if !d.noise() && !seen[d.String()] {
			seen[d.String()] = true
			all = append(all, d)
		}
	}
	if len(all) == 0 {
		all = slices.Clone(s.errors)
	}
	return all
}

// serverFailed says whether all errors that say something are answers of 5xx.
func (s *stream) serverFailed() bool {
	told := s.telling()
	return len(told) > 0 && !slices.ContainsFunc(told, func(d diagnostic) bool { return !failure.MatchString(d.text()) })
}
