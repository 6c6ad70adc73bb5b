package registration

import (
	"net/url"
	"slices"
	"strings"
	"time"

	"dive-agent/desired"
)

// SpokeKind is SpokeRegistration as manifests know it.
var SpokeKind = desired.Kind{
	Name: "SpokeRegistration",
	Doc:  "The spoke's place in the federation: registered at the hub, approved by the hub's agent because this manifest is merged, with a token that is kept and renewed.",
	New:  func() any { return new(SpokeSpec) },
}

// ApprovalsKind is SpokeApprovals as manifests know it.
var ApprovalsKind = desired.Kind{
	Name: "SpokeApprovals",
	Doc:  "The hub's side of registration: approves the spokes of the fleet as their merged manifests say, and reports or stops what no manifest declares.",
	New:  func() any { return new(ApprovalsSpec) },
}

// HubAddress says where the hub's federation service is.
type HubAddress struct {
	URL    desired.Expr `yaml:"url" doc:"Base URL of the hub's backend as this agent reaches it; https. Default: hub.url of fleet.yaml."`
	CA     desired.Expr `yaml:"ca" doc:"PEM of the certificate authority that signed the hub's certificate; no other is trusted. Default: hub.ca or hub.caFile of fleet.yaml."`
	CAFile desired.Expr `yaml:"caFile" doc:"The same as a file, relative to the instance's source folder, or below the secrets folder."`
}

// SpokeSpec is the component's part of a spoke's manifest.
type SpokeSpec struct {
	Hub                HubAddress       `yaml:"hub" doc:"Where the hub is. Default: what fleet.yaml says."`
	Code               desired.Expr     `yaml:"code" doc:"Instance code, 3 characters. Default: the value code, else the instance's name; in capitals."`
	Name               desired.Expr     `yaml:"name" doc:"Name of the spoke, 3 to 100 characters. Default: the value country, else the code."`
	Description        desired.Expr     `yaml:"description" doc:"A line about the spoke."`
	URLs               URLs             `yaml:"urls" required:"true" doc:"Where the spoke's services are."`
	ContactEmail       desired.Expr     `yaml:"contactEmail" required:"true" doc:"Whom the hub's operators write to."`
	PublicKey          desired.Expr     `yaml:"publicKey" doc:"The spoke's public key. As all fields but hub and handover, from what is merged: no output, secret or value of another instance."`
	Certificate        desired.Expr     `yaml:"certificate" doc:"PEM of the spoke's certificate."`
	RequestedScopes    []desired.Expr   `yaml:"requestedScopes" required:"true" doc:"Policy scopes the spoke gets: policy:base, policy:org, policy:tenant."`
	TrustLevel         desired.Expr     `yaml:"trustLevel" doc:"development (default), partner, bilateral or national."`
	MaxClassification  desired.Expr     `yaml:"maxClassification" doc:"Highest classification: UNCLASSIFIED (default), CONFIDENTIAL, SECRET or TOP_SECRET."`
	DataIsolationLevel desired.Expr     `yaml:"dataIsolationLevel" doc:"minimal (default: the spoke gets least), filtered or full."`
	Standing           string           `yaml:"standing" default:"approved" enum:"approved,suspended,revoked" doc:"What the hub's agent keeps the spoke at. suspended takes its tokens until approved is merged again; revoked ends the record, and approved makes the spoke register anew."`
	SkipValidation     bool             `yaml:"skipValidation" doc:"Let the hub register the spoke though its identity provider does not answer yet. The hub connects to it all the same, for 5 s at most."`
	Handover           desired.Expr     `yaml:"handover" late:"true" doc:"What the hub's agent hands over to this host: ${instances.usa.federation.handover}, where federation publishes it. With it a token is renewed before it ends, a record that stays pending says why, and a manifest that went and is merged again has the spoke register anew. Nothing waits for it."`
	RegisterAgainAfter string           `yaml:"registerAgainAfter" doc:"Id of the revoked record in whose place the spoke may register anew. Without it a revoked spoke stays so, unless its handover says that it may."`
	Poll               desired.Duration `yaml:"poll" default:"2s" doc:"How often the hub is asked while the approval is awaited; more often right after the registration."`
}

// URLs of a spoke.
type URLs struct {
	Base      desired.Expr `yaml:"base" required:"true" doc:"The frontend."`
	API       desired.Expr `yaml:"api" required:"true" doc:"The backend."`
	IDP       desired.Expr `yaml:"idp" required:"true" doc:"The identity provider as the hub reaches it."`
	IDPPublic desired.Expr `yaml:"idpPublic" doc:"The identity provider as browsers reach it. Default: idp, since the hub's own fallback is stale."`
}

// ApprovalsSpec is the component's part of a hub's manifest.
type ApprovalsSpec struct {
	Hub           HubAddress       `yaml:"hub" doc:"Where the hub is. Default: what fleet.yaml says."`
	AdminKey      desired.Expr     `yaml:"adminKey" required:"true" doc:"The hub's FEDERATION_ADMIN_KEY, a secret of the instance."`
	Service       string           `yaml:"service" doc:"The service that runs the hub's backend, such as backend; it is waited for."`
	UnknownSpokes string           `yaml:"unknownSpokes" default:"report" enum:"report,suspend,revoke" doc:"What happens to an approved record that no merged manifest declares."`
	OPAL          *OPAL            `yaml:"opal" doc:"The OPAL server of the hub, whose clients get their tokens here. Without it a spoke that reads opal_token gets what the hub's backend handed out with the approval, else an empty text."`
	Revoke        []string         `yaml:"revoke" doc:"Ids of records to revoke whatever else is said of them, such as that of a stranger who registered under a spoke's code: that spoke registers in its place then, when it reads its handover."`
	Poll          desired.Duration `yaml:"poll" default:"1s" doc:"How often the hub is asked whether there is something to do; more often right after the merge of a spoke."`
}

// What the hub takes, the least first.
var (
	trustLevels     = []string{"development", "partner", "bilateral", "national"}
	classifications = []string{"UNCLASSIFIED", "CONFIDENTIAL", "SECRET", "TOP_SECRET"}
	isolationLevels = []string{"minimal", "filtered", "full"}
	policyScopes    = []string{"policy:base", "policy:org", "policy:tenant"}
)

var (
	_ desired.Validator = (*SpokeSpec)(nil)
	_ desired.Outputter = (*SpokeSpec)(nil)
	_ desired.Validator = (*ApprovalsSpec)(nil)
	_ desired.Outputter = (*ApprovalsSpec)(nil)
	_ desired.Needer    = (*ApprovalsSpec)(nil)
)

// minPoll keeps a typing error from becoming a load on the hub.
const minPoll = 200 * time.Millisecond

// Outputs lists what a registration publishes.
func (s *SpokeSpec) Outputs() []desired.Output {
	return []desired.Output{
		{Name: "spoke_id", Doc: "Id that the hub gave the spoke."},
		{Name: "token", Secret: true, Doc: "Token for heartbeats. Services that use it are made anew when it is renewed."},
		{Name: "token_expires", Doc: "When the token ends, RFC 3339."},
		{Name: "status", Doc: "pending, approved, suspended or revoked."},
		{Name: opalTokenOutput, Secret: true, Doc: "Token for the spoke's OPAL client, where the hub approved the registration at once and gave one. It is not renewed: that is what opal_token of SpokeApprovals is for."},
	}
}

// Outputs lists what the hub's side publishes.
func (s *ApprovalsSpec) Outputs() []desired.Output {
	return []desired.Output{
		{Name: handoverOutput, Secret: true, PerInstance: true, Doc: "What each spoke is told: its token, renewed when two thirds of its life are over, and what stands against its approval."},
		{Name: opalTokenOutput, Secret: true, PerInstance: true, Doc: "Token for the OPAL client of each spoke, renewed when two thirds of its life are over. Without opal: what the hub's backend gave with the approval, else an empty text."},
		{Name: opalOwnOutput, Secret: true, Doc: "The same for the hub's own OPAL client."},
		{Name: opalKeyOutput, Doc: "Public half of the key that the OPAL server signs with, PEM; empty without opal."},
	}
}

// Validate checks what the types cannot say.
func (s *SpokeSpec) Validate(c *desired.Check) {
	s.Hub.validate(c)
	checkPoll(c, s.Poll)
	for _, e := range s.compared() {
		c.Merged(e, "the hub's agent has to compare this field with the hub's record before it approves")
	}
	if len(s.RequestedScopes) == 0 {
		c.Errorf(c.At("requestedScopes"), "name at least one scope: %s", strings.Join(policyScopes, ", "))
	}
	for _, scope := range s.RequestedScopes {
		checkOneOf(c, scope, "scope", policyScopes)
	}
	checkOneOf(c, s.TrustLevel, "trust level", trustLevels)
	checkOneOf(c, s.MaxClassification, "classification", classifications)
	checkOneOf(c, s.DataIsolationLevel, "data isolation level", isolationLevels)
	if text, ok := c.Known(s.Code); ok && len([]rune(text)) != 3 {
		c.Errorf(s.Code.Position(), "code %q must have 3 characters", text)
	}
	if text, ok := c.Known(s.Name); ok && (len([]rune(text)) < 3 || len([]rune(text)) > 100) {
		c.Errorf(s.Name.Position(), "name %q must have 3 to 100 characters", text)
	}
	for _, e := range []desired.Expr{s.URLs.Base, s.URLs.API, s.URLs.IDP, s.URLs.IDPPublic} {
		if text, ok := c.Known(e); ok && !isURL(text) {
			c.Errorf(e.Position(), "%q is no URL", text)
		}
	}
	if text, ok := c.Known(s.ContactEmail); ok && !strings.Contains(text, "@") {
		c.Errorf(s.ContactEmail.Position(), "%q is no mail address", text)
	}
}

// Validate checks what the types cannot say.
func (s *ApprovalsSpec) Validate(c *desired.Check) {
	s.Hub.validate(c)
	checkPoll(c, s.Poll)
	if s.OPAL != nil {
		s.OPAL.validate(c)
	}
	if c.Scope == nil || s.AdminKey.IsZero() {
		return
	}
	if v, err := s.AdminKey.Eval(c.Scope); err == nil && !v.Secret() {
		c.Errorf(s.AdminKey.Position(), "adminKey must come from a secret of the instance, such as ${FEDERATION_ADMIN_KEY}")
	}
}

// Needs is the backend's service, when it is named.
func (s *ApprovalsSpec) Needs(c *desired.Check) []desired.Need {
	if s.Service == "" {
		return nil
	}
	return []desired.Need{{Part: s.Service, Why: "service names the hub's backend", Position: c.At("service")}}
}

func (h HubAddress) validate(c *desired.Check) {
	if !h.CA.IsZero() && !h.CAFile.IsZero() {
		c.Errorf(h.CA.Position(), "write either ca or caFile, not both")
	}
	text, ok := c.Known(h.URL)
	at := h.URL.Position()
	if h.URL.IsZero() {
		if c.Fleet == nil {
			return
		}
		text, ok, at = c.Fleet.Hub.URL, true, c.At()
		if text == "" {
			c.Errorf(at, "no hub: set hub.url here, or spec.hub.url in fleet.yaml")
			return
		}
	}
	if ok && !isHTTPS(text) {
		c.Errorf(at, "the hub's URL %q must begin with https://: tokens go over it", text)
	}
}

func checkPoll(c *desired.Check, poll desired.Duration) {
	if poll != 0 && poll.Std() < minPoll {
		c.Errorf(c.At("poll"), "poll %s is too often; at least %s", poll, minPoll)
	}
}

func checkOneOf(c *desired.Check, e desired.Expr, what string, allowed []string) {
	if text, ok := c.Known(e); ok && !slices.Contains(allowed, text) {
		c.Errorf(e.Position(), "%q is no %s; one of %s", text, what, strings.Join(allowed, ", "))
	}
}

func isURL(text string) bool {
	u, err := url.Parse(text)
	return err == nil && u.Scheme != "" && u.Host != ""
}

func isHTTPS(text string) bool {
	u, err := url.Parse(text)
	return err == nil && u.Scheme == "https" && u.Host != "" && u.User == nil
}
