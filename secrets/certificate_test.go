package secrets_test

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/secrets"
)

const day = 24 * time.Hour

func certificate(name string, c desired.Certificate) desired.SecretSpec {
	kind := desired.CertificateKind
	if c.Authority == "" {
		kind = desired.AuthorityKind
	}
	return desired.SecretSpec{
		Name: name, Generate: &desired.Generate{Kind: kind}, Certificate: &c, File: &desired.SecretFile{Path: name + ".pem"},
	}
}

// chain is an authority, a certificate of members and one of clients.
func chain() []desired.SecretSpec {
	return []desired.SecretSpec{
		certificate("MEMBER", desired.Certificate{
			Authority: "CA", CommonName: "mongodb-1", Organization: "deu", Unit: "MEMBER", Lifetime: 90 * day,
			Names: []string{"mongodb-1", "localhost", "127.0.0.1"}, Server: true, Client: true,
		}),
		certificate("CA", desired.Certificate{CommonName: "deu CA", Organization: "deu", Unit: "CA", Lifetime: 3650 * day}),
		certificate("CLIENT", desired.Certificate{
			Authority: "CA", CommonName: "app", Organization: "deu", Unit: "CLIENT", Lifetime: 30 * day, Client: true,
		}),
	}
}

func at(t *testing.T, dir string, now time.Time, specs ...desired.SecretSpec) secrets.Result {
	t.Helper()
	s, err := secrets.Open(secrets.Options{Instance: "deu", Dir: dir, Random: rand.Reader, Now: func() time.Time { return now }})
	require.NoError(t, err)
	return ensure(t, s, specs...)
}

func leafOf(t *testing.T, v desired.Value) *x509.Certificate {
	t.Helper()
	pair, err := tls.X509KeyPair([]byte(v.Text()), []byte(v.Text()))
	require.NoError(t, err)
	return pair.Leaf
}

func TestCertificatesOfAnOwnAuthority(t *testing.T) {
	dir := t.TempDir()
	got := at(t, dir, made, chain()...)
	require.Equal(t, []string{"CA", "MEMBER", "CLIENT"}, got.Made)
	require.False(t, got.Values["CA"].Secret())
	require.True(t, got.Values["MEMBER"].Secret())
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM([]byte(got.Values["CA"].Text())))
	verify := func(leaf *x509.Certificate, name string, now time.Time, usage x509.ExtKeyUsage) error {
		_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage}})
		return err
	}
	member, client := leafOf(t, got.Values["MEMBER"]), leafOf(t, got.Values["CLIENT"])
	for _, name := range []string{"mongodb-1", "localhost", "127.0.0.1"} {
		for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
			require.NoError(t, verify(member, name, made, usage))
		}
	}
	require.Error(t, verify(member, "mongodb-2", made, x509.ExtKeyUsageServerAuth))
	require.NoError(t, verify(member, "localhost", made.Add(-59*time.Minute), x509.ExtKeyUsageServerAuth), "clocks differ")
	require.Error(t, verify(member, "localhost", made.Add(90*day+time.Second), x509.ExtKeyUsageServerAuth))
	require.NoError(t, verify(client, "", made, x509.ExtKeyUsageClientAuth))
	require.Error(t, verify(client, "", made, x509.ExtKeyUsageServerAuth))
	require.Equal(t, "CN=mongodb-1,OU=MEMBER,O=deu", member.Subject.String())

	for name, blocks := range map[string][]string{"CA": {"CERTIFICATE"}, "MEMBER": {"PRIVATE KEY", "CERTIFICATE"}} {
		raw, err := os.ReadFile(filepath.Join(dir, name+".pem"))
		require.NoError(t, err)
		var types []string
		for block, rest := pem.Decode(raw); block != nil; block, rest = pem.Decode(rest) {
			types = append(types, block.Type)
		}
		require.Equal(t, blocks, types, name)
	}
	list, err := open(t, dir, rand.Reader).List()
	require.NoError(t, err)
	for i, ends := range []time.Time{made.Add(3650 * day), made.Add(30 * day), made.Add(90 * day)} {
		require.Equal(t, ends, list[i].Ends, list[i].Name)
	}
	peeked, missing, err := secrets.Peek(secrets.Options{Instance: "deu", Dir: dir}, chain())
	require.NoError(t, err)
	require.Empty(t, missing)
	require.Equal(t, got.Values, peeked)
}

// Time comes from outside: two thirds of the lifetime are over, or they are not.
func TestACertificateIsMadeAnewWhenItIsDue(t *testing.T) {
	dir := t.TempDir()
	first := at(t, dir, made, chain()...)
	require.Empty(t, at(t, dir, made.Add(20*day-time.Second), chain()...).Made)
	require.Equal(t, []string{"CLIENT"}, at(t, dir, made.Add(20*day), chain()...).Made)
	require.Empty(t, at(t, dir, made.Add(20*day), chain()...).Made)
	again := at(t, dir, made.Add(60*day), chain()...)
	require.Equal(t, []string{"MEMBER", "CLIENT"}, again.Made)
	require.Equal(t, first.Values["CA"], again.Values["CA"])
	require.Equal(t, []string{"MEMBER.pem", "CLIENT.pem"}, again.Files)
	require.NotEqual(t, leafOf(t, first.Values["MEMBER"]).SerialNumber, leafOf(t, again.Values["MEMBER"]).SerialNumber)
	require.Equal(t, made.Add(150*day), leafOf(t, again.Values["MEMBER"]).NotAfter)
}

func TestACertificateFollowsItsManifestAndAuthority(t *testing.T) {
	for name, change := range map[string]func(*desired.Certificate){
		"names":    func(c *desired.Certificate) { c.Names = append(c.Names, "mongodb-2") },
		"subject":  func(c *desired.Certificate) { c.Unit = "members" },
		"usages":   func(c *desired.Certificate) { c.Client = false },
		"lifetime": func(c *desired.Certificate) { c.Lifetime = 30 * day },
	} {
		t.Run(name, func(t *testing.T) {
			dir, specs := t.TempDir(), chain()
			at(t, dir, made, specs...)
			change(specs[0].Certificate)
			require.Equal(t, []string{"MEMBER"}, at(t, dir, made.Add(day), specs...).Made)
			require.Empty(t, at(t, dir, made.Add(day), specs...).Made)
		})
	}
	t.Run("an authority that an operator sets", func(t *testing.T) {
		dir, other := t.TempDir(), t.TempDir()
		at(t, dir, made, chain()...)
		at(t, other, made, chain()...)
		raw, err := os.ReadFile(valuePath(other, "CA"))
		require.NoError(t, err)
		s := open(t, dir, rand.Reader)
		require.NoError(t, s.Set(t.Context(), "CA", raw))
		require.ErrorContains(t, s.Set(t.Context(), "CA", raw), "is being replaced already")
		followed(t, dir, made)
		require.ErrorContains(t, s.Set(t.Context(), "CA", []byte("no PEM at all")), "secret CA of deu is an authority: it is no key and certificate in PEM")
		require.NoError(t, os.WriteFile(valuePath(dir, "CA"), []byte("no PEM at all"), 0o600))
		_, err = s.Ensure(t.Context(), chain(), secrets.EnsureOptions{})
		var changed *secrets.ChangedError
		require.ErrorAs(t, err, &changed)
	})
}

// followed lets everything follow the three steps in which an authority is replaced. After each, whoever trusts what was
// shown before or after it trusts the certificate of a member.
func followed(t *testing.T, dir string, now time.Time) {
	t.Helper()
	trusts := func(ca, member desired.Value) bool {
		roots := x509.NewCertPool()
		require.True(t, roots.AppendCertsFromPEM([]byte(ca.Text())))
		_, err := leafOf(t, member).Verify(x509.VerifyOptions{Roots: roots, DNSName: "mongodb-1", CurrentTime: now})
		return err == nil
	}
	var before secrets.Result
	for step, count := range []int{2, 2, 1, 1} {
		after := at(t, dir, now, chain()...)
		require.Equal(t, count, strings.Count(after.Values["CA"].Text(), "BEGIN CERTIFICATE"), step)
		require.NotContains(t, after.Values["CA"].Text(), "KEY")
		for _, other := range []secrets.Result{before, after} {
			if other.Values != nil {
				require.True(t, trusts(other.Values["CA"], after.Values["MEMBER"]), step)
				require.True(t, trusts(after.Values["CA"], other.Values["MEMBER"]), step)
			}
		}
		require.Equal(t, step == 1, slices.Contains(after.Made, "MEMBER"), "made anew once the new one is trusted")
		s := open(t, dir, rand.Reader)
		goOn, err := s.Forget(t.Context(), map[string]desired.Value{"CA": desired.String("another value")})
		require.NoError(t, err)
		require.Empty(t, goOn, "not everything has the value that is there")
		goOn, err = s.Forget(t.Context(), map[string]desired.Value{"CA": after.Values["CA"]})
		require.NoError(t, err)
		require.Equal(t, step < 2, len(goOn) > 0)
		before = after
	}
	former, err := secrets.Former(secrets.Options{Instance: "deu", Dir: dir}, chain())
	require.NoError(t, err)
	require.Empty(t, former)
}

// An authority is replaced long before its end, by itself or when somebody asks.
func TestAnAuthorityIsReplacedInThreeSteps(t *testing.T) {
	t.Run("two thirds of its life are over", func(t *testing.T) {
		dir := t.TempDir()
		at(t, dir, made, chain()...)
		due := made.Add(3650 * day * 2 / 3)
		at(t, dir, due.Add(-time.Minute), chain()...)
		require.Empty(t, at(t, dir, due.Add(-time.Minute), chain()...).Made)
		require.Equal(t, []string{"CA"}, at(t, dir, due.Add(time.Minute), chain()...).Made)
		followed(t, dir, due.Add(time.Minute))
	})
	t.Run("somebody asks", func(t *testing.T) {
		dir := t.TempDir()
		at(t, dir, made, chain()...)
		require.NoError(t, open(t, dir, rand.Reader).Rotate(t.Context(), chain()[1]))
		followed(t, dir, made)
	})
}

// Nothing depends on a certificate that its authority could not sign again; on the authority, all that trust it.
func TestALostCertificateIsIssuedAgainAndALostAuthorityIsNot(t *testing.T) {
	dir := t.TempDir()
	at(t, dir, made, chain()...)
	for _, spoil := range []func(string) error{os.Remove, func(p string) error { return os.WriteFile(p, []byte("half"), 0o600) }} {
		require.NoError(t, spoil(valuePath(dir, "MEMBER")))
		require.Equal(t, []string{"MEMBER"}, at(t, dir, made, chain()...).Made)
	}
	require.NoError(t, os.Remove(valuePath(dir, "CA")))
	_, err := open(t, dir, rand.Reader).Ensure(t.Context(), chain(), secrets.EnsureOptions{})
	var lost *secrets.LostError
	require.ErrorAs(t, err, &lost)
	require.Equal(t, "CA", lost.Name)
}

func TestNoCertificateOutlivesItsAuthority(t *testing.T) {
	dir := t.TempDir()
	end := made.Add(3650 * day)
	at(t, dir, made, chain()...)
	specs := chain()
	specs[1].Certificate.CommonName = "of an operator"
	late := at(t, dir, end.Add(-10*day), specs...)
	require.Equal(t, []string{"MEMBER", "CLIENT"}, late.Made)
	require.Equal(t, end, leafOf(t, late.Values["MEMBER"]).NotAfter)
	require.Empty(t, at(t, dir, end.Add(-time.Hour), specs...).Made, "another one would not be valid for longer")

	s, err := secrets.Open(secrets.Options{Instance: "deu", Dir: dir, Random: rand.Reader, Now: func() time.Time { return end }})
	require.NoError(t, err)
	specs[0].Certificate.Unit = "changed"
	_, err = s.Ensure(t.Context(), specs, secrets.EnsureOptions{})
	var ended *secrets.EndedError
	require.ErrorAs(t, err, &ended)
	require.Contains(t, ended.Do(), "dive-agent secrets set deu CA --replace")
}
