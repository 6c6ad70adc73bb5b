package hub

import (
	"context"
	"errors"
	"net/http"
	"strings"
)

// registrationStatus tells anyone the state of a spoke by id or code, and hands out its token.
func (h *Hub) registrationStatus(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("spoke")
	record, err := h.Store.Spoke(r.Context(), name)
	if errors.Is(err, ErrNotFound) {
		record, err = h.Store.SpokeByCode(r.Context(), strings.ToUpper(name))
	}
	if errors.Is(err, ErrNotFound) {
		answer(w, http.StatusNotFound, fields{
			"success": false, "error": "Registration not found",
			"message": "No registration found with this ID or instance code",
		})
		return
	}
	if err != nil {
		fail(w, "Status check failed", err)
		return
	}
	body := fields{
		"success": true, "spokeId": record.SpokeID, "instanceCode": record.InstanceCode,
		"status": record.Status, "registeredAt": iso(record.RegisteredAt),
	}
	switch record.Status {
	case Pending:
		body["message"] = "Registration is pending hub admin approval"
	case Approved:
		token, minted, err := h.liveToken(r.Context(), record)
		if err != nil {
			fail(w, "Status check failed", err)
			return
		}
		body["approvedAt"], body["token"] = isoOrNull(record.ApprovedAt), token.view()
		body["message"] = "Registration approved - token included"
		if minted {
			body["message"] = "Registration approved - new token generated"
		}
	case Suspended:
		body["message"] = "Registration is suspended. Contact hub administrator."
	case Revoked:
		body["message"] = "Registration has been revoked."
	}
	answer(w, http.StatusOK, body)
}

type serviceHealth struct {
	Healthy   *bool   `json:"healthy"`
	LastCheck *string `json:"lastCheck"`
	Error     string  `json:"error"`
}

type heartbeatBody struct {
	SpokeID       *string                  `json:"spokeId"`
	PolicyVersion *string                  `json:"policyVersion"`
	Services      map[string]serviceHealth `json:"services"`
}

func (b *heartbeatBody) valid() bool {
	if b.SpokeID == nil {
		return false
	}
	for _, service := range b.Services {
		if service.Healthy == nil || service.LastCheck == nil {
			return false
		}
	}
	return true
}

// heartbeat reads the spoke's record and writes the whole of it back: what happened to the record meanwhile is undone.
// The token decides who is meant, whatever spokeId says.
func (h *Hub) heartbeat(w http.ResponseWriter, r *http.Request) {
	ctx := context.WithoutCancel(r.Context()) // the real hub does not notice a caller that went away
	bearer, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		answer(w, http.StatusUnauthorized, fields{"error": "Missing or invalid authorization header"})
		return
	}
	token, err := h.Store.Token(ctx, bearer)
	if errors.Is(err, ErrNotFound) {
		answer(w, http.StatusUnauthorized, fields{"error": "Token not found"})
		return
	}
	if err != nil {
		h.crash(err)
	}
	record, err := h.Store.Spoke(ctx, token.SpokeID)
	if err != nil && !errors.Is(err, ErrNotFound) {
		h.crash(err)
	}
	if err != nil || record.Status != Approved {
		answer(w, http.StatusUnauthorized, fields{"error": "Spoke not authorized"})
		return
	}
	var body heartbeatBody
	if err := readBody(r, &body); err != nil || !body.valid() {
		answer(w, http.StatusBadRequest, fields{"error": "Invalid heartbeat data"})
		return
	}
	now := h.Now()
	record.LastHeartbeat = &now
	if err := h.Store.Save(ctx, record); err != nil {
		h.crash(err)
	}
	sync := "behind"
	if body.PolicyVersion != nil && *body.PolicyVersion == h.policyVersion {
		sync = "current"
	}
	answer(w, http.StatusOK, fields{
		"success": true, "serverTime": iso(now), "spokeId": record.SpokeID,
		"instanceCode": record.InstanceCode, "currentPolicyVersion": h.policyVersion, "syncStatus": sync,
	})
}

// crash is how the real hub takes an error of its database in a heartbeat: no answer, and its process ends.
func (h *Hub) crash(err error) {
	h.Log.Error("heartbeat without a database", "error", err.Error())
	if h.Crash != nil {
		h.Crash(err)
	}
	panic(http.ErrAbortHandler)
}

func (h *Hub) policy(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, fields{
		"version": h.policyVersion, "timestamp": iso(h.started), "hash": h.policyVersion,
		"layers": []string{"base", "org", "tenant"},
	})
}

func (h *Hub) health(w http.ResponseWriter, r *http.Request) {
	all, err := h.Store.Spokes(r.Context(), "")
	if err != nil {
		fail(w, "Health check failed", err)
		return
	}
	now, unhealthy := h.Now(), []fields{}
	for _, record := range all {
		if record.Status == Approved && !record.healthy(now) {
			unhealthy = append(unhealthy, fields{
				"spokeId": record.SpokeID, "instanceCode": record.InstanceCode,
				"lastHeartbeat": isoOrNull(record.LastHeartbeat),
			})
		}
	}
	answer(w, http.StatusOK, fields{
		"healthy": len(unhealthy) == 0, "statistics": statistics(all),
		"unhealthySpokes": unhealthy, "policyVersion": h.policyVersion, "timestamp": iso(now),
	})
}
