package main

import (
	"bytes"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/attest"
)

func TestVerdictsForPeople(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	now := time.Now()
	writeVerdicts(&globals{streams: streams{&out, &out}}, []attest.Result{
		{Instance: "deu", Host: "deu-01", Verdict: attest.Verified, Commit: "5d6e7f8900", Key: "SHA256:abc", Written: now.Add(-2*time.Minute - time.Second), Phase: "Ready"},
		{Instance: "estonia", Host: "e-1", Verdict: attest.Refused, Commit: "1a2b3c4d00", Written: now.Add(-time.Minute - time.Second), Why: "it is not signed", Do: "find out \x1b[31mwho"},
		{Instance: "fra", Host: "fra-01", Verdict: attest.Verified, Commit: "77aa77aa00", Key: "SHA256:def", Written: now.Add(-3*time.Hour - time.Second), Phase: "Ready"},
		{Instance: "gbr", Host: "gbr-01", Verdict: attest.Missing, Why: "there is no branch status/gbr"},
		{Instance: "gone", Host: "deu-01", Verdict: attest.Record, Commit: "8f3c9f3c00", Key: "SHA256:abc", Written: now.Add(-48*time.Hour - time.Second), Phase: "Removed"},
		{Instance: "old", Verdict: attest.Stranger, Commit: "9f3c9f3c00", Why: "the fleet has no instance of that name"},
	}, "status branches of /fleet.git against 5d6e7f8")
	require.Equal(t, `status branches of /fleet.git against 5d6e7f8

  ✓ deu      verified    deu-01  5d6e7f8  2 min ago  Ready  SHA256:abc
  ✗ estonia  refused     e-1     1a2b3c4  1 min ago
      it is not signed
      find out [31mwho
  ✓ fra      verified    fra-01  77aa77a  3 h ago  Ready  SHA256:def
      its agent writes every 15 min: it is away, or an old status was put back
  ✗ gbr      missing     gbr-01
      there is no branch status/gbr
  · gone     removed     deu-01  8f3c9f3  2 days ago  Removed  SHA256:abc
  · old      stranger            9f3c9f3
      the fleet has no instance of that name

2 of 4 verified.
`, out.String())
}

func TestVerifyStatusNeedsAFleetAndARemote(t *testing.T) {
	t.Parallel()
	none := filepath.Join(t.TempDir(), "none.yaml")
	code, _, errs := do(t, "--config", none, "verify-status")
	require.Equal(t, exitFailed, code)
	require.Contains(t, errs, "--dir")
	dir := example(t)
	code, _, errs = do(t, "--config", none, "verify-status", "--dir", dir)
	require.Equal(t, exitFailed, code)
	require.Contains(t, errs, "--remote")
	code, _, errs = do(t, "--config", none, "verify-status", "--dir", t.TempDir(), "--remote", "/nowhere.git")
	require.Equal(t, exitData, code)
	require.Contains(t, errs, "fleet.yaml")
	code, out, errs := do(t, "--config", none, "verify-status", "--dir", dir, "--allowed-signers", "usa")
	require.Equal(t, exitDone, code, errs)
	require.Equal(t, "# usa-01 writes the status of usa\n# it has no key yet: dive-agent enroll on it prints hosts/usa-01.yaml\n", out)
	code, _, errs = do(t, "--config", none, "verify-status", "--dir", dir, "--allowed-signers", "usb")
	require.Equal(t, exitFailed, code)
	require.Contains(t, errs, `did you mean "usa"?`)
	code, _, errs = do(t, "--config", none, "verify-status", "--dir", dir, "--remote", filepath.Join(t.TempDir(), "away.git"))
	require.Equal(t, exitFailed, code)
	require.NotEmpty(t, errs)
}
