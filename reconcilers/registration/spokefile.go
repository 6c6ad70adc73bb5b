package registration

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"dive-agent/atomicfile"
	"dive-agent/desired"
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
	HubName   string    `json:"hubName,omitempty"` // the name the hub has, as it answered
	Token     string    `json:"token,omitempty"`
	ExpiresAt time.Time `json:"expiresAt,omitzero"`
}

// readKept reads what is kept. A file that cannot be read as such is put aside: the hub gives id and token again.
func readKept(dir string) (kept, error) {
	var k kept
	file := filepath.Join(dir, keptFile)
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return k, nil
	}
	if err != nil {
		return k, fmt.Errorf("read what is kept of the registration: %w", err)
	}
	if json.Unmarshal(data, &k) == nil {
		return k, nil
	}
	if err := os.Rename(file, file+".corrupt"); err != nil {
		return kept{}, fmt.Errorf("put %s aside, which is no JSON: %w", file, err)
	}
	return kept{}, nil
}

func (k kept) write(dir string) error {
	data, err := json.MarshalIndent(k, "", "  ")
	if err != nil {
		return err
	}
	if _, err := atomicfile.Write(filepath.Join(dir, keptFile), append(data, '\n'), atomicfile.Options{Mode: 0o600}); err != nil {
		return fmt.Errorf("keep the registration: %w", err)
	}
	return nil
}

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
	return outputs
}
