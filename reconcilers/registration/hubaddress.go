package registration

import (
	"cmp"
	"fmt"
	"path/filepath"
	"strings"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

// open makes a client of the hub that the address names, or else fleet.yaml.
func (h HubAddress) open(t reconcilers.Target, kept *clients, adminKey string) (*hubClient, error) {
	e := evaluator{scope: t.Scope}
	base, ca, file := e.text("hub.url", h.URL), e.text("hub.ca", h.CA), e.text("hub.caFile", h.CAFile)
	if e.err != nil {
		return nil, e.err
	}
	var fleet desired.HubSpec
	if t.Fleet != nil {
		fleet = t.Fleet.Hub
	}
	base = cmp.Or(base, fleet.URL)
	if !isHTTPS(base) {
		return nil, &reconcilers.BlockedError{
			Reason: "HubURL", Message: fmt.Sprintf("the hub's URL %q is no https:// URL", base),
			Do: "Set hub.url in fleet.yaml, or in the component.",
		}
	}
	if ca == "" && file != "" {
		var err error
		if ca, err = readCA(t, file); err != nil {
			return nil, err
		}
	}
	client, err := kept.get(base, cmp.Or(ca, fleet.CA))
	if err != nil {
		return nil, err
	}
	return &hubClient{base: strings.TrimRight(base, "/"), http: client, adminKey: adminKey}, nil
}

// readCA reads a file of the source folder, which it cannot leave, or of the instance's secrets folder.
func readCA(t reconcilers.Target, file string) (string, error) {
	folder, name := t.SourceDir, file
	if filepath.IsAbs(file) {
		relative, err := filepath.Rel(t.SecretsDir, file)
		if err != nil || t.SecretsDir == "" || !filepath.IsLocal(relative) {
			return "", &reconcilers.BlockedError{
				Reason:  "HubAuthority",
				Message: fmt.Sprintf("hub.caFile %s is neither in the source folder nor in the secrets folder", file),
				Do:      "Give a path relative to the source folder, or below ${instance.secrets_dir}.",
			}
		}
		folder, name = t.SecretsDir, relative
	}
	text, err := reconcilers.ReadInside(folder, name)
	if err != nil {
		return "", fmt.Errorf("read hub.caFile: %w", err)
	}
	return text, nil
}
