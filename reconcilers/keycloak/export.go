package keycloak

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	tfjson "github.com/hashicorp/terraform-json"

	"dive-agent/reconcilers"
)

// exportLimit is for the realms of a plan to be exported.
const exportLimit = 2 * time.Minute

// losing names the realms in which a plan deletes or replaces something; managed are the component's own.
func losing(plan *tfjson.Plan, managed []string) []string {
	var realms []string
	for _, rc := range plan.ResourceChanges {
		if actions := rc.Change.Actions; rc.Mode != tfjson.ManagedResourceMode || !actions.Delete() && !actions.Replace() {
			continue
		}
		before, _ := rc.Change.Before.(map[string]any)
		name := wish(before).text("realm_id")
		if rc.Type == "keycloak_realm" {
			name = wish(before).text("realm")
		}
		if name != "" {
			realms = append(realms, name)
		} else {
			realms = append(realms, managed...)
		}
	}
	slices.Sort(realms)
	return slices.Compact(realms)
}

// export writes what a realm has into the component's folder before something of it is deleted. A realm that is not there
// has nothing to lose. Nothing is deleted when it fails.
func (r *run) export(ctx context.Context) error {
	realms := losing(r.plan.plan, r.record.Realms)
	if len(realms) == 0 || r.spec.Exports == 0 {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, exportLimit)
	defer cancel()
	if err := r.connect(limited); err != nil {
		return err
	}
	if err := r.enter(limited); err != nil {
		return err
	}
	r.server.http.Timeout = exportLimit
	for _, realm := range realms {
		if err := r.exportRealm(limited, realm); err != nil && !errors.Is(err, errAbsent) {
			return fmt.Errorf("export realm %s before something of it is deleted (nothing was): %w", realm, err)
		}
	}
	return nil
}

// enter signs in as the module does: as the administrator, or as a client with a service account.
func (l *look) enter(ctx context.Context) error {
	client, _ := l.in.variables[clientVariable].(string)
	secret, _ := l.in.variables[clientSecretVariable].(string)
	var err error
	switch {
	case l.in.account.id != "":
		err = l.server.signIn(ctx, l.in)
	case l.in.admin.password != "":
		_, err = l.signIn(ctx)
		return err
	case client != "" && secret != "":
		err = l.server.loginClient(ctx, client, secret)
	default:
		return &reconcilers.BlockedError{
			Reason:  "ExportImpossible",
			Message: "the realm is exported before something of it is deleted, and nobody is known who may do that: the module is given neither keycloak_admin_password nor keycloak_client_id with keycloak_client_secret",
			Do:      "Give the module these variables, or merge " + l.mergeLine("exports: 0") + " to do without",
		}
	}
	if errors.Is(err, errRefused) {
		policy := l.notAccepted(l.deps.Redact(err.Error()))
		return errors.Join(policy, l.remember(policy))
	}
	return err
}

// exportRealm writes one file and forgets the oldest. Keycloak leaves users out of it, and puts stars for secrets.
func (r *run) exportRealm(ctx context.Context, realm string) error {
	var content json.RawMessage
	query := url.Values{"exportClients": {"true"}, "exportGroupsAndRoles": {"true"}}
	if err := r.server.call(ctx, http.MethodPost, &content, nil, query, "realms", realm, "partial-export"); err != nil {
		return err
	}
	folder := filepath.Join(r.work.dir, "exports")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	name := url.PathEscape(realm) + "-" + r.deps.Clock.Now().UTC().Format("20060102T150405Z") + ".json"
	if err := write(filepath.Join(folder, name), content); err != nil {
		return err
	}
	r.progress.Say("exported realm %s to exports/%s", realm, name)
	return keepNewest(folder, realm, r.spec.Exports)
}

// keepNewest removes the oldest exports of a realm.
func keepNewest(folder, realm string, keep int) error {
	entries, err := os.ReadDir(folder) // sorted by name, and so by time
	if err != nil {
		return err
	}
	ours := regexp.MustCompile("^" + regexp.QuoteMeta(url.PathEscape(realm)) + `-\d{8}T\d{6}Z\.json$`)
	var names []string
	for _, entry := range entries {
		if ours.MatchString(entry.Name()) {
			names = append(names, entry.Name())
		}
	}
	for len(names) > keep {
		if err := os.Remove(filepath.Join(folder, names[0])); err != nil {
			return err
		}
		names = names[1:]
	}
	return nil
}
