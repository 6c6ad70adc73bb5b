package hub

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

func (h *Hub) listSpokes(w http.ResponseWriter, r *http.Request) {
	all, err := h.Store.Spokes(r.Context(), "")
	if err != nil {
		fail(w, "Failed to list spokes", err)
		return
	}
	answer(w, http.StatusOK, fields{"spokes": views(all), "statistics": statistics(all)})
}

func (h *Hub) listPending(w http.ResponseWriter, r *http.Request) {
	pending, err := h.Store.Spokes(r.Context(), Pending)
	if err != nil {
		fail(w, "Failed to list pending approvals", err)
		return
	}
	answer(w, http.StatusOK, fields{"pending": views(pending)})
}

// showSpoke takes the id only; a code is not found.
func (h *Hub) showSpoke(w http.ResponseWriter, r *http.Request) {
	record, err := h.Store.Spoke(r.Context(), r.PathValue("spoke"))
	if errors.Is(err, ErrNotFound) {
		answer(w, http.StatusNotFound, fields{"error": "Spoke not found"})
		return
	}
	if err != nil {
		fail(w, "Failed to get spoke details", err)
		return
	}
	healthy := record.healthy(h.Now())
	answer(w, http.StatusOK, fields{"spoke": record.view(), "syncStatus": nil, "health": fields{
		"spokeId": record.SpokeID, "healthy": healthy, "lastCheck": iso(h.Now()), "opaHealthy": healthy, "opalClientConnected": healthy,
	}})
}

type approval struct {
	AllowedScopes      []string `json:"allowedScopes"`
	TrustLevel         string   `json:"trustLevel"`
	MaxClassification  string   `json:"maxClassification"`
	DataIsolationLevel string   `json:"dataIsolationLevel"`
}

func (a *approval) issues() []issue {
	found := []issue{}
	check := func(ok bool, field, message string) {
		if !ok {
			found = append(found, issue{Path: []string{field}, Message: message})
		}
	}
	check(len(a.AllowedScopes) > 0, "allowedScopes", "needs at least one")
	check(slices.Contains(trustLevels, a.TrustLevel), "trustLevel", "is no trust level")
	check(slices.Contains(classifications, a.MaxClassification), "maxClassification", "is no classification")
	check(slices.Contains(isolationLevels, a.DataIsolationLevel), "dataIsolationLevel", "is no isolation level")
	return found
}

func (h *Hub) approve(w http.ResponseWriter, r *http.Request) {
	var grant approval
	if err := readBody(r, &grant); err != nil {
		answer(w, http.StatusBadRequest, fields{"error": "Invalid approval data", "details": []issue{{Path: []string{}, Message: err.Error()}}})
		return
	}
	if issues := grant.issues(); len(issues) > 0 {
		answer(w, http.StatusBadRequest, fields{"error": "Invalid approval data", "details": issues})
		return
	}
	record, err := h.doApprove(r.Context(), r.PathValue("spoke"), "admin", grant)
	if err != nil {
		fail(w, "Approval failed", err)
		return
	}
	ctx := context.WithoutCancel(r.Context()) // the real hub does not notice a caller that went away
	token, err := h.newToken(ctx, record)
	if err != nil {
		fail(w, "Approval failed", err)
		return
	}
	answer(w, http.StatusOK, fields{"success": true, "spoke": record.view(), "token": token.view(), "opalToken": h.opalToken(ctx)})
}

// doApprove grants what it is told, from any state but approved.
func (h *Hub) doApprove(ctx context.Context, id, by string, grant approval) (*Record, error) {
	record, err := h.spoke(ctx, id)
	if err != nil {
		return nil, err
	}
	if record.Status == Approved {
		return nil, fmt.Errorf("Spoke %s is already approved", id) //nolint:staticcheck // the real hub's words
	}
	now := h.Now()
	record.Status, record.ApprovedAt, record.ApprovedBy = Approved, &now, &by
	record.AllowedPolicyScopes, record.TrustLevel = grant.AllowedScopes, grant.TrustLevel
	record.MaxClassification, record.DataIsolationLevel = grant.MaxClassification, grant.DataIsolationLevel
	if err := h.change(ctx, record); err != nil {
		return record, err
	}
	return record, h.link(ctx, record.InstanceCode)
}

// link notes that hub and spoke trust each other, as the real hub does for the policies that it distributes.
func (h *Hub) link(ctx context.Context, spoke string) error {
	own := strings.ToUpper(cmp.Or(h.Code, h.OwnCode, "USA"))
	ctx = context.WithoutCancel(ctx)
	return errors.Join(h.Store.Link(ctx, own, spoke), h.Store.Link(ctx, spoke, own))
}

// change writes the record and then takes the time that the real hub's cascade takes. A caller that goes away
// meanwhile changes nothing: the record is written, and the rest goes on.
func (h *Hub) change(ctx context.Context, record *Record) error {
	if err := h.Store.Save(ctx, record); err != nil {
		return err
	}
	h.Log.Info("spoke", "spoke", record.SpokeID, "status", record.Status)
	pause(ctx, h.CascadeDelay)
	return nil
}

func (h *Hub) suspend(w http.ResponseWriter, r *http.Request) {
	if !hasReason(w, r) {
		return
	}
	record, err := h.spoke(r.Context(), r.PathValue("spoke"))
	if err == nil {
		record.Status = Suspended
		err = errors.Join(h.Store.DeleteTokens(r.Context(), record.SpokeID), h.change(r.Context(), record))
	}
	if err != nil {
		fail(w, "Suspension failed", err)
		return
	}
	answer(w, http.StatusOK, fields{"success": true, "spoke": record.view(), "message": "Spoke suspended. All tokens revoked."})
}

// unsuspend makes a suspended record approved, whatever it was before, and issues no token.
func (h *Hub) unsuspend(w http.ResponseWriter, r *http.Request) {
	record, err := h.spoke(r.Context(), r.PathValue("spoke"))
	if err == nil && record.Status != Suspended {
		answer(w, http.StatusBadRequest, fields{
			"error":   "Unsuspension failed",
			"message": fmt.Sprintf("Spoke %s is not suspended (current status: %s)", record.SpokeID, record.Status),
		})
		return
	}
	if err == nil {
		record.Status = Approved
		err = h.change(r.Context(), record)
	}
	if err != nil {
		fail(w, "Unsuspension failed", err)
		return
	}
	answer(w, http.StatusOK, fields{"success": true, "spoke": record.view(), "message": "Spoke unsuspended."})
}

func (h *Hub) revoke(w http.ResponseWriter, r *http.Request) {
	if !hasReason(w, r) {
		return
	}
	record, err := h.spoke(r.Context(), r.PathValue("spoke"))
	if err == nil {
		record.Status = Revoked
		err = errors.Join(h.Store.DeleteTokens(r.Context(), record.SpokeID), h.change(r.Context(), record))
	}
	if err != nil {
		fail(w, "Revocation failed", err)
		return
	}
	answer(w, http.StatusOK, fields{"success": true, "message": "Spoke permanently revoked."})
}

func (h *Hub) mint(w http.ResponseWriter, r *http.Request) {
	record, err := h.spoke(r.Context(), r.PathValue("spoke"))
	if err == nil && record.Status != Approved {
		err = fmt.Errorf("Spoke %s is not approved (status: %s)", record.SpokeID, record.Status) //nolint:staticcheck // the real hub's words
	}
	var token *Token
	if err == nil {
		token, err = h.newToken(r.Context(), record)
	}
	if err != nil {
		fail(w, "Token generation failed", err)
		return
	}
	answer(w, http.StatusOK, fields{"success": true, "token": token.view()})
}

func hasReason(w http.ResponseWriter, r *http.Request) bool {
	var body struct {
		Reason string `json:"reason"`
	}
	if err := readBody(r, &body); err != nil || body.Reason == "" {
		answer(w, http.StatusBadRequest, fields{"error": "Reason is required"})
		return false
	}
	return true
}

func (h *Hub) spoke(ctx context.Context, id string) (*Record, error) {
	record, err := h.Store.Spoke(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return nil, fmt.Errorf("Spoke %s not found", id) //nolint:staticcheck // the real hub's words
	}
	return record, err
}

// liveToken gives the oldest token that lives, or mints one when none does.
func (h *Hub) liveToken(ctx context.Context, record *Record) (token *Token, minted bool, err error) {
	tokens, err := h.Store.Tokens(ctx, record.SpokeID)
	if err != nil {
		return nil, false, err
	}
	for _, token := range tokens {
		if token.ExpiresAt.After(h.Now()) {
			return token, false, nil
		}
	}
	token, err = h.newToken(ctx, record)
	return token, true, err
}

func (h *Hub) newToken(ctx context.Context, record *Record) (*Token, error) {
	random := make([]byte, 32)
	rand.Read(random)
	token := &Token{
		Token: base64.RawURLEncoding.EncodeToString(random), SpokeID: record.SpokeID, Scopes: list(record.AllowedPolicyScopes),
		IssuedAt: h.Now(), ExpiresAt: h.Now().Add(h.TokenTTL),
	}
	return token, h.Store.SaveToken(ctx, token)
}

func views(records []*Record) []map[string]any {
	shown := make([]map[string]any, len(records))
	for i, record := range records {
		shown[i] = record.view()
	}
	return shown
}

func statistics(records []*Record) fields {
	count := map[string]int{}
	for _, record := range records {
		count[record.Status]++
	}
	return fields{
		"totalSpokes": len(records), "activeSpokes": count[Approved], "pendingApprovals": count[Pending],
		"suspendedSpokes": count[Suspended], "revokedSpokes": count[Revoked], "policySyncErrors": 0,
	}
}
