package hub

import (
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// States of a record.
const (
	Pending   = "pending"
	Approved  = "approved"
	Suspended = "suspended"
	Revoked   = "revoked"
)

// Record is what the hub keeps of a spoke. Optional fields that were not given are null, in the database and in
// answers alike.
type Record struct {
	ObjectID            bson.ObjectID `bson:"_id"`
	SpokeID             string        `bson:"spokeId"`
	InstanceCode        string        `bson:"instanceCode"`
	Name                string        `bson:"name"`
	Description         *string       `bson:"description"`
	BaseURL             string        `bson:"baseUrl"`
	APIURL              string        `bson:"apiUrl"`
	InternalAPIURL      string        `bson:"internalApiUrl"`
	IDPURL              string        `bson:"idpUrl"`
	IDPPublicURL        *string       `bson:"idpPublicUrl"`
	Country             string        `bson:"country"`
	ContactEmail        string        `bson:"contactEmail"`
	PublicKey           *string       `bson:"publicKey"`
	CertificatePEM      *string       `bson:"certificatePEM"`
	Status              string        `bson:"status"`
	ApprovedAt          *time.Time    `bson:"approvedAt"`
	ApprovedBy          *string       `bson:"approvedBy"`
	AllowedPolicyScopes []string      `bson:"allowedPolicyScopes"`
	DataIsolationLevel  string        `bson:"dataIsolationLevel"`
	RegisteredAt        time.Time     `bson:"registeredAt"`
	LastHeartbeat       *time.Time    `bson:"lastHeartbeat"`
	HeartbeatIntervalMs int           `bson:"heartbeatIntervalMs"`
	TrustLevel          string        `bson:"trustLevel"`
	MaxClassification   string        `bson:"maxClassificationAllowed"`
	FederationIDPAlias  *string       `bson:"federationIdPAlias"`
}

// Token lets a spoke send heartbeats.
type Token struct {
	Token     string    `bson:"token"`
	SpokeID   string    `bson:"spokeId"`
	Scopes    []string  `bson:"scopes"`
	IssuedAt  time.Time `bson:"issuedAt"`
	ExpiresAt time.Time `bson:"expiresAt"`
}

// view is the record as the calls of the hub's side show it.
func (r *Record) view() map[string]any {
	return map[string]any{
		"_id": r.ObjectID.Hex(), "spokeId": r.SpokeID, "instanceCode": r.InstanceCode, "name": r.Name,
		"description": r.Description, "baseUrl": r.BaseURL, "apiUrl": r.APIURL, "internalApiUrl": r.InternalAPIURL,
		"idpUrl": r.IDPURL, "idpPublicUrl": r.IDPPublicURL, "country": r.Country, "contactEmail": r.ContactEmail,
		"publicKey": r.PublicKey, "certificatePEM": r.CertificatePEM, "status": r.Status,
		"approvedAt": isoOrNull(r.ApprovedAt), "approvedBy": r.ApprovedBy, "allowedPolicyScopes": list(r.AllowedPolicyScopes),
		"dataIsolationLevel": r.DataIsolationLevel, "registeredAt": iso(r.RegisteredAt),
		"lastHeartbeat": isoOrNull(r.LastHeartbeat), "heartbeatIntervalMs": r.HeartbeatIntervalMs,
		"trustLevel": r.TrustLevel, "maxClassificationAllowed": r.MaxClassification, "federationIdPAlias": r.FederationIDPAlias,
	}
}

func (t *Token) view() map[string]any {
	return map[string]any{"token": t.Token, "expiresAt": iso(t.ExpiresAt), "scopes": list(t.Scopes)}
}

// healthy says whether the last heartbeat is younger than three intervals.
func (r *Record) healthy(now time.Time) bool {
	limit := 3 * time.Duration(r.HeartbeatIntervalMs) * time.Millisecond
	return r.LastHeartbeat != nil && now.Sub(*r.LastHeartbeat) < limit
}

// iso is a time as JavaScript writes it: UTC with three digits of milliseconds.
func iso(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

func isoOrNull(t *time.Time) any {
	if t == nil {
		return nil
	}
	return iso(*t)
}

// list makes a missing list an empty one, since answers never hold null in its place.
func list(values []string) []string {
	if values == nil {
		return []string{}
	}
	return values
}
