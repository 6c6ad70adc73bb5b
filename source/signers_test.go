package source_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"dive-agent/gitremote"
	"dive-agent/source"
)

// sshKey is a new key: a signer of commits and its public line.
func sshKey(t testing.TB) (gitremote.Signer, string) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	block, err := ssh.MarshalPrivateKey(private, "")
	require.NoError(t, err)
	signer, err := gitremote.NewSSHSigner(pem.EncodeToMemory(block))
	require.NoError(t, err)
	key, err := ssh.NewPublicKey(public)
	require.NoError(t, err)
	return signer, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
}

type pgpSigner struct{ entity *openpgp.Entity }

func (s pgpSigner) Sign(message io.Reader) ([]byte, error) {
	var b bytes.Buffer
	err := openpgp.ArmoredDetachSign(&b, s.entity, message, nil)
	return b.Bytes(), err
}

func pgpKey(t testing.TB) (gitremote.Signer, []byte) {
	t.Helper()
	entity, err := openpgp.NewEntity("Olga", "", "olga@example.org", nil)
	require.NoError(t, err)
	var b bytes.Buffer
	w, err := armor.Encode(&b, openpgp.PublicKeyType, nil)
	require.NoError(t, err)
	require.NoError(t, entity.Serialize(w))
	require.NoError(t, w.Close())
	return pgpSigner{entity}, b.Bytes()
}

// signed pushes a commit on top of main, or of the parents given, signed by a signer or by nobody.
func (b *bed) signed(by gitremote.Signer, content string) string {
	b.Helper()
	remote, err := gitremote.New(gitremote.Config{URL: b.repo.Path})
	require.NoError(b, err)
	defer remote.Close()
	head := plumbing.NewHash(b.repo.Head("main"))
	h, err := remote.Commit(b.Context(), gitremote.CommitRequest{
		Ref: "refs/heads/main", Old: head, Parent: head, Message: content, Signer: by, When: time.Now(),
		Author: gitremote.Person{Name: "a", Email: "a@example.org"}, Files: map[string][]byte{"a": []byte(content)},
	})
	require.NoError(b, err)
	return h.String()
}

func TestSignedCommitsAreTaken(t *testing.T) {
	ana, anaKey := sshKey(t)
	olga, keyring := pgpKey(t)
	signers, err := source.ParseSigners([]byte("# who may merge\nana@example.org namespaces=\"git\" "+anaKey+" Ana\n"), keyring)
	require.NoError(t, err)
	b := newBed(t)
	b.signed(ana, "first")
	s := b.open(func(o *source.Options) { o.Signers = signers })
	require.Equal(t, "ana@example.org", b.accepted(s).Signer)
	b.signed(olga, "second")
	b.signed(ana, "third")
	b.signed(olga, "fourth")
	rev := b.accepted(s)
	require.Equal(t, "Olga <olga@example.org>", rev.Signer)
	require.Equal(t, map[string]string{"a": "fourth"}, content(t, rev.Dir))
}

func TestCommitsThatAreNotSignedByTheTrustedAreRefused(t *testing.T) {
	ana, anaKey := sshKey(t)
	eve, _ := sshKey(t)
	olga, _ := pgpKey(t)
	for name, test := range map[string]struct {
		allowed string
		commits func(*bed)
		reason  string
	}{
		"unsigned":            {"", func(b *bed) { b.signed(nil, "x") }, "not signed"},
		"unknown SSH key":     {"", func(b *bed) { b.signed(eve, "x") }, "not trusted"},
		"unknown OpenPGP key": {"", func(b *bed) { b.signed(olga, "x") }, "no OpenPGP key"},
		"one between":         {"", func(b *bed) { b.signed(ana, "x"); b.signed(nil, "y"); b.signed(ana, "z") }, "not signed"},
		"no signature at all": {"", func(b *bed) { b.signed(fakeSigner("nonsense"), "x") }, "does not count|no OpenPGP"},
		"broken SSH signature": {"", func(b *bed) {
			b.signed(fakeSigner("-----BEGIN SSH SIGNATURE-----\nAAAA\n-----END SSH SIGNATURE-----"), "x")
		}, "cannot be read"},
		"signature of another": {"", func(b *bed) { b.signed(replay{ana}, "x") }, "wrong"},
		"key for another use":  {`namespaces="file" `, func(b *bed) { b.signed(ana, "x") }, "not trusted"},
		"key no longer valid":  {`valid-before="20200101" `, func(b *bed) { b.signed(ana, "x") }, "not valid"},
		"key not yet valid":    {`valid-after="21000101Z" `, func(b *bed) { b.signed(ana, "x") }, "not valid"},
		"merge the other way":  {"", mergeOtherWay(ana), "first-parent line"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			first := b.signed(ana, "first")
			// The first one is taken by a source without signers, so that each case starts from an accepted revision.
			good := b.accepted(b.open())
			require.Equal(t, first, good.Commit)
			_, spare := sshKey(t)
			signers, err := source.ParseSigners([]byte("ana "+test.allowed+anaKey+"\nspare "+spare+"\n"), nil)
			require.NoError(t, err)
			s := b.open(func(o *source.Options) { o.Signers = signers })
			test.commits(b)
			err = b.staysWith(s, good)
			var refused *source.SignatureError
			require.ErrorAs(t, err, &refused)
			require.Regexp(t, test.reason, refused.Reason)
			require.Equal(t, source.Unsigned, s.State().Problem)
		})
	}
}

func TestAnotherListOfSignersIsCheckedAgain(t *testing.T) {
	ana, anaKey := sshKey(t)
	_, eveKey := sshKey(t)
	list := func(key string) func(*source.Options) {
		signers, err := source.ParseSigners([]byte("x "+key), nil)
		require.NoError(t, err)
		return func(o *source.Options) { o.Signers = signers }
	}
	b := newBed(t)
	b.signed(ana, "first")
	good := b.accepted(b.open())

	s := b.open(list(eveKey))
	for range 2 {
		require.ErrorAs(t, b.staysWith(s, good), new(*source.SignatureError))
	}
	s = b.open(list(anaKey))
	rev, changed, err := s.Poll(t.Context())
	require.NoError(t, err)
	require.False(t, changed, "it is in force already")
	require.Equal(t, "x", rev.Signer)
	s = b.open(list(anaKey))
	b.server.ResetRequests()
	_, _, err = s.Poll(t.Context())
	require.NoError(t, err)
	require.Len(t, b.server.Requests(), 1, "the same list is not checked again")
}

// fakeSigner signs with whatever it is.
type fakeSigner string

func (f fakeSigner) Sign(io.Reader) ([]byte, error) { return []byte(f), nil }

// replay signs something else than what it is given.
type replay struct{ gitremote.Signer }

func (r replay) Sign(io.Reader) ([]byte, error) {
	return r.Signer.Sign(strings.NewReader("something else"))
}

// mergeOtherWay makes a signed merge with a signed branch, whose second parent is the accepted commit: the line of its first parents passes by it.
func mergeOtherWay(by gitremote.Signer) func(*bed) {
	return func(b *bed) {
		accepted := b.repo.Head("main")
		remote, err := gitremote.New(gitremote.Config{URL: b.repo.Path})
		require.NoError(b, err)
		defer remote.Close()
		side, err := remote.Commit(b.Context(), gitremote.CommitRequest{
			Ref: "refs/heads/side", Message: "Side", Signer: by, When: time.Now(), Files: map[string][]byte{"b": []byte("1")},
		})
		require.NoError(b, err)
		tree, err := b.repo.Git("rev-parse", "side^{tree}")
		require.NoError(b, err)
		commit := fmt.Sprintf("tree %s\nparent %s\nparent %s\nauthor a <a@example.org> 1700000000 +0000\ncommitter a <a@example.org> 1700000000 +0000\n", tree, side, accepted)
		const message = "\nMerge\n"
		sig, err := by.Sign(strings.NewReader(commit + message))
		require.NoError(b, err)
		signature := "gpgsig " + strings.ReplaceAll(strings.TrimSpace(string(sig)), "\n", "\n ") + "\n"
		id := b.object("commit", []byte(commit+signature+message))
		_, err = b.repo.Git("update-ref", "refs/heads/main", fmt.Sprintf("%x", id))
		require.NoError(b, err)
	}
}

func TestSignersThatCannotBeUsed(t *testing.T) {
	_, key := sshKey(t)
	for name, test := range map[string]struct{ allowed, keyring, want string }{
		"nobody":          {"# nobody\n", "", "no key is trusted"},
		"no key":          {"ana@example.org\n", "", "line 1"},
		"broken key":      {"\nana ssh-ed25519 AAAA\n", "", "line 2"},
		"authority":       {"*.example.org cert-authority " + key, "", "authorities"},
		"unknown option":  {"ana no-touch " + key, "", "unknown option"},
		"broken date":     {`ana valid-after="tomorrow" ` + key, "", "tomorrow"},
		"broken keyring":  {"", "nonsense", "OpenPGP keyring"},
		"only other uses": {`ana namespaces="file" ` + key, "", "no key is trusted"},
	} {
		_, err := source.ParseSigners([]byte(test.allowed), []byte(test.keyring))
		require.ErrorContains(t, err, test.want, name)
	}
}

func FuzzSigners(f *testing.F) {
	f.Add([]byte("a@b,c@d namespaces=\"git,file\",valid-after=\"20200101\" ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPmeGkzvKYs4AjGWjFMHwLdYcMYJyzA8hQzBy1HwQxk1 x\n"), []byte{})
	f.Add([]byte("#\n\na"), []byte("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n-----END PGP PUBLIC KEY BLOCK-----"))
	f.Fuzz(func(t *testing.T, allowed, keyring []byte) {
		if s, err := source.ParseSigners(allowed, keyring); (s == nil) != (err != nil) {
			t.Fatal("neither signers nor an error, or both")
		}
	})
}
