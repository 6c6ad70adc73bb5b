package certificates_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestTheAuthoritysOwnInstance has a certificate too, where the manifest names it, which the others take and which is made anew in time.
func TestTheAuthoritysOwnInstance(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const key = "key: ${FLEET_CA_KEY}\n"
	usa := func(more string) map[string]string {
		plain := files(nil)["instances/usa.yaml"]
		return map[string]string{"instances/usa.yaml": strings.Replace(plain, key, key+more, 1)}
	}
	w.load(files(usa("      names: [usa.test, 127.0.0.1]\n")))
	w.settle()
	hub, fra := w.hub.ready(), w.spoke["fra"].ready()
	require.NoError(t, w.shake(hub["ca"].Text(), hub, fra, "usa.test"))
	require.Error(t, w.shake(hub["ca"].Text(), hub, nil, "usa.test"))
	require.True(t, hub["pem"].Secret() && hub["key"].Secret())
	require.NotContains(t, hub, "request")
	info, err := os.Stat(filepath.Join(w.hub.target.Dir, "authority.json"))
	require.NoError(t, err)
	require.EqualValues(t, 0o600, info.Mode().Perm())
	until := w.hub.observe().Facts.Certificates
	require.Len(t, until, 2)
	require.WithinDuration(t, w.clock.Now().Add(90*24*time.Hour), until["fra"], time.Minute)

	w.clock.forward(61 * 24 * time.Hour)
	changes := w.hub.plan()
	require.Equal(t, "certificate of this instance", changes[0].Address)
	require.Contains(t, changes[0].Reason, "two thirds of its life are over")
	now := w.hub.ready()
	require.NotEqual(t, hub["pem"].Text(), now["pem"].Text())
	require.NoError(t, w.shake(hub["ca"].Text(), now, fra, "usa.test"), "the authority is the same")

	w.key = newKey(t) // another authority: everything is signed anew in one run
	w.load(files(usa("      names: [usa.test]\n")))
	w.settle()
	hub = w.hub.ready()
	require.NoError(t, w.shake(hub["ca"].Text(), hub, w.spoke["fra"].ready(), "usa.test"))
	require.Error(t, w.shake(hub["ca"].Text(), hub, w.spoke["fra"].ready(), "127.0.0.1"))

	w.load(files(nil))
	require.NotContains(t, w.hub.ready(), "pem")
}
