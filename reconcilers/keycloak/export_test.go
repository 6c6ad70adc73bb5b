package keycloak

import (
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	tfjson "github.com/hashicorp/terraform-json"
	"github.com/stretchr/testify/require"

	"dive-agent/reconcilers"
)

func (w *world) exports() []string {
	w.t.Helper()
	names, err := filepath.Glob(filepath.Join(w.target.Dir, "exports", w.realm+"-*.json"))
	require.NoError(w.t, err)
	return names
}

// Before something of a realm is deleted the realm is exported, and nothing is deleted when that fails.
func exported(t *testing.T, b *bed) {
	f := newFront(t, b)
	w := f.through(t, b, "exports: 2\n")
	w.drive()
	w.spec.Variables["title"] = tree(t, "Another title")
	w.drive()
	require.Empty(t, w.exports(), "nothing was deleted")

	w.spec.Variables["roles"] = tree(t, "[reader]")
	f.on(func(rw http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/partial-export") {
			rw.WriteHeader(http.StatusInternalServerError)
			return true
		}
		return false
	})
	_, plan := w.look()
	require.Equal(t, []string{`delete keycloak_role.each["writer"]`}, printOf(plan.Changes))
	progress := &steps{}
	_, err := w.reconciler().Apply(t.Context(), w.target, plan, progress)
	require.ErrorContains(t, err, "export realm "+w.realm+" before something of it is deleted (nothing was)")
	require.ErrorContains(t, err, "500 Internal Server Error")
	require.Error(t, progress.ended[`keycloak_role.each["writer"]`])
	require.Contains(t, w.picture(t), "roles writer")
	require.Empty(t, w.exports())

	f.on(nil)
	w.drive()
	require.NotContains(t, w.picture(t), "roles writer")
	require.Len(t, w.exports(), 1)
	info, err := os.Stat(w.exports()[0])
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	content, err := os.ReadFile(w.exports()[0])
	require.NoError(t, err)
	var realm struct {
		Realm   string
		Roles   struct{ Realm []struct{ Name string } }
		Clients []struct{ ClientID, Secret string }
	}
	require.NoError(t, json.Unmarshal(content, &realm))
	require.Equal(t, w.realm, realm.Realm)
	require.Contains(t, realm.Roles.Realm, struct{ Name string }{"writer"}, "as it was before")
	require.Contains(t, realm.Clients, struct{ ClientID, Secret string }{"app", "**********"})
	require.NotContains(t, string(content), clientSecret)

	oldest := w.exports()[0]
	for _, roles := range []string{"[other]", "[third]"} {
		w.clock.move(time.Minute)
		w.spec.Variables["roles"] = tree(t, roles)
		w.drive()
	}
	require.Len(t, w.exports(), 2)
	require.NotContains(t, w.exports(), oldest)

	w.spec.Exports = 0
	w.clock.move(time.Minute)
	w.spec.Variables["roles"] = tree(t, "[]")
	before := w.exports()
	w.drive()
	require.Equal(t, before, w.exports())
}

// A module that is given nobody who may export has its destroys Blocked; a client with a service account may.
func notExported(t *testing.T, b *bed) {
	w := newWorld(t, b, "")
	w.drive()
	l, err := w.reconciler().open(w.target)
	require.NoError(t, err)
	l.in.admin.password = ""
	r := newRun(l, &saved{inputs: l.in, plan: &tfjson.Plan{ResourceChanges: []*tfjson.ResourceChange{{
		Mode: tfjson.ManagedResourceMode, Type: "keycloak_role",
		Change: &tfjson.Change{Actions: tfjson.Actions{tfjson.ActionDelete}, Before: map[string]any{"realm_id": w.realm}},
	}}}}, &steps{})
	var blocked *reconcilers.BlockedError
	require.ErrorAs(t, r.export(t.Context()), &blocked)
	require.Equal(t, "ExportImpossible", blocked.Reason)
	require.Contains(t, blocked.Do, "{identity: {exports: 0}}")

	id := "exporter-" + strings.ToLower(w.realm)
	status, _ := b.admin(t, http.MethodPost, "/master/clients", map[string]any{
		"clientId": id, "secret": clientSecret, "serviceAccountsEnabled": true, "standardFlowEnabled": false, "directAccessGrantsEnabled": false,
	})
	require.Equal(t, http.StatusCreated, status)
	uuid := b.list(t, "/master/clients?clientId="+id)[0]["id"].(string)
	defer b.admin(t, http.MethodDelete, "/master/clients/"+uuid, nil)
	l.in.variables[clientVariable], l.in.variables[clientSecretVariable] = id, clientSecret
	require.Error(t, r.export(t.Context()), "it has no role yet")
	require.Empty(t, w.exports())
	var account, role map[string]any
	_, answer := b.admin(t, http.MethodGet, "/master/clients/"+uuid+"/service-account-user", nil)
	require.NoError(t, json.Unmarshal(answer, &account))
	_, answer = b.admin(t, http.MethodGet, "/master/roles/admin", nil)
	require.NoError(t, json.Unmarshal(answer, &role))
	status, _ = b.admin(t, http.MethodPost, "/master/users/"+account["id"].(string)+"/role-mappings/realm", []any{role})
	require.Equal(t, http.StatusNoContent, status)
	require.NoError(t, r.export(t.Context()))
	require.Len(t, w.exports(), 1)

	l.in.variables[clientSecretVariable] = "wrong-Secret-99cc"
	require.True(t, errors.As(r.export(t.Context()), &blocked))
	require.Equal(t, "WrongPassword", blocked.Reason)
}
