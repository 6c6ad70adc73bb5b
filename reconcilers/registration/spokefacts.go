package registration

import (
	"crypto/x509"
	"encoding/pem"
	"time"

	"dive-agent/reconcilers"
)

// How old a heartbeat of an approved spoke may be, as the hub itself judges.
const (
	onlineFor = 60 * time.Second
	lateFor   = 150 * time.Second
)

// spokeFacts is the table of all records, in the order of the verdicts.
func spokeFacts(verdicts []verdict, tokens minted, now time.Time) []reconcilers.SpokeFacts {
	var all []reconcilers.SpokeFacts
	for _, v := range verdicts {
		r := v.record
		f := reconcilers.SpokeFacts{
			Code: shown(r.Code), Instance: v.want.instance, ID: shown(r.SpokeID), State: shown(r.Status), Since: r.RegisteredAt.UTC(),
			Alive: r.alive(now), Certificate: r.certificateEnd(),
		}
		if r.Status == approved && r.ApprovedAt != nil {
			f.Since = r.ApprovedAt.UTC()
		}
		if r.LastHeartbeat != nil {
			f.Heartbeat = r.LastHeartbeat.UTC()
		}
		if r.Status == approved {
			f.Token = tokens[r.SpokeID].ExpiresAt
		}
		all = append(all, f)
	}
	return all
}

// alive is what the heartbeats of an approved spoke say.
func (r *record) alive(now time.Time) string {
	switch {
	case r.Status != approved:
		return ""
	case r.LastHeartbeat == nil || now.Sub(*r.LastHeartbeat) >= lateFor:
		return "silent"
	case now.Sub(*r.LastHeartbeat) >= onlineFor:
		return "late"
	}
	return "online"
}

func (r *record) certificateEnd() time.Time {
	text, _ := r.has("certificatePEM")
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return time.Time{}
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return time.Time{}
	}
	return certificate.NotAfter.UTC()
}
