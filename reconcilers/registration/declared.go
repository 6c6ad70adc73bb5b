package registration

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

// grant is what an approval gives a spoke.
type grant struct {
	Scopes         []string `json:"allowedScopes"`
	Trust          string   `json:"trustLevel"`
	Classification string   `json:"maxClassification"`
	Isolation      string   `json:"dataIsolationLevel"`
}

func (g grant) equal(o grant) bool {
	return slices.Equal(sorted(g.Scopes), sorted(o.Scopes)) && g.Trust == o.Trust && g.Classification == o.Classification && g.Isolation == o.Isolation
}

// exceeds lists in what g is more than o; a level that is not known counts as more.
func (g grant) exceeds(o grant) []string {
	var more []string
	for _, scope := range sorted(g.Scopes) {
		if !slices.Contains(o.Scopes, scope) {
			more = append(more, "scope "+scope)
		}
	}
	level := func(what string, levels []string, has, may string) {
		at := slices.Index(levels, has)
		if at < 0 || at > slices.Index(levels, may) {
			more = append(more, fmt.Sprintf("%s %s (the manifest grants %s)", what, has, may))
		}
	}
	level("trust", trustLevels, g.Trust, o.Trust)
	level("classification", classifications, g.Classification, o.Classification)
	level("isolation", isolationLevels, g.Isolation, o.Isolation)
	return more
}

func (g grant) String() string {
	return fmt.Sprintf("%s, %s, %s, %s", g.Trust, g.Classification, g.Isolation, strings.Join(sorted(g.Scopes), " "))
}

func sorted(values []string) []string { return slices.Sorted(slices.Values(values)) }

// declared is a spoke as its manifest declares it, evaluated.
type declared struct {
	instance string
	code     string
	fields   []field // what the hub keeps of a registration, in the order in which people read it
	skip     bool
	grant    grant
	standing string // approved, suspended or revoked
}

// field is one value of a registration by the hub's own name for it.
type field struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// compared are the fields that the hub's agent evaluates too.
func (s *SpokeSpec) compared() []desired.Expr {
	return append([]desired.Expr{
		s.Code, s.Name, s.Description, s.URLs.Base, s.URLs.API, s.URLs.IDP, s.URLs.IDPPublic, s.ContactEmail, s.PublicKey, s.Certificate,
		s.TrustLevel, s.MaxClassification, s.DataIsolationLevel,
	}, s.RequestedScopes...)
}

// declare evaluates a spoke's manifest in the scope of its instance. The error is a WaitError when something is not
// known yet, such as another component's output.
func (s *SpokeSpec) declare(instance *desired.Instance, scope *desired.Scope) (declared, error) {
	e := evaluator{scope: scope}
	d := declared{instance: instance.Name, skip: s.SkipValidation, standing: cmp.Or(s.Standing, approved)}
	d.code = strings.ToUpper(cmp.Or(e.text("code", s.Code), valueOf(instance, "code"), instance.Name))
	idp := e.text("urls.idp", s.URLs.IDP)
	d.fields = []field{
		{"name", cmp.Or(e.text("name", s.Name), valueOf(instance, "country"), d.code)},
		{"description", e.text("description", s.Description)},
		{"baseUrl", e.text("urls.base", s.URLs.Base)},
		{"apiUrl", e.text("urls.api", s.URLs.API)},
		{"idpUrl", idp},
		{"idpPublicUrl", cmp.Or(e.text("urls.idpPublic", s.URLs.IDPPublic), idp)},
		{"contactEmail", e.text("contactEmail", s.ContactEmail)},
		{"publicKey", e.text("publicKey", s.PublicKey)},
		{"certificatePEM", e.text("certificate", s.Certificate)},
	}
	for _, scope := range s.RequestedScopes {
		d.grant.Scopes = append(d.grant.Scopes, e.text("requestedScopes", scope))
	}
	d.grant.Trust = cmp.Or(e.text("trustLevel", s.TrustLevel), trustLevels[0])
	d.grant.Classification = cmp.Or(e.text("maxClassification", s.MaxClassification), classifications[0])
	d.grant.Isolation = cmp.Or(e.text("dataIsolationLevel", s.DataIsolationLevel), isolationLevels[0])
	return d, e.err
}

func valueOf(instance *desired.Instance, name string) string {
	if v, ok := instance.Values[name]; ok && !v.Secret() {
		return v.Text()
	}
	return ""
}

// evaluator keeps the first error of many evaluations.
type evaluator struct {
	scope *desired.Scope
	err   error
}

func (e *evaluator) value(name string, x desired.Expr) desired.Value {
	if x.IsZero() {
		return desired.String("")
	}
	v, err := x.Eval(e.scope)
	switch {
	case e.err != nil:
	case err != nil:
		e.err = err
	case !v.Known():
		e.err = &reconcilers.WaitError{For: fmt.Sprintf("%s (%s)", name, x.Source())}
	}
	return v
}

// text evaluates a field that is sent to the hub and shown to people: a secret has no place there.
func (e *evaluator) text(name string, x desired.Expr) string {
	v := e.value(name, x)
	if v.Known() && v.Secret() && e.err == nil {
		e.err = &reconcilers.BlockedError{
			Reason:  "SecretInRegistration",
			Message: fmt.Sprintf("%s would send a secret to the hub", name), Do: "Use a plain value.",
		}
	}
	if e.err != nil {
		return ""
	}
	return v.Text()
}

// differences compares what the hub has of a spoke with its manifest: a line for each field that is not the same. What
// has cannot tell is not compared.
func (d declared) differences(has func(name string) (string, bool)) []string {
	var lines []string
	for _, f := range d.fields {
		if value, ok := has(f.Name); ok && !sameField(f.Name, value, f.Value) {
			lines = append(lines, fmt.Sprintf("%s: the hub has %q, the manifest says %q", f.Name, short(value), short(f.Value)))
		}
	}
	return lines
}

// registeredOtherwise is differences in what a spoke is: a key or certificate that follows another one is none.
func (d declared) registeredOtherwise(has func(name string) (string, bool)) []string {
	d.fields = slices.DeleteFunc(slices.Clone(d.fields), func(f field) bool { return f.Name == "publicKey" || f.Name == "certificatePEM" })
	return d.differences(has)
}

func sameField(name, a, b string) bool {
	if name == "certificatePEM" || name == "publicKey" {
		return strings.TrimSpace(a) == strings.TrimSpace(b)
	}
	return a == b
}

// short keeps a difference readable on one line.
func short(text string) string {
	const limit = 120
	text = strings.Join(strings.Fields(text), " ")
	if runes := []rune(text); len(runes) > limit {
		return string(runes[:limit]) + "…"
	}
	return text
}
