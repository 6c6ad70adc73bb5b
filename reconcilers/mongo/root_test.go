package mongo_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"dive-agent/desired"
)

// TestTheAdministratorsPasswordIsRotatedLast: with proof of the former one; a crash between any two steps is resumed.
func TestTheAdministratorsPasswordIsRotatedLast(t *testing.T) {
	t.Parallel()
	s := plainSet(t, "mongodb").withContent().run("mongodb")
	expr := func(source string) desired.Expr {
		x, problems := desired.ParseExpr(source, desired.Position{})
		require.Empty(t, problems)
		return x
	}
	secrets := func(root, app string, former ...string) {
		values := map[string][]desired.Value{}
		for _, text := range former {
			values["ROOT"] = append(values["ROOT"], desired.Secret(text))
		}
		s.target.Scope = desired.NewScope(map[string]desired.Value{"ROOT": desired.Secret(root), "APP": desired.Secret(app)}).WithFormer(values)
	}
	s.spec.Root.Password, s.spec.Users[0].Password, s.spec.User = expr("${ROOT}"), expr("${APP}"), "admin"
	secrets(rootPassword, appPassword)
	r := reconciler(t)
	o := s.settle(r)
	require.ElementsMatch(t, []string{"ROOT", "APP"}, o.Holds)

	const next = "next-Secret-of-root"
	secrets(next, "next-Secret-of-app", "never-taken-Secret", rootPassword)
	steps := []string{
		"update user app: password changed",
		"update user admin: the administrator's own password changed: set with the former one, last of all",
	}
	require.Equal(t, steps, s.planned(r))
	o, err := r.Observe(t.Context(), s.target)
	require.NoError(t, err)
	require.Empty(t, o.Holds)
	require.Empty(t, o.Outputs, "the uri would carry a password that the server does not take yet")
	require.Equal(t, steps, s.planned(reconciler(t)), "after a crash")

	// A crash after the server took it: nothing is left to do, and nothing is refused.
	s.command("mongodb", bson.D{{Key: "updateUser", Value: "admin"}, {Key: "pwd", Value: next}})
	require.Equal(t, steps[:1], s.planned(reconciler(t)))
	o = s.settle(reconciler(t))
	require.ElementsMatch(t, []string{"ROOT", "APP"}, o.Holds)

	secrets("third-Secret-of-root", "next-Secret-of-app")
	blocked := s.blocked(reconciler(t))
	require.Equal(t, "WrongPassword", blocked.Reason, "without a former value there is no proof")
	secrets("third-Secret-of-root", "next-Secret-of-app", next)
	o = s.settle(r)
	require.Contains(t, o.Outputs["uri"].Text(), "third-Secret-of-root")
	root := options.Credential{AuthSource: "admin", Username: "admin", Password: "third-Secret-of-root"}
	require.NoError(t, s.tryAs(root, "dive", find))
	root.Password = next
	require.Error(t, s.tryAs(root, "dive", find))
}
