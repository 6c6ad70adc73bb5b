package registration

import (
	"path/filepath"
	"time"

	"dive-agent/desired"
	"dive-agent/reconcilers/internal/jsonfile"
)

// keptFile is in the component's private folder, mode 0600: it holds the token.
const keptFile = "registration.json"

// kept is what the spoke's agent remembers of its registration. Losing it loses nothing: the hub gives id and token
// again.
type kept struct {
	SpokeID   string    `json:"spokeId"`
	Status    string    `json:"status"`
	Sent      []field   `json:"sent"`              // what the record was made from
	Found     bool      `json:"found,omitempty"`   // the record was there before this agent registered
	Ended     bool      `json:"ended,omitempty"`   // revoked while its manifest said so
	HubName   string    `json:"hubName,omitempty"` // the name the hub has, as it answered
	Token     string    `json:"token,omitempty"`
	ExpiresAt time.Time `json:"expiresAt,omitzero"`
	OPAL      string    `json:"opalToken,omitempty"` // came with the registration
}

// readKept reads what is kept. A file that cannot be read as such is put aside: the hub gives id and token again.
func readKept(dir string) (kept, error) {
	return jsonfile.Read[kept](filepath.Join(dir, keptFile), "read what is kept of the registration")
}

func (k kept) write(dir string) error {
	return jsonfile.Write(filepath.Join(dir, keptFile), "keep the registration", k)
}

func (k kept) issued() issued { return issued{Token: k.Token, ExpiresAt: k.ExpiresAt} }

// take keeps the token of an answer, when there is one.
func (k *kept) take(token *issued) {
	if token != nil {
		k.Token, k.ExpiresAt = token.Token, token.ExpiresAt
	}
}

// outputs are published as far as they exist.
func (k kept) outputs() map[string]desired.Value {
	outputs := map[string]desired.Value{}
	if k.SpokeID != "" {
		outputs["spoke_id"] = desired.String(k.SpokeID)
		outputs["status"] = desired.String(k.Status)
	}
	if k.Token != "" {
		outputs["token"] = desired.Secret(k.Token)
		outputs["token_expires"] = desired.String(k.ExpiresAt.UTC().Format(time.RFC3339))
	}
	if k.OPAL != "" {
		outputs[opalTokenOutput] = desired.Secret(k.OPAL)
	}
	return outputs
}
