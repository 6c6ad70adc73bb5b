package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"dive-agent/report"
	"dive-agent/testbed"
	"dive-agent/testbed/agenttest"
	"dive-agent/testbed/disk"
)

// TestAFullDiskOfOneMemberIsNamed with what the server said; the others serve on and are not restarted, whatever is merged.
// Once there is room it all goes on by itself.
func TestAFullDiskOfOneMemberIsNamed(t *testing.T) {
	t.Parallel()
	s := newSmall(t)
	wants := replicas{members: numbered(3), image: testbed.Image(t, testbed.Mongod605), users: true}
	folder := t.TempDir()
	require.NoError(t, unix.Mount("tmpfs", folder, "tmpfs", 0, "size=256m,mode=0755"))
	t.Cleanup(func() { require.NoError(t, unix.Unmount(folder, unix.MNT_DETACH)) })
	files := edited(t, s.replicas(wants), stackFile, "data-2:/data/db", folder+":/data/db",
		`--oplogSize, "16"`, `--oplogSize, "128"`) // the writer must not get through it before the member is back
	h, commit := s.readyWith(files, 3*soon, agenttest.HostOptions{More: "compose: {allow: [\"mount:" + folder + "\"]}\n"})
	w := &crashWalk{small: s, host: h, wants: wants, commit: commit}
	w.begins()
	before := s.starts()

	filler := filepath.Join(folder, "filler")
	disk.Fill(t, filler)
	status := h.Await(2*soon, "one", "names the member and its disk", func(st *report.Status) bool {
		said := why(st)
		return strings.Contains(said, "mongodb-2") && strings.Contains(said, "o space left on device")
	})
	t.Logf("%s", why(status))
	merged := s.Merge("A change of all", withLabel(t, files))
	h.Await(soon, "one", "has the change in hand", func(st *report.Status) bool { return st.Attempted == merged })
	h.Await(soon, "one", "says so still", func(st *report.Status) bool { return strings.Contains(why(st), "mongodb-2") })
	now := s.starts()
	for _, other := range []string{"mongodb-1", "mongodb-3"} {
		require.Equal(t, before[other], now[other], "no rolling change starts")
	}

	require.NoError(t, os.Remove(filler))
	h.AwaitPhase(7*soon, "one", report.Ready, merged) // the members that wait for it give up after three minutes; then it is started again
	for service, start := range s.starts() {
		require.NotEqual(t, before[service], start, "the change that had waited")
	}
	w.holds()
	w.lostNothing()
}

// withLabel changes all members' containers.
func withLabel(t *testing.T, files map[string]string) map[string]string {
	t.Helper()
	return edited(t, files, stackFile, "environment: {", "environment: {LABEL: another, ")
}
