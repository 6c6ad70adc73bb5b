package agent

import (
	"crypto/rand"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/hostkeys"
	"dive-agent/report"
	"dive-agent/state"
)

// withKeys is a host with a folder for keys of its own, and one worker.
func withKeys(t *testing.T) *worker {
	t.Helper()
	w, _ := newHost(t, newWorld(t, [2]string{"a", "one"}))
	w.workers[w.name] = w
	w.HostKeys = filepath.Join(t.TempDir(), "host")
	return w
}

// listing is the host's file with some pairs in it.
func listing(pairs ...hostkeys.PublicPair) *desired.Host {
	host := &desired.Host{Name: "host-01"}
	for _, p := range pairs {
		host.Recipients, host.SigningKeys = append(host.Recipients, p.Recipient), append(host.SigningKeys, p.SigningKey)
	}
	return host
}

// signsNow is the public half of the key that signs status commits; empty when none does.
func (w *worker) signsNow(t *testing.T) string {
	t.Helper()
	pem := w.StatusKey()
	if pem == nil {
		return ""
	}
	public, err := hostkeys.PublicOf(pem)
	require.NoError(t, err)
	return public
}

// told is the condition of the host's keys, and what to do; empty when all is well.
func (w *worker) told(t *testing.T) (reason string, next []string) {
	t.Helper()
	w.round(t.Context(), "test")
	status, err := w.Status(t.Context(), w.name)
	require.NoError(t, err)
	for _, c := range status.Visible() {
		if c.Type == "HostKeysListed" {
			require.Equal(t, report.Ready, status.Phase, "what runs is not touched by it")
			require.Contains(t, status.Why, c.Message)
			return c.Reason, status.Next
		}
	}
	return "", nil
}

func strangersPair(t *testing.T) hostkeys.PublicPair {
	t.Helper()
	keys, _, err := hostkeys.Ensure(t.TempDir(), time.Unix(1, 0))
	require.NoError(t, err)
	return keys.Public()[0]
}

func TestKeysAreMadeAtTheFirstRevisionAndUsed(t *testing.T) {
	w := withKeys(t)
	require.Empty(t, w.signsNow(t))
	require.NoDirExists(t, w.HostKeys, "nothing is made before a revision says whether others are known")
	w.identify(nil)
	keys, err := hostkeys.Open(w.HostKeys)
	require.NoError(t, err)
	require.Equal(t, keys.Public()[0].SigningKey, w.signsNow(t))
	reason, _ := w.told(t)
	require.Empty(t, reason)
	events, _ := w.bus.after(0)
	require.Equal(t, "KeysMade", events[0].State)

	w.identify(listing(keys.Public()...))
	reason, _ = w.told(t)
	require.Empty(t, reason)
	again, err := hostkeys.Open(w.HostKeys)
	require.NoError(t, err)
	require.Equal(t, keys.Public(), again.Public())
}

func TestLostKeysAreNotMadeAnew(t *testing.T) {
	w := withKeys(t)
	w.identify(listing(strangersPair(t)))
	require.NoDirExists(t, w.HostKeys)
	require.Empty(t, w.signsNow(t))
	reason, next := w.told(t)
	require.Equal(t, "HostKeysLost", reason)
	require.Contains(t, next[0], "dive-agent enroll --anew")
	require.Contains(t, next[0], w.HostKeys)
}

func TestDamagedKeysAreToldUntilTheyAreMended(t *testing.T) {
	w := withKeys(t)
	w.identify(nil)
	keys, err := hostkeys.Open(w.HostKeys)
	require.NoError(t, err)
	w.identify(listing(keys.Public()...))
	path := filepath.Join(w.HostKeys, "0001", "signing-key")
	saved, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, []byte("x"), 0o600))
	require.Empty(t, w.signsNow(t), "found when a status is to be signed")
	reason, next := w.told(t)
	require.Equal(t, "HostKeysDamaged", reason)
	require.Contains(t, next[0], filepath.Dir(path))
	require.NoError(t, os.WriteFile(path, saved, 0o600))
	reason, _ = w.told(t)
	require.Empty(t, reason, "the next round finds it mended")
	require.NotEmpty(t, w.signsNow(t))
}

func TestAHostWhoseFileListsOthersKeysSaysSo(t *testing.T) {
	w := withKeys(t)
	w.identify(nil)
	keys, err := hostkeys.Open(w.HostKeys)
	require.NoError(t, err)
	own, other := keys.Public()[0], strangersPair(t)
	mixed := listing(own)
	mixed.SigningKeys = []string{other.SigningKey}
	for name, declared := range map[string]*desired.Host{"both": listing(other), "the signing key alone": mixed} {
		w.identify(declared)
		reason, next := w.told(t)
		require.Equal(t, "HostKeysNotListed", reason, name)
		require.Contains(t, next[0], "dive-agent enroll", name)
		require.Equal(t, own.SigningKey, w.signsNow(t), "whoever checks it is told which key it was")
	}
	w.identify(listing(other, own))
	reason, _ := w.told(t)
	require.Empty(t, reason)

	pem, err := os.ReadFile(filepath.Join(w.HostKeys, "0001", "signing-key"))
	require.NoError(t, err)
	w.HostKeys, w.SigningKey = filepath.Join(t.TempDir(), "host"), pem
	w.identify(nil)
	require.Equal(t, own.SigningKey, w.signsNow(t), "a configured key goes before the host's own")
	w.identify(&desired.Host{Name: "host-01", SigningKeys: []string{own.SigningKey}})
	reason, _ = w.told(t)
	require.Empty(t, reason)
}

func TestRotationOfAHostsKeys(t *testing.T) {
	w := withKeys(t)
	w.identify(nil)
	keys, err := hostkeys.Open(w.HostKeys)
	require.NoError(t, err)
	old := keys.Public()[0]
	w.identify(listing(old))
	keys, err = hostkeys.Rotate(w.HostKeys, time.Unix(2, 0))
	require.NoError(t, err)
	newer := keys.Public()[0]

	require.Equal(t, old.SigningKey, w.signsNow(t), "not merged yet")
	w.identify(listing(old))
	require.Equal(t, old.SigningKey, w.signsNow(t))
	w.identify(listing(old, newer))
	require.Equal(t, newer.SigningKey, w.signsNow(t))
	keys, err = hostkeys.Open(w.HostKeys)
	require.NoError(t, err)
	require.Len(t, keys.Public(), 2, "the old one still opens what was sealed to it")

	seen, _ := w.bus.after(0)
	w.identify(listing(newer))
	keys, err = hostkeys.Open(w.HostKeys)
	require.NoError(t, err)
	require.Equal(t, []hostkeys.PublicPair{newer}, keys.Public())
	events, _ := w.bus.after(seen[len(seen)-1].Seq)
	require.Len(t, events, 1)
	require.Equal(t, "KeysDeleted", events[0].State)
	require.Contains(t, events[0].Message, old.Recipient)
	require.Contains(t, events[0].Message, old.SigningKey)
	reason, _ := w.told(t)
	require.Empty(t, reason)
}

// A machine that the host's file does not name makes no key, touches nothing, also of what was removed, and leaves the
// status branch to the machine that is named.
func TestAMachineThatIsNotTheHostsDoesNothing(t *testing.T) {
	w, engine := departing(t, "destroy", false)
	w.HostKeys = filepath.Join(t.TempDir(), "host")
	reporter, err := report.New(report.Options{Host: w.Host, Store: w.Store, Clock: w.Clock, Random: rand.Reader, Log: slog.New(slog.DiscardHandler), Branches: &report.Branches{}})
	require.NoError(t, err)
	w.Reporter = reporter
	made := len(engine.made())
	declared := &desired.Host{Name: "host-01", MachineID: "another"}
	w.assigned.fleet.Hosts = map[string]*desired.Host{"host-01": declared}
	w.identify(declared)
	w.declare("2222222", "second", "two")
	w.assigned.fleet.Hosts = map[string]*desired.Host{"host-01": declared}
	w.round(t.Context(), "test")
	status := w.gone(t, nil, nil)
	require.Equal(t, report.Blocked, status.Phase)
	require.Contains(t, strings.Join(status.Why, " "), "hosts/host-01.yaml names the machine another, and this is machine")
	require.Contains(t, strings.Join(status.Next, " "), "dive-agent enroll")
	require.Len(t, engine.made(), made)
	require.Empty(t, engine.orders)
	require.NoDirExists(t, w.HostKeys)
	require.NoError(t, w.Store.View(t.Context(), func(r state.Reader) error {
		waiting, err := r.Outbox(w.name)
		require.Empty(t, waiting)
		return err
	}))

	w.identify(&desired.Host{Name: "host-01", MachineID: "machine"})
	require.Equal(t, report.Removed, w.gone(t, nil, nil).Phase, "and goes on once it is named")
	require.Len(t, engine.orders, 2)
}
