package registration_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/reconcilers"
	"dive-agent/reconcilers/internal/lab"
	"dive-agent/reconcilers/registration"
	"dive-agent/testbed/gitserver"
	"dive-agent/testbed/hub"
	"dive-agent/testbed/hub/hubtest"
)

// consumerKind is a component of DEU that runs on the token of an OPAL client.
var consumerKind = desired.Kind{Name: "Consumer", New: func() any {
	return &struct {
		Token desired.Expr `yaml:"token"`
	}{}
}}

func publishing(of []string) string {
	if len(of) == 0 {
		return "publish: [handover]\n"
	}
	return "publish: [handover, opal_token, opal_public_key]\n" + strings.Join(of, "")
}

func consumer(of []string) string {
	if len(of) == 0 {
		return ""
	}
	return "    consumer: {kind: Consumer, token: \"${instances.usa.registration.opal_token}\"}\n"
}

func opalManifest(o *lab.OPAL) string {
	key, err := json.Marshal(o.PublicKey)
	if err != nil {
		panic(err)
	}
	return "opal: {url: \"" + o.URL() + "\", masterToken: \"${OPAL_MASTER_TOKEN}\", publicKey: " + string(key) + ", lifetime: 24h}\n"
}

// TestOPALTokens holds tokens of OPAL clients against a real OPAL server.
func TestOPALTokens(t *testing.T) {
	t.Parallel()
	mongod := hubtest.StartMongo(t, true)
	opal := lab.NewOPAL(lab.New(t), gitserver.Files{"policies/a.rego": "package a\n"})
	for _, one := range []struct {
		name string
		test func(t *testing.T, mongod *hubtest.Mongo, opal *lab.OPAL)
	}{
		{"a token is handed over with the approval and renewed with no gap", opalRenewed},
		{"who is suspended gets none anew, who is released does", opalSuspended},
		{"nobody waits for an OPAL server that is away or refuses", opalAway},
		{"without one, what the hub handed out counts, else nothing waits", opalOfTheHub},
		{"a hub that approves at once hands the spoke a token", opalAtOnce},
		{"another key of the server makes other tokens", opalOtherKey}, // the last: the server is another one afterwards
	} {
		t.Run(one.name, func(t *testing.T) { one.test(t, mongod, opal) })
	}
}

// withOPAL is a federation whose hub has an OPAL server.
func withOPAL(t *testing.T, mongod *hubtest.Mongo, opal *lab.OPAL) *federation {
	t.Helper()
	f := newFederation(t, mongod, hub.Config{}, handoverLine, opalManifest(opal))
	f.master(opal.Master)
	return f
}

// master gives the hub's instance its secrets.
func (f *federation) master(token string) {
	f.h.target.Scope = f.h.target.Instance.Scope(map[string]desired.Value{
		"FEDERATION_ADMIN_KEY": desired.Secret(hubtest.AdminKey), "OPAL_MASTER_TOKEN": desired.Secret(token),
	})
}

// handed is the token that is published for DEU; empty: none.
func (f *federation) handed() string {
	f.t.Helper()
	value := f.h.observe().Outputs["opal_token"]
	require.True(f.t, value.Cty().IsKnown())
	entry, ok := value.Entry("deu")
	if !ok {
		return ""
	}
	require.True(f.t, entry.Secret())
	return entry.Text()
}

func addresses(p reconcilers.Plan) (list []string) {
	for _, change := range p.Changes {
		list = append(list, change.Address+": "+change.Reason)
	}
	return list
}

func opalRenewed(t *testing.T, mongod *hubtest.Mongo, opal *lab.OPAL) {
	f := withOPAL(t, mongod, opal)
	f.s.waits("approval by the hub")
	require.Equal(t, []string{
		"spoke DEU: equals the merged manifest of deu", "OPAL token of the hub: none is handed over yet", "OPAL token of DEU: none is handed over yet",
	}, addresses(f.h.plan()))
	outputs, _ := f.h.ready()
	first := f.handed()
	require.NoError(t, opal.Takes(first))
	require.NoError(t, opal.Takes(outputs["opal_own_token"].Text()))
	require.True(t, outputs["opal_own_token"].Secret())
	require.Equal(t, opal.PublicKey, outputs["opal_public_key"].Text())

	f.clock.forward(16*time.Hour - time.Minute)
	require.Empty(t, f.h.plan().Changes)
	woken := watch(t, f.h)
	waitPolls(t, f.world, "GET /api/federation/spokes")
	f.clock.forward(2 * time.Minute)
	awaitWake(t, woken, "two thirds of a token's life")
	plan := strings.Join(addresses(f.h.plan()), "\n")
	require.Contains(t, plan, "OPAL token of DEU: two thirds of its life are over, it ends 20")
	require.NotContains(t, plan, first)
	f.h.ready()
	second := f.handed()
	require.NotEqual(t, first, second)
	require.NoError(t, opal.Takes(first), "the one before is still good")
	require.NoError(t, opal.Takes(second))

	t.Log("a crash after the server made a token loses nothing")
	require.NoError(t, os.WriteFile(filepath.Join(f.h.target.Dir, "opal-tokens.json"), []byte("{"), 0o600))
	f.h.ready()
	require.NoError(t, opal.Takes(f.handed()))
}

func opalSuspended(t *testing.T, mongod *hubtest.Mongo, opal *lab.OPAL) {
	f := withOPAL(t, mongod, opal)
	f.s.waits("approval by the hub")
	f.h.ready()
	first := f.handed()
	spec := f.fleet.Instances["deu"].Components[0].Spec.(*registration.SpokeSpec)
	spec.Standing = "suspended"
	f.h.ready()
	require.Empty(t, f.handed())
	f.clock.forward(17 * time.Hour)
	require.NotContains(t, strings.Join(addresses(f.h.plan()), " "), "OPAL token of DEU")
	spec.Standing = "approved"
	f.h.ready()
	require.NotEqual(t, first, f.handed())
	require.NoError(t, opal.Takes(f.handed()))
	spec.Standing = "revoked"
	f.h.ready()
	require.Empty(t, f.handed())
}

func opalAway(t *testing.T, mongod *hubtest.Mongo, opal *lab.OPAL) {
	f := withOPAL(t, mongod, opal)
	f.master("not the master token")
	f.s.waits("approval by the hub")
	f.h.waits("it refuses the master token (401)")
	outputs, _ := f.s.ready()
	require.NotEmpty(t, outputs["token"].Text(), "the approval was made all the same")
	_, _, err := f.h.pass()
	require.NotContains(t, err.Error(), "not the master token")
	spec := f.h.target.Component.Spec.(*registration.ApprovalsSpec)
	right := spec.OPAL.PublicKey
	_, another, err := lab.NewKey()
	require.NoError(t, err)
	f.master(opal.Master)
	spec.OPAL.PublicKey = desired.Literal(another)
	f.h.waits("it signs with another key than opal.publicKey")
	require.Empty(t, f.handed())
	spec.OPAL.PublicKey = right
	f.master("not the master token")
	_, _, err = f.h.pass()
	var wait *reconcilers.WaitError
	require.ErrorAs(t, err, &wait)
	require.Contains(t, wait.Do, "OPAL_AUTH_MASTER_TOKEN")
	f.cross()
	require.Empty(t, f.handed())

	f.master(opal.Master)
	opal.Stop("opal-server")
	f.h.waits("a token of the OPAL server at http://127.0.0.1:")
	opal.Start("opal-server")
	eventually(t, "the server answers again", func() bool {
		return opal.Takes("nothing") != nil && strings.Contains(opal.Takes("nothing").Error(), "401")
	})
}

func opalOfTheHub(t *testing.T, mongod *hubtest.Mongo, opal *lab.OPAL) {
	f := newFederation(t, mongod, hub.Config{OPALURL: opal.URL(), OPALMasterToken: opal.Master}, handoverLine, "opal: {url: \"\", masterToken: \"${OPAL_MASTER_TOKEN}\", publicKey: \"\"}\n")
	f.master(opal.Master)
	require.Empty(t, f.h.observe().Outputs["opal_public_key"].Text())
	f.s.waits("approval by the hub")
	value, ok := f.h.observe().Outputs["opal_token"].Entry("deu")
	require.True(t, ok && value.Known() && value.Text() == "", "known before there is one: nothing waits for it")
	f.h.ready()
	require.NoError(t, opal.Takes(f.handed()))
}

func opalAtOnce(t *testing.T, mongod *hubtest.Mongo, opal *lab.OPAL) {
	w := newWorld(t, mongod, hub.Config{AutoApprove: true, OPALURL: opal.URL(), OPALMasterToken: opal.Master})
	s := w.spoke("deu", "Germany")
	outputs, _ := s.ready()
	require.True(t, outputs["opal_token"].Secret())
	require.NoError(t, opal.Takes(outputs["opal_token"].Text()))
	w.clock.forward(25 * time.Hour)
	again, _ := s.ready()
	require.Equal(t, outputs["opal_token"].Text(), again["opal_token"].Text())
	require.NotEqual(t, outputs["token"].Text(), again["token"].Text())
}

func opalOtherKey(t *testing.T, mongod *hubtest.Mongo, opal *lab.OPAL) {
	f := withOPAL(t, mongod, opal)
	f.s.waits("approval by the hub")
	f.h.ready()
	first := f.handed()
	opal.Renew()
	require.Error(t, opal.Takes(first))
	spec := f.h.target.Component.Spec.(*registration.ApprovalsSpec)
	spec.OPAL.PublicKey, spec.OPAL.URL = desired.Literal(opal.PublicKey), desired.Literal(opal.URL())
	require.Empty(t, f.handed(), "what the server does not take is handed to nobody")
	require.Contains(t, strings.Join(addresses(f.h.plan()), "\n"), "OPAL token of DEU: the OPAL server has another key")
	f.h.ready()
	require.NoError(t, opal.Takes(f.handed()))
}
