package registration

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// States of a record.
const (
	pending   = "pending"
	approved  = "approved"
	suspended = "suspended"
	revoked   = "revoked"
)

// issued is a token as the hub hands it out.
type issued struct {
	Token     string    `json:"token"`
	ExpiresAt time.Time `json:"expiresAt"`
}

// registered is the hub's word on a spoke. Name is empty in a status answer.
type registered struct {
	SpokeID      string    `json:"spokeId"`
	Name         string    `json:"name"`
	Status       string    `json:"status"`
	RegisteredAt time.Time `json:"registeredAt"`
	Token        *issued   `json:"token"`

	opal *issuedOPAL // of the OPAL server, in the call that approved
}

// issuedOPAL is a token of the OPAL server as the hub hands it out.
type issuedOPAL struct {
	Token string `json:"token"`
}

// register sends the registration of a spoke. The hub answers the same for a new, a known and a suspended one; a
// known record stays as it is. Never to be called while suspended: an auto-approving hub would approve it.
//
// What is not sent: keycloakAdminPassword and authCode (secrets the hub has no business with), and partnerPreApproved (which
// would approve the spoke without anyone's consent).
func (c *hubClient) register(ctx context.Context, d declared) (registered, error) {
	body := map[string]any{"instanceCode": d.code, "requestedScopes": d.grant.Scopes, "skipValidation": d.skip}
	for _, f := range d.fields {
		switch {
		case f.Value == "":
		case f.Name == "certificatePEM":
			body[f.Name] = base64.StdEncoding.EncodeToString([]byte(f.Value))
		default:
			body[f.Name] = f.Value
		}
	}
	var answer struct {
		Spoke registered  `json:"spoke"`
		Token *issued     `json:"token"`
		OPAL  *issuedOPAL `json:"opalToken"`
	}
	err := c.call(ctx, http.MethodPost, "/register", body, &answer)
	answer.Spoke.Token, answer.Spoke.opal = answer.Token, answer.OPAL
	return answer.Spoke, c.checked(err, "POST /register", answer.Spoke)
}

// status asks for a spoke by code or id, in any case. For an approved spoke the hub gives the oldest token that lives, and
// makes one when none does; a 404 is nil.
func (c *hubClient) status(ctx context.Context, name string) (*registered, error) {
	var answer registered
	call := "/registration/" + url.PathEscape(name) + "/status"
	err := c.call(ctx, http.MethodGet, call, nil, &answer)
	if isNotFound(err) {
		return nil, nil
	}
	if err := c.checked(err, "GET "+call, answer); err != nil {
		return nil, err
	}
	return &answer, nil
}

// checked refuses a success that says nothing, such as the empty page of a proxy.
func (c *hubClient) checked(err error, call string, answer registered) error {
	if err == nil && (answer.SpokeID == "" || answer.Status == "") {
		return &answerError{call: call, status: http.StatusOK, text: "without a spoke"}
	}
	return err
}

// record is what the hub's side sees of a spoke.
type record struct {
	SpokeID        string   `json:"spokeId"`
	Code           string   `json:"instanceCode"`
	Status         string   `json:"status"`
	Scopes         []string `json:"allowedPolicyScopes"`
	Trust          string   `json:"trustLevel"`
	Classification string   `json:"maxClassificationAllowed"`
	Isolation      string   `json:"dataIsolationLevel"`
	ApprovedBy     string   `json:"approvedBy"`

	RegisteredAt  time.Time  `json:"registeredAt"`
	ApprovedAt    *time.Time `json:"approvedAt"`
	LastHeartbeat *time.Time `json:"lastHeartbeat"`

	registration
}

// registration is what a spoke said of itself, as the hub has it: each field as it came, empty when it did not.
type registration struct {
	Name        json.RawMessage `json:"name"`
	Description json.RawMessage `json:"description"`
	BaseURL     json.RawMessage `json:"baseUrl"`
	APIURL      json.RawMessage `json:"apiUrl"`
	IDP         json.RawMessage `json:"idpUrl"`
	IDPPublic   json.RawMessage `json:"idpPublicUrl"`
	Contact     json.RawMessage `json:"contactEmail"`
	PublicKey   json.RawMessage `json:"publicKey"`
	Certificate json.RawMessage `json:"certificatePEM"`
}

func (r *registration) raw(name string) json.RawMessage {
	switch name {
	case "name":
		return r.Name
	case "description":
		return r.Description
	case "baseUrl":
		return r.BaseURL
	case "apiUrl":
		return r.APIURL
	case "idpUrl":
		return r.IDP
	case "idpPublicUrl":
		return r.IDPPublic
	case "contactEmail":
		return r.Contact
	case "publicKey":
		return r.PublicKey
	case "certificatePEM":
		return r.Certificate
	}
	return nil
}

func (r *record) grant() grant {
	return grant{Scopes: r.Scopes, Trust: r.Trust, Classification: r.Classification, Isolation: r.Isolation}
}

// byNobody says whether the hub approved the record without a person or this agent: since the registration asked for it, or
// since it approves all.
func (r *record) byNobody() bool {
	return strings.HasPrefix(r.ApprovedBy, "vault-partner-") || r.ApprovedBy == "auto-approval-system"
}

// has gives a field's text; null is the empty text, and a field that the hub does not keep at all is not compared.
func (r *record) has(name string) (string, bool) {
	raw := r.raw(name)
	if len(raw) == 0 {
		return "", false
	}
	var text *string
	if json.Unmarshal(raw, &text) != nil {
		return string(raw), true
	}
	if text == nil {
		return "", true
	}
	return *text, true
}

// spokes lists all records.
func (c *hubClient) spokes(ctx context.Context) ([]*record, error) {
	var answer struct {
		Spokes *[]*record `json:"spokes"`
	}
	if err := c.call(ctx, http.MethodGet, "/spokes", nil, &answer); err != nil {
		return nil, err
	}
	if answer.Spokes == nil {
		return nil, &answerError{call: "GET /spokes", status: http.StatusOK, text: "without a list of spokes"}
	}
	return *answer.Spokes, nil
}

// spoke reads one record by its id; a code is not found.
func (c *hubClient) spoke(ctx context.Context, id string) (*record, error) {
	var answer struct {
		Spoke *record `json:"spoke"`
	}
	call := "/spokes/" + url.PathEscape(id)
	if err := c.call(ctx, http.MethodGet, call, nil, &answer); err != nil {
		return nil, err
	}
	if answer.Spoke == nil || answer.Spoke.SpokeID != id {
		return nil, &answerError{call: "GET " + call, status: http.StatusOK, text: "without the spoke"}
	}
	return answer.Spoke, nil
}

// approve grants. It may go on for minutes on the hub, while the record changes at once: after a time-out the record
// tells what happened, and approving again blindly never helps. Only this answer has a token of the hub's OPAL server.
func (c *hubClient) approve(ctx context.Context, id string, g grant) (*issuedOPAL, error) {
	var answer struct {
		OPAL *issuedOPAL `json:"opalToken"`
	}
	err := c.call(ctx, http.MethodPost, "/spokes/"+url.PathEscape(id)+"/approve", g, &answer)
	return answer.OPAL, err
}

func (c *hubClient) suspend(ctx context.Context, id, reason string) error {
	return c.call(ctx, http.MethodPost, "/spokes/"+url.PathEscape(id)+"/suspend", map[string]string{"reason": reason}, nil)
}

func (c *hubClient) revoke(ctx context.Context, id, reason string) error {
	return c.call(ctx, http.MethodPost, "/spokes/"+url.PathEscape(id)+"/revoke", map[string]string{"reason": reason}, nil)
}
