package keycloak

import (
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"dive-agent/desired"
)

// Backend is where Terraform keeps the state of a component, and how it signs in there. What is no secret stands in the backend
// block of the working directory; users and secrets go to Terraform by its environment, and are never written to a file.
type Backend struct {
	Kind          string       `yaml:"kind" required:"true" enum:"local,pg,http,gcs,s3" doc:"local: a file on the host, 0600; other settings are not looked at then. pg: a table in PostgreSQL. http: a server of Terraform's protocol for states. gcs: Google Cloud Storage. s3: S3, or what speaks its protocol."`
	Address       desired.Expr `yaml:"address" doc:"pg: postgres://HOST:PORT/DATABASE?sslmode=verify-full. http: URL of the state. gcs, s3: URL of the service, where it is not Google's or Amazon's own. Without user and password."`
	Schema        desired.Expr `yaml:"schema" doc:"pg: the schema, one for each instance; it is made when it is not there."`
	Bucket        desired.Expr `yaml:"bucket" doc:"gcs, s3: the bucket. Let it keep versions."`
	Prefix        desired.Expr `yaml:"prefix" doc:"gcs: the folder in it, one for each instance."`
	Key           desired.Expr `yaml:"key" doc:"s3: the name of the object, one for each instance."`
	Region        desired.Expr `yaml:"region" doc:"s3: the bucket's region."`
	User          desired.Expr `yaml:"user" doc:"pg, http: who signs in."`
	Password      desired.Expr `yaml:"password" doc:"pg, http: the user's password; a secret of the instance."`
	AccessKey     desired.Expr `yaml:"accessKey" doc:"s3: id of the access key. Without it the host's own role is used."`
	SecretKey     desired.Expr `yaml:"secretKey" doc:"s3: the access key; a secret of the instance."`
	Credentials   desired.Expr `yaml:"credentials" doc:"gcs: the JSON of a service account's key; a secret of the instance. Without it the host's own account is used."`
	EncryptionKey desired.Expr `yaml:"encryptionKey" doc:"gcs: a key of the customer's own, 32 bytes in base64; a secret of the instance."`
	CA            desired.Expr `yaml:"ca" doc:"pg, http, s3: PEM of the authority of the server's certificate. pg checks it with sslmode=verify-full."`
	LockAddress   desired.Expr `yaml:"lockAddress" doc:"http: URL of the lock. Default: address."`
	UnlockAddress desired.Expr `yaml:"unlockAddress" doc:"http: URL by which the lock ends. Default: lockAddress."`
	LockMethod    desired.Expr `yaml:"lockMethod" doc:"http: the method that locks. Default: LOCK."`
	UnlockMethod  desired.Expr `yaml:"unlockMethod" doc:"http: the method that unlocks. Default: UNLOCK."`
	UpdateMethod  desired.Expr `yaml:"updateMethod" doc:"http: the method that writes. Default: POST."`
	LockTable     desired.Expr `yaml:"lockTable" doc:"s3: a DynamoDB table for the lock. Default: an object beside the state (Terraform and OpenTofu 1.10 and later)."`
	ForceUnlock   string       `yaml:"forceUnlock" doc:"http, gcs, s3: id of a lock that nobody holds any more and that is to be broken, as the status tells it. Any other lock is left alone."`

	Position desired.Position
}

// The kinds of backends.
const (
	backendLocal = "local"
	backendPg    = "pg"
	backendHTTP  = "http"
	backendGCS   = "gcs"
	backendS3    = "s3"
)

// backendTakes are the fields of each kind; the first ones are needed, as many as backendNeeds says.
var (
	backendTakes = map[string][]string{
		backendLocal: nil,
		backendPg:    {"address", "schema", "user", "password", "ca"},
		backendHTTP:  {"address", "lockAddress", "unlockAddress", "lockMethod", "unlockMethod", "updateMethod", "user", "password", "ca"},
		backendGCS:   {"bucket", "prefix", "address", "credentials", "encryptionKey"},
		backendS3:    {"bucket", "key", "region", "address", "accessKey", "secretKey", "lockTable", "ca"},
	}
	backendNeeds = map[string]int{backendPg: 2, backendHTTP: 1, backendGCS: 2, backendS3: 3}
)

// secretBackendFields must come from secrets; openBackendFields may. All others are written down and told, and must not.
var (
	secretBackendFields = []string{"password", "secretKey", "credentials", "encryptionKey"}
	openBackendFields   = []string{"user", "accessKey", "ca"}
)

// backendPairs are fields of which one alone means nothing.
var backendPairs = [][2]string{{"user", "password"}, {"accessKey", "secretKey"}}

type backendField struct {
	name string
	expr desired.Expr
}

// fields are those that the manifest gives, in the order of the type.
func (b *Backend) fields() []backendField {
	var given []backendField
	for _, f := range []backendField{
		{"address", b.Address},
		{"schema", b.Schema},
		{"bucket", b.Bucket},
		{"prefix", b.Prefix},
		{"key", b.Key},
		{"region", b.Region},
		{"user", b.User},
		{"password", b.Password},
		{"accessKey", b.AccessKey},
		{"secretKey", b.SecretKey},
		{"credentials", b.Credentials},
		{"encryptionKey", b.EncryptionKey},
		{"ca", b.CA},
		{"lockAddress", b.LockAddress},
		{"unlockAddress", b.UnlockAddress},
		{"lockMethod", b.LockMethod},
		{"unlockMethod", b.UnlockMethod},
		{"updateMethod", b.UpdateMethod},
		{"lockTable", b.LockTable},
	} {
		if !f.expr.IsZero() {
			given = append(given, f)
		}
	}
	return given
}

// values evaluates the fields. What is not known yet is left out, and its names are told.
func (b *Backend) values(scope *desired.Scope) (values map[string]string, unknown []string, err error) {
	values = map[string]string{}
	for _, f := range b.fields() {
		v, err := f.expr.Eval(scope)
		if err != nil {
			return nil, nil, err
		}
		if !v.Known() {
			unknown = append(unknown, f.expr.Missing(scope)...)
			continue
		}
		values[f.name] = v.Text()
	}
	return values, unknown, nil
}

// validateBackends checks both places that a manifest may name, each on its own, and the module's own words against them.
func (s *Spec) validateBackends(c *desired.Check) {
	s.Backend.validate(c, "backend")
	s.FormerBackend.validate(c, "formerBackend")
	if s.FormerBackend != nil && s.FormerBackend.ForceUnlock != "" {
		c.Errorf(c.At("formerBackend", "forceUnlock"), "forceUnlock: a state is only read at its former place, which needs no lock")
	}
}

func (b *Backend) validate(c *desired.Check, at string) {
	if b == nil {
		return
	}
	takes, known := backendTakes[b.Kind]
	if !known || b.Kind == backendLocal {
		return // enum says it; and an instance may say local over a blueprint's other kind, whose settings stay
	}
	given, values := map[string]bool{}, map[string]string{}
	for _, f := range b.fields() {
		place := c.At(at, f.name)
		given[f.name] = true
		if !slices.Contains(takes, f.name) {
			c.Errorf(place, "%s: a backend of kind %s has no %s (has: %s)", at, b.Kind, f.name, strings.Join(takes, ", "))
			continue
		}
		v, err := f.expr.Eval(c.Scope)
		if err != nil {
			continue // told where expressions are checked
		}
		switch isSecret := slices.Contains(secretBackendFields, f.name); {
		case isSecret && !v.Secret():
			c.Errorf(place, "%s: %s must come from a secret of the instance, such as ${STATE_PASSWORD}", at, f.name)
		case !isSecret && v.Secret() && !slices.Contains(openBackendFields, f.name):
			c.Errorf(place, "%s: %s is written down and told, so that it must not come from a secret", at, f.name)
		case v.Known() && !isSecret:
			values[f.name] = v.Text()
		}
	}
	for i, name := range takes {
		if i < backendNeeds[b.Kind] && !given[name] {
			c.Errorf(c.At(at), "%s: a backend of kind %s needs %s", at, b.Kind, name)
		}
	}
	for _, pair := range backendPairs {
		for i, name := range pair {
			if other := pair[1-i]; given[name] && !given[other] && slices.Contains(takes, other) {
				c.Errorf(c.At(at, name), "%s: %s without %s", at, name, other)
			}
		}
	}
	for _, p := range wrongValues(b.Kind, values) {
		c.Errorf(c.At(at, p.field), "%s: %s: %s", at, p.field, p.text)
	}
	if b.ForceUnlock != "" && b.Kind == backendPg {
		c.Errorf(c.At(at, "forceUnlock"), "%s: a lock of kind pg ends with its holder; there is none to break", at)
	}
}

type wrongValue struct{ field, text string }

// wrongValues looks at what is known of the settings that are no secrets.
func wrongValues(kind string, values map[string]string) []wrongValue {
	var wrong []wrongValue
	add := func(field, format string, args ...any) {
		wrong = append(wrong, wrongValue{field, fmt.Sprintf(format, args...)})
	}
	for _, name := range []string{"address", "lockAddress", "unlockAddress"} {
		if value, given := values[name]; given {
			if text := wrongAddress(kind, value); text != "" {
				add(name, "%s", text)
			}
		}
	}
	for _, name := range []string{"schema", "bucket", "prefix", "key", "region", "lockTable"} {
		value, given := values[name]
		switch {
		case !given:
		case value == "":
			add(name, "it is empty")
		case strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r == '"' }):
			add(name, "%q has blanks or quotes", value)
		case name == "schema" && len(value) > 63:
			add(name, "%q is longer than the 63 bytes that PostgreSQL keeps of a name", value)
		case (name == "key" || name == "prefix") && strings.HasPrefix(value, "/"):
			add(name, "%q begins with a slash", value)
		}
	}
	for _, name := range []string{"lockMethod", "unlockMethod", "updateMethod"} {
		if value, given := values[name]; given && (value == "" || strings.Trim(value, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "") {
			add(name, "%q is not a method such as PUT", value)
		}
	}
	if ca, given := values["ca"]; given && !strings.Contains(ca, "-----BEGIN CERTIFICATE-----") {
		add("ca", "it is no certificate in PEM")
	}
	return wrong
}

// wrongAddress says what is wrong with an address, without saying more of it than its scheme: who wrote a password there by
// mistake is not to read it in a log.
func wrongAddress(kind, address string) string {
	schemes := []string{"https", "http"}
	if kind == backendPg {
		schemes = []string{"postgres", "postgresql"}
	}
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Host == "":
		return "it is not a URL such as " + schemes[0] + "://HOST/NAME"
	case !slices.Contains(schemes, u.Scheme):
		return fmt.Sprintf("its scheme is %q, and %s is possible", u.Scheme, strings.Join(schemes, " or "))
	case u.User != nil:
		return "user and password do not belong here: they have fields of their own, and come from secrets"
	case kind == backendPg && strings.Trim(u.Path, "/") == "":
		return "it names no database: postgres://HOST:PORT/DATABASE"
	}
	for name := range u.Query() {
		if kind == backendPg && slices.Contains([]string{"user", "password", "sslpassword", "passfile", "dbname", "host", "port", "options"}, name) {
			return fmt.Sprintf("its parameter %s does not belong there", name)
		}
	}
	return ""
}

// Claims is desired.Claimer: a state belongs to one component, whatever host it is on.
func (s *Spec) Claims(c *desired.Check) []desired.Claim {
	if s.Backend == nil || s.Backend.Kind == backendLocal {
		return nil
	}
	values, _, err := s.Backend.values(c.Scope) // unknown credentials make no other place
	if err != nil {
		return nil
	}
	for i, name := range backendTakes[s.Backend.Kind] {
		if _, known := values[name]; i < backendNeeds[s.Backend.Kind] && !known {
			return nil // not known yet, or told already
		}
	}
	if len(wrongValues(s.Backend.Kind, values)) > 0 {
		return nil
	}
	return []desired.Claim{{Name: "state/" + placeOf(s.Backend.Kind, values), Everywhere: true, Position: s.Backend.Position}}
}

// ownBackend is the backend that a module itself declares.
type ownBackend struct {
	kind string // cloud for a cloud block
	at   desired.Position
}

// backend reads it; Terraform heeds none but that of the folder that it works in.
func (r *moduleReader) backend(s *scope, body hcl.Body) {
	if s.folder != r.root {
		return
	}
	content, _, _ := body.PartialContent(&hcl.BodySchema{Blocks: []hcl.BlockHeaderSchema{{Type: "backend", LabelNames: []string{"kind"}}, {Type: "cloud"}}})
	for _, block := range content.Blocks {
		kind := block.Type
		if len(block.Labels) > 0 {
			kind = block.Labels[0]
		}
		at := block.DefRange
		r.module.backend = &ownBackend{kind: kind, at: desired.Position{File: at.Filename, Line: at.Start.Line, Column: at.Start.Column}}
	}
}

// validateOwnBackend refuses a module whose own word on where the state is kept would be passed over in silence.
func (s *Spec) validateOwnBackend(c *desired.Check, module moduleFiles) {
	own := module.backend
	if own == nil || own.kind == backendLocal || s.Backend != nil {
		return
	}
	at := own.at
	at.File = path.Join(c.Instance.Source, at.File)
	c.Errorf(at, "the module keeps its state by backend %q, and the manifest says no word of it: where the state is kept is the manifest's word. Take the block out, or say in the component %s: backend: {kind: %s}, with its settings, or backend: {kind: local} for a file on the host",
		own.kind, c.Component.Name, likely(own.kind))
}

// likely is the kind to suggest for a module's own.
func likely(kind string) string {
	if _, known := backendTakes[kind]; known {
		return kind
	}
	return backendPg
}
