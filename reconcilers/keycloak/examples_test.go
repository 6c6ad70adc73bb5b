package keycloak

import (
	"encoding/base64"
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/terraform-exec/tfexec"
	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

const userPassword = "User-Secret-Password-1"

// The modules of the example fleet. Their realms have the names of countries; a test takes one that nobody has.
func examples(t *testing.T, b *bed) {
	common := `
service: keycloak
module: terraform
outputs: [realm_id, realm_name, client_id, client_secret, issuer]
variables:
  instance_code: ${code}
  instance_name: Somewhere
  keycloak_admin_password: ${ADMIN_PASSWORD}
  client_secret: ${CLIENT_SECRET}
  test_user_password: ${USER_PASSWORD}
  app_url: ${app}
  api_url: https://localhost:4011
  idp_url: https://localhost:8411
`
	for name, more := range map[string]string{
		"spoke": "  hub_url: https://hub.example:8443\n  hub_client_secret: ${CLIENT_SECRET}\n  partner_client_secret: ${CLIENT_SECRET}\n",
		"hub":   "  partners: {FRA: {url: 'https://fra.example:8443'}}\n  partner_client_secrets: {FRA: '${CLIENT_SECRET}'}\n  client_secrets: {FRA: '${CLIENT_SECRET}'}\n",
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, b, "")
			w.spec = decode(t, common+more)
			code := letters()
			w.realm = "dive-v3-broker-" + strings.ToLower(code)
			w.values["code"], w.values["app"] = desired.String(code), desired.String("https://localhost:3011")
			w.values["USER_PASSWORD"] = desired.Secret(userPassword)
			w.source("../../examples/desired/blueprints/" + name)
			example(t, w)
		})
	}
}

func letters() string {
	var code [4]byte
	for i := range code {
		code[i] = 'A' + byte(rand.IntN(26))
	}
	return string(code[:])
}

func example(t *testing.T, w *world) {
	made := w.drive()
	resources := 0
	for _, line := range made {
		require.True(t, strings.HasPrefix(line, "create "), "the second plan is not empty: %s", line)
		if !strings.HasPrefix(line, "create output.") {
			resources++
		}
	}
	require.GreaterOrEqual(t, resources, 60)
	observed, _ := w.look()
	require.Equal(t, w.realm, observed.Outputs["client_id"].Text())
	require.Equal(t, "https://localhost:8411/realms/"+w.realm, observed.Outputs["issuer"].Text())
	require.True(t, observed.Outputs["client_secret"].Secret())

	signIn(t, w)

	w.set("app", desired.String("https://localhost:3999"))
	changed := w.drive()
	require.NotEmpty(t, changed)
	for _, line := range changed {
		require.True(t, strings.HasPrefix(line, "update "), line)
	}

	if filepath.Base(t.Name()) == "spoke" {
		takeOver(t, w, resources)
	} else {
		partners(t, w)
	}
	w.destroy()
	require.Equal(t, "no realm", w.picture(t))
}

// partners lets a spoke join and leave the hub, as its blueprint's expression gives them. The secret is not known yet.
func partners(t *testing.T, w *world) {
	const deu = `keycloak_oidc_identity_provider.partner["DEU"]`
	before := w.spec.Variables["partners"]
	w.spec.Variables["partners"] = tree(t, "{FRA: {url: 'https://fra.example:8443'}, DEU: {url: 'http://localhost:8091', backchannel_url: 'http://deu:8091'}}")
	_, plan := w.look()
	require.Equal(t, reconcilers.Create, find(t, plan, deu).Action)
	for _, c := range plan.Changes {
		require.False(t, c.Destroys, c.Address)
	}
	w.drive()
	require.Len(t, w.bed.list(t, "/"+w.realm+"/identity-provider/instances"), 2)

	w.spec.Variables["partners"] = before
	_, plan = w.look()
	require.Equal(t, reconcilers.Delete, find(t, plan, deu).Action)
	require.True(t, find(t, plan, deu).Destroys, "a spoke that leaves waits for approval")
	w.drive()
	require.Len(t, w.bed.list(t, "/"+w.realm+"/identity-provider/instances"), 1)
}

// signIn gets a token for a test user and looks at what policies decide on.
func signIn(t *testing.T, w *world) {
	code := strings.ToLower(w.values["code"].Text())
	resp, err := http.PostForm(w.bed.url+"/realms/"+w.realm+"/protocol/openid-connect/token", url.Values{
		"client_id": {w.realm}, "client_secret": {clientSecret}, "grant_type": {"password"}, "scope": {"openid"},
		"username": {"testuser-" + code + "-4"}, "password": {userPassword},
	})
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, http.StatusOK, resp.StatusCode)
	var answer struct {
		Token string `json:"access_token"`
	}
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&answer))
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(answer.Token, ".")[1])
	require.NoError(t, err)
	var claims map[string]any
	require.NoError(t, json.Unmarshal(payload, &claims))
	for name, want := range map[string]any{
		"clearance": "SECRET", "countryOfAffiliation": strings.ToUpper(code), "issuerCountry": strings.ToUpper(code),
		"uniqueID": "testuser-" + code + "-4", "groups": []any{"clearance-secret"},
	} {
		require.Equal(t, want, claims[name], name)
	}
	require.ElementsMatch(t, []any{"NATO-COSMIC", "FVEY"}, claims["acpCOI"])
	require.Contains(t, claims["roles"], "dive-user")
	require.Contains(t, claims["aud"], "dive-v3-backend")
}

// takeOver forgets the state and imports the realm as it is.
func takeOver(t *testing.T, w *world, resources int) {
	w.spec.Adopt = true
	w.source("../../examples/desired/blueprints/spoke")
	begun := time.Now()
	_, plan := w.look()
	creates := 0
	for _, c := range plan.Changes {
		require.False(t, c.Destroys, c.Address)
		if c.Action == reconcilers.Create && !strings.HasPrefix(c.Address, "output.") {
			creates++
		}
	}
	require.Less(t, creates, resources/3, "what can be imported is imported")
	_, err := w.reconciler().Apply(t.Context(), w.target, plan, &steps{})
	require.NoError(t, err)
	plans := slices.DeleteFunc(w.commands(), func(command string) bool { return command != "plan" })
	t.Logf("%d resources taken over in %.1f s, init and %d plans included", resources-creates, time.Since(begun).Seconds(), len(plans))
	require.LessOrEqual(t, len(plans), 3, "the parents are known by the module's text, not by a plan for each of their generations")
	w.drive()
}

// destroy does what an operator does who wants the realm gone.
func (w *world) destroy() {
	w.t.Helper()
	l, err := w.reconciler().open(w.target)
	require.NoError(w.t, err)
	require.NoError(w.t, l.in.locate(w.t.Context(), w.target, w.spec))
	l.in.tell(l.module)
	require.NoError(w.t, l.work.prepare(w.t.Context()))
	data, err := json.Marshal(l.in.variables)
	require.NoError(w.t, err)
	require.NoError(w.t, write(filepath.Join(l.work.module, variablesFile), data))
	require.NoError(w.t, l.work.tf.Destroy(w.t.Context(), tfexec.Parallelism(1))) // as an apply that deletes flows does
}
