package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/hostkeys"
)

// TestTheLifeOfAHostsKeys: enrolled, merged, rotated in two merges, lost and made anew, on a real Git server.
func TestTheLifeOfAHostsKeys(t *testing.T) {
	t.Parallel()
	repo, config := emptyFleet(t)
	folder := filepath.Join(filepath.Dir(config), "state", "host")
	enroll := func(wantCode int, args ...string) (file, said string) {
		t.Helper()
		code, out, errs := do(t, append([]string{"--config", config, "enroll"}, args...)...)
		require.Equal(t, wantCode, code, errs)
		return out, errs
	}
	merge := func(file string) {
		t.Helper()
		files := fleet("one")
		files["hosts/other-01.yaml"] = file
		repo.Commit(t, "main", "Enroll other-01", files)
		h, err := openHost(t.Context(), &globals{streams: streams{t.Output(), t.Output()}, config: config}, hostOptions{})
		require.NoError(t, err)
		defer h.close()
		h.takeCurrent()
		require.NoError(t, (&serving{host: h, wake: make(chan struct{}, 1)}).pollNow(t.Context()))
	}

	_, said := enroll(exitFailed, "--rotate")
	require.Contains(t, said, "nothing to rotate")
	first, said := enroll(exitDone)
	require.Contains(t, said, "keys of this host were made in "+folder)
	require.Contains(t, said, "merge it into the fleet repository as hosts/other-01.yaml")
	again, said := enroll(exitDone)
	require.Equal(t, first, again)
	require.NotContains(t, said, "made")
	merge(first)
	_, said = enroll(exitDone)
	require.Contains(t, said, "hosts/other-01.yaml is merged already")
	_, said = enroll(exitFailed, "--anew")
	require.Contains(t, said, "dive-agent enroll --rotate", "whole keys are not thrown away")

	both, said := enroll(exitDone, "--rotate")
	require.Contains(t, said, "another pair was made")
	require.Equal(t, 2, strings.Count(both, "- age1"))
	require.Equal(t, 2, strings.Count(both, "- ssh-ed25519 "))
	same, said := enroll(exitDone, "--rotate")
	require.Equal(t, both, same, "it is not rotated again before the first rotation is merged")
	require.Contains(t, said, "a rotation is under way")
	merge(both)
	require.DirExists(t, filepath.Join(folder, "0001"))
	var kept []string
	for line := range strings.Lines(both) {
		if !strings.Contains(line, "to be taken out") {
			kept = append(kept, line)
		}
	}
	rotated := strings.Join(kept, "")
	merge(rotated)
	require.NoDirExists(t, filepath.Join(folder, "0001"), "its own agent deletes what the file lists no more")
	now, said := enroll(exitDone)
	require.Equal(t, rotated, now)
	require.Contains(t, said, "merged already")

	require.NoError(t, os.RemoveAll(folder))
	for _, args := range [][]string{{}, {"--output", "json"}} {
		out, said := enroll(exitBlocked, args...)
		require.Empty(t, out)
		require.Contains(t, said, "dive-agent enroll --anew")
	}
	require.NoDirExists(t, folder, "lost keys are not made again by themselves")
	anew, said := enroll(exitDone, "--anew")
	require.Contains(t, said, "it differs from hosts/other-01.yaml as merged")
	require.Contains(t, said, "2 of the keys that are merged there are not of this host")
	merge(anew)

	require.NoError(t, os.Truncate(filepath.Join(folder, "0001", "identity"), 3))
	_, said = enroll(exitBlocked)
	require.Contains(t, said, filepath.Join(folder, "0001", "identity")+" cannot be used: it holds no age identity")
	_, said = enroll(exitDone, "--anew")
	aside, err := filepath.Glob(folder + ".until-*")
	require.NoError(t, err)
	require.Len(t, aside, 1)
	require.Contains(t, said, aside[0])
	require.NotContains(t, said, "PRIVATE")
}

func TestEnrollAsJSON(t *testing.T) {
	t.Parallel()
	_, config := emptyFleet(t)
	dir := filepath.Dir(config)
	other, _, err := hostkeys.Ensure(filepath.Join(dir, "elsewhere"), time.Now())
	require.NoError(t, err)
	text, err := os.ReadFile(config)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(config, append(text, "report: {signingKey: elsewhere/0001/signing-key}\n"...), 0o600))
	code, out, errs := do(t, "--config", config, "enroll", "--output", "json")
	require.Equal(t, exitDone, code, errs)
	require.Empty(t, errs, "what is said is in the document")
	var e enrolment
	require.NoError(t, json.Unmarshal([]byte(out), &e))
	require.Equal(t, "other-01", e.Name)
	require.True(t, e.Made)
	require.Len(t, e.Keys, 1)
	require.Equal(t, []string{other.Public()[0].SigningKey, e.Keys[0].SigningKey}, e.SigningKeys, "the key that the configuration names signs, so it is listed")
	require.Equal(t, []string{e.Keys[0].Recipient}, e.Recipients)
	require.Contains(t, e.File, "made "+day(e.Keys[0].Made))
	require.True(t, slices.ContainsFunc(e.Notes, func(n string) bool { return strings.HasPrefix(n, "merge it") }), "%v", e.Notes)

	code, _, errs = do(t, "--config", config, "enroll", "--rotate", "--anew")
	require.Equal(t, exitUsage, code, errs)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "elsewhere/0001/signing-key"), []byte("x"), 0o600))
	code, _, errs = do(t, "--config", config, "enroll")
	require.Equal(t, exitFailed, code)
	require.Contains(t, errs, "report.signingKey")
}
