package hub

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/mail"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// registration is the body of POST /register. Fields that are not here are ignored.
type registration struct {
	InstanceCode             string   `json:"instanceCode"`
	Name                     string   `json:"name"`
	Description              *string  `json:"description"`
	BaseURL                  string   `json:"baseUrl"`
	APIURL                   string   `json:"apiUrl"`
	IDPURL                   string   `json:"idpUrl"`
	IDPPublicURL             *string  `json:"idpPublicUrl"`
	PublicKey                *string  `json:"publicKey"`
	CertificatePEM           *string  `json:"certificatePEM"`
	RequestedScopes          []string `json:"requestedScopes"`
	ContactEmail             string   `json:"contactEmail"`
	PartnerPreApproved       bool     `json:"partnerPreApproved"`
	PartnerTrustLevel        string   `json:"partnerTrustLevel"`
	PartnerMaxClassification string   `json:"partnerMaxClassification"`
	SkipValidation           bool     `json:"skipValidation"`
}

type issue struct {
	Path    []string `json:"path"`
	Message string   `json:"message"`
}

var (
	trustLevels     = []string{"development", "partner", "bilateral", "national"}
	classifications = []string{"UNCLASSIFIED", "CONFIDENTIAL", "SECRET", "TOP_SECRET"}
	isolationLevels = []string{"full", "filtered", "minimal"}
)

func (q *registration) issues() []issue {
	found := []issue{}
	check := func(ok bool, field, message string) {
		if !ok {
			found = append(found, issue{Path: []string{field}, Message: message})
		}
	}
	length := utf8.RuneCountInString(q.Name)
	check(utf8.RuneCountInString(q.InstanceCode) == 3, "instanceCode", "must have exactly 3 characters")
	check(length >= 3 && length <= 100, "name", "must have 3 to 100 characters")
	check(isURL(q.BaseURL), "baseUrl", "is no URL")
	check(isURL(q.APIURL), "apiUrl", "is no URL")
	check(isURL(q.IDPURL), "idpUrl", "is no URL")
	check(q.IDPPublicURL == nil || isURL(*q.IDPPublicURL), "idpPublicUrl", "is no URL")
	check(len(q.RequestedScopes) > 0, "requestedScopes", "needs at least one")
	_, err := mail.ParseAddress(q.ContactEmail)
	check(err == nil && strings.Contains(q.ContactEmail, "."), "contactEmail", "is no address")
	check(q.PartnerTrustLevel == "" || slices.Contains(trustLevels, q.PartnerTrustLevel), "partnerTrustLevel", "is no trust level")
	check(q.PartnerMaxClassification == "" || slices.Contains(classifications, q.PartnerMaxClassification),
		"partnerMaxClassification", "is no classification")
	return found
}

func isURL(text string) bool {
	u, err := url.Parse(text)
	return err == nil && u.Scheme != "" && u.Host != ""
}

// register answers as the real hub does, its oddities included: a body that is no JSON is an error of the server.
func (h *Hub) register(w http.ResponseWriter, r *http.Request) {
	var request registration
	if err := readBody(r, &request); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) || errors.Is(err, io.ErrUnexpectedEOF) {
			fail(w, "Internal Server Error", err)
			return
		}
		answer(w, http.StatusBadRequest, fields{"error": "Validation failed", "details": []issue{{Path: []string{}, Message: err.Error()}}})
		return
	}
	if issues := request.issues(); len(issues) > 0 {
		answer(w, http.StatusBadRequest, fields{"error": "Validation failed", "details": issues})
		return
	}
	request.InstanceCode = strings.ToUpper(request.InstanceCode)
	if !request.SkipValidation {
		if err := dialIDP(r.Context(), request.IDPURL); err != nil {
			answer(w, http.StatusBadRequest, fields{
				"error":   "IdP endpoint validation failed",
				"details": fields{"tls": []string{err.Error()}, "warnings": []string{}},
			})
			return
		}
	}
	record, err := h.findOrMake(r.Context(), &request)
	if err != nil {
		fail(w, "Registration failed", err)
		return
	}
	h.Log.Info("registration", "code", record.InstanceCode, "spoke", record.SpokeID, "status", record.Status)
	h.answerRegistration(w, r, record, &request)
}

// findOrMake gives the record of a known code as it is, whatever the request says, unless it is revoked: then that
// one is forgotten and a new one made.
func (h *Hub) findOrMake(ctx context.Context, request *registration) (*Record, error) {
	known, err := h.Store.SpokeByCode(ctx, request.InstanceCode)
	switch {
	case err == nil && known.Status != Revoked:
		return known, nil
	case err == nil:
		if err := h.Store.Delete(ctx, known.SpokeID); err != nil {
			return nil, err
		}
	case !errors.Is(err, ErrNotFound):
		return nil, err
	}
	if request.SkipValidation { // the verdict is skipped, the connection is not
		if err := dialIDP(ctx, request.IDPURL); err != nil {
			h.Log.Warn("identity provider of a new spoke", "code", request.InstanceCode, "error", err.Error())
		}
	}
	code := strings.ToLower(request.InstanceCode)
	record := &Record{
		ObjectID: bson.NewObjectID(), SpokeID: "spoke-" + code + "-" + randomHex(4), InstanceCode: request.InstanceCode,
		Name: request.Name, Description: request.Description, BaseURL: request.BaseURL, APIURL: request.APIURL,
		InternalAPIURL: "https://dive-spoke-" + code + "-backend:4000", IDPURL: request.IDPURL,
		IDPPublicURL: request.IDPPublicURL, Country: request.InstanceCode, ContactEmail: request.ContactEmail,
		PublicKey: request.PublicKey, CertificatePEM: decoded(request.CertificatePEM), Status: Pending,
		AllowedPolicyScopes: []string{}, DataIsolationLevel: "minimal", RegisteredAt: h.Now(),
		HeartbeatIntervalMs: 30000, TrustLevel: "development", MaxClassification: "UNCLASSIFIED",
	}
	return record, h.Store.Save(ctx, record)
}

// answerRegistration approves at once where the hub or the request says so, and answers 201 whatever comes of it: how the
// spoke stands is in the answer's status.
func (h *Hub) answerRegistration(w http.ResponseWriter, r *http.Request, record *Record, request *registration) {
	var token, opal any
	if h.AutoApprove || request.PartnerPreApproved {
		grant := approval{AllowedScopes: request.RequestedScopes, TrustLevel: "development", MaxClassification: "SECRET", DataIsolationLevel: "filtered"}
		by := "auto-approval-system"
		if request.PartnerPreApproved {
			by = "vault-partner-" + request.InstanceCode
			grant.TrustLevel = cmp.Or(request.PartnerTrustLevel, grant.TrustLevel)
			grant.MaxClassification = cmp.Or(request.PartnerMaxClassification, grant.MaxClassification)
		}
		if approved, err := h.doApprove(r.Context(), record.SpokeID, by, grant); err != nil {
			h.Log.Warn("automatic approval", "spoke", record.SpokeID, "error", err.Error())
		} else {
			record, opal = approved, h.opalToken(r.Context())
		}
	}
	if fresh, err := h.Store.SpokeByCode(r.Context(), record.InstanceCode); err == nil {
		record = fresh
	}
	if record.Status == Approved {
		if live, _, err := h.liveToken(r.Context(), record); err == nil {
			token = live.view()
		}
	}
	message := "Registration pending approval. You will receive a token once approved."
	switch record.Status {
	case Approved:
		message = "Registration approved with bidirectional federation."
	case Suspended:
		message = "Registration failed - spoke suspended due to federation issues. Contact administrator."
	}
	answer(w, http.StatusCreated, fields{
		"success": true,
		"spoke": fields{
			"spokeId": record.SpokeID, "instanceCode": record.InstanceCode, "name": record.Name,
			"status": record.Status, "federationIdPAlias": record.FederationIDPAlias, "message": message,
		},
		"token": token, "opalToken": opal,
	})
}

// dialIDP connects to the identity provider with TLS and takes any certificate, as the real hub does.
func dialIDP(ctx context.Context, idpURL string) error {
	u, err := url.Parse(idpURL)
	if err != nil {
		return err
	}
	port := cmp.Or(u.Port(), "443")
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	dialer := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}} // one of the hub's habits
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return err
	}
	return conn.Close()
}

func decoded(certificate *string) *string {
	if certificate == nil {
		return nil
	}
	if raw, err := base64.StdEncoding.DecodeString(*certificate); err == nil {
		text := string(raw)
		return &text
	}
	return certificate
}
