package verify_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/reconcilers/internal/lab"
	"dive-agent/testbed"
	"dive-agent/testbed/gitserver"
)

const allowed = "package dive.authorization\n\nimport rego.v1\n\ndefault allow := "

// TestPolicies: a real OPAL server that follows a real repository, an OPAL client on a token of it, and OPA.
func TestPolicies(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	opal := lab.NewOPAL(w.lab, gitserver.Files{"policies/authorization.rego": allowed + "false\n"})
	first := opal.Repo.Head("main")
	token, server := opal.Token(time.Hour), opal.URL()
	r := w.reconciler()
	check := func(token string) string {
		w.target.Scope = w.target.Scope.With(map[string]desired.Value{"TOKEN": desired.Secret(token)})
		w.checks(fmt.Sprintf("checks:\n  - {name: policies, policy: {service: opa, server: %q, token: \"${TOKEN}\"}}\n", server))
		saw, _ := w.saw(r)
		require.NotContains(t, saw["policies"], token[:20])
		return saw["policies"]
	}
	require.Equal(t, "false waits for service opa to run", check(token))

	opal.Client("a.token.nobody-ever-made")
	testbed.Eventually(t, time.Minute, "OPA is filled by nobody", func() error {
		if saw := check(token); saw != fmt.Sprintf("false the OPAL server hands out the policies of %s, OPA has none of OPAL's", first[:7]) {
			return fmt.Errorf("%s", saw)
		}
		return nil
	})
	require.Equal(t, "false the OPAL server at "+server+" refuses the token (401)", check("a.token.nobody-ever-made"))

	opal.Client(token)
	testbed.Eventually(t, time.Minute, "the first policies are in OPA", func() error {
		if saw := check(token); saw != "true policies of "+first[:7] {
			return fmt.Errorf("%s", saw)
		}
		return nil
	})
	second := opal.Repo.Commit(t, "main", "Allow", gitserver.Files{"policies/authorization.rego": allowed + "true\n"})
	testbed.Eventually(t, time.Minute, "the second ones", func() error {
		if saw := check(token); saw != "true policies of "+second[:7] {
			return fmt.Errorf("%s", saw)
		}
		return nil
	})
	o, err := r.Observe(t.Context(), w.target)
	require.NoError(t, err)
	require.WithinDuration(t, time.Now(), o.Facts.Checks[0].Dates["loaded"], 2*time.Minute)

	third := opal.Repo.Commit(t, "main", "No policy", gitserver.Files{"policies/authorization.rego": "package dive.authorization\n\nallow if nothing\n"})
	testbed.Eventually(t, time.Minute, "what OPA refuses is named", func() error {
		if saw := check(token); !strings.HasPrefix(saw, "false OPA refuses the policies of "+third[:7]) || !strings.Contains(saw, "OPA has those of "+second[:7]) {
			return fmt.Errorf("%s", saw)
		}
		return nil
	})
	opal.Stop("opal-server")
	require.Regexp(t, "^false ask http://.*connection refused", check(token))
}
