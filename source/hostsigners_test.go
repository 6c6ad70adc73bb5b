package source_test

import (
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/stretchr/testify/require"

	"dive-agent/gitremote"
	"dive-agent/source"
)

// statusCommit is a commit as an agent makes it, not pushed anywhere.
func statusCommit(t *testing.T, by gitremote.Signer, content string) *object.Commit {
	t.Helper()
	objects, id, err := gitremote.BuildCommit(gitremote.CommitRequest{
		Ref: "refs/heads/status/deu", Message: "deu: Ready", Signer: by, When: time.Unix(1_700_000_000, 0).UTC(),
		Author: gitremote.Person{Name: "dive-agent deu-01", Email: "dive-agent@deu-01"}, Files: map[string][]byte{"status.yaml": []byte(content)},
	})
	require.NoError(t, err)
	c, err := objects.Commit(id)
	require.NoError(t, err)
	return c
}

func TestHostSigners(t *testing.T) {
	t.Parallel()
	old, oldKey := sshKey(t)
	newer, newKey := sshKey(t)
	stranger, strangerKey := sshKey(t)
	olga, _ := pgpKey(t)
	signers, err := source.HostSigners("deu-01", []string{oldKey + " with a comment", newKey})
	require.NoError(t, err)
	for name, by := range map[string]gitremote.Signer{"old": old, "new": newer} {
		who, err := signers.Verify(statusCommit(t, by, "a"))
		require.NoError(t, err, name)
		require.Equal(t, "deu-01", who)
		key, err := signers.KeyOf(statusCommit(t, by, "a"))
		require.NoError(t, err, name)
		require.Equal(t, source.Fingerprint(map[string]string{"old": oldKey, "new": newKey}[name]), key)
	}
	_, err = signers.Verify(statusCommit(t, stranger, "a"))
	var untrusted *source.UntrustedKeyError
	require.ErrorAs(t, err, &untrusted)
	require.Equal(t, strangerKey, untrusted.Key)
	require.ErrorContains(t, err, "("+source.Fingerprint(strangerKey)+")")

	forged := statusCommit(t, newer, "a")
	forged.TreeHash = statusCommit(t, newer, "b").TreeHash
	_, err = signers.Verify(forged)
	require.ErrorContains(t, err, "its signature by deu-01 is wrong")
	late := statusCommit(t, newer, "a")
	late.Committer.When = late.Committer.When.Add(time.Hour)
	_, err = signers.Verify(late)
	require.ErrorContains(t, err, "its signature by deu-01 is wrong")
	_, err = signers.Verify(statusCommit(t, nil, "a"))
	require.ErrorContains(t, err, "it is not signed")
	_, err = signers.Verify(statusCommit(t, olga, "a"))
	require.ErrorContains(t, err, "no OpenPGP key is trusted")

	_, err = source.HostSigners("deu-01", nil)
	require.ErrorContains(t, err, "dive-agent enroll")
	_, err = source.HostSigners("deu-01", []string{"ssh-ed25519 AAAA"})
	require.ErrorContains(t, err, "no SSH public key")
}
