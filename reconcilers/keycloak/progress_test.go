package keycloak

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/reconcilers"
)

func TestTallyTellsHowFarAnApplyIs(t *testing.T) {
	at := func(kind, action, address string, second float64) message {
		text := fmt.Sprintf(`{"type":%q,"@timestamp":%q,"hook":{"resource":{"addr":%q},"action":%q}}`, kind,
			time.Date(2026, 3, 1, 12, 0, 0, int(second*1e9), time.UTC).Format("2006-01-02T15:04:05.000000Z07:00"), address, action)
		var m message
		require.NoError(t, json.Unmarshal([]byte(text), &m))
		return m
	}
	y := &tally{all: 3}
	tell := func(m message, closed bool) string {
		if !y.hear(m, closed) {
			return ""
		}
		return y.words(m)
	}
	require.Equal(t, "0 of 3 in 0.0 s: create keycloak_realm.a", tell(at("apply_start", "create", "keycloak_realm.a", 0), false))
	require.Equal(t, "0 of 3 in 0.1 s: delete keycloak_role.b", tell(at("apply_start", "delete", "keycloak_role.b", 0.1), false))
	require.Empty(t, tell(at("apply_complete", "delete", "keycloak_role.b", 0.4), false), "half of a replacement")
	require.Equal(t, "0 of 3 in 0.4 s: create keycloak_role.b", tell(at("apply_start", "create", "keycloak_role.b", 0.4), false))
	require.Equal(t, "1 of 3 in 0.7 s; slowest keycloak_realm.a 0.7 s, keycloak_role.b 0.6 s", tell(at("apply_complete", "create", "keycloak_role.b", 0.7), true))
	require.Empty(t, tell(at("apply_complete", "create", "keycloak_realm.a", 0.8), true), "not more than five times in a second")
	require.Equal(t, "2 of 3 in 2.0 s: update keycloak_user.c; slowest keycloak_realm.a 0.8 s, keycloak_role.b 0.6 s", tell(at("apply_start", "update", "keycloak_user.c", 2), false))
	require.Equal(t, "2 of 3 in 12.0 s: update keycloak_user.c; slowest keycloak_user.c 10.0 s, keycloak_realm.a 0.8 s, keycloak_role.b 0.6 s", tell(at("apply_progress", "update", "keycloak_user.c", 12), false))
	require.Equal(t, "2 of 3 in 13.0 s: update keycloak_user.c; slowest keycloak_user.c 11.0 s, keycloak_realm.a 0.8 s, keycloak_role.b 0.6 s", tell(at("apply_errored", "update", "keycloak_user.c", 13), true))

	values := map[string]any{}
	(*lastApply)(nil).tell(values)
	require.Empty(t, values)
	changes := []reconcilers.Change{{Action: reconcilers.Create}, {Action: reconcilers.Create}, {Action: reconcilers.Delete}, {Action: reconcilers.Create, Address: "output.x"}}
	(&lastApply{At: y.began, Took: 13 * time.Second, Changes: madeOf(changes), Slowest: y.slowest}).tell(values)
	require.Equal(t, map[string]any{
		"applied": "2026-03-01T12:00:00Z", "appliedChanges": "2 created, 1 deleted", "applyTook": "13.0 s",
		"applySlowest": "keycloak_user.c 11.0 s, keycloak_realm.a 0.8 s, keycloak_role.b 0.6 s",
	}, values)
}
