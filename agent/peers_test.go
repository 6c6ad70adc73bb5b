package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/hostkeys"
	"dive-agent/published"
	"dive-agent/report"
	"dive-agent/source/peers"
	"dive-agent/state"
)

// pair is two hosts: usa publishes on one, deu imports on the other. What usa's agent would push is handed over by the test;
// the status branches themselves are tested in source/peers, and the whole of it in testbed/e2e.
type pair struct {
	*testing.T
	usa, deu   *worker
	usaL, deuL *ledger
	fleet      *desired.Fleet
	files      fstest.MapFS
	keys       map[string]*hostkeys.Keys
	answer     peers.Answer // beside what usa publishes
	applied    string       // what usa says to have applied
	alter      func(*published.Document)
	err        error
}

const pairFleet = "apiVersion: dive/v1alpha1\nkind: Fleet\nmetadata: {name: test}\nspec: {}\n"

func newPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{T: t, files: fstest.MapFS{}, keys: map[string]*hostkeys.Keys{}}
	folders := map[string]string{}
	p.file("fleet.yaml", pairFleet)
	for _, host := range []string{"usa-01", "deu-01"} {
		folders[host] = filepath.Join(t.TempDir(), "host")
		keys, _, err := hostkeys.Ensure(folders[host], time.Unix(1, 0))
		require.NoError(t, err)
		p.keys[host] = keys
		p.host(host, keys.Public()...)
	}
	p.instance("usa", "hub", "identity: {kind: Ledger, value: one, publish: [value, token]}")
	p.instance("deu", "spoke", `a: {kind: Ledger, value: "${instances.usa.identity.value} and ${instances.usa.identity.token}"}`, "b: {kind: Ledger, value: alone}")
	fleet := p.load()
	p.usa, p.usaL = p.worker(fleet, "usa", folders["usa-01"])
	p.deu, p.deuL = p.worker(fleet, "deu", folders["deu-01"])
	p.deu.Statuses = p
	p.merge()
	return p
}

func (p *pair) file(name, text string) { p.files[name] = &fstest.MapFile{Data: []byte(text)} }

func (p *pair) host(name string, pairs ...hostkeys.PublicPair) {
	text := fmt.Sprintf("apiVersion: dive/v1alpha1\nkind: Host\nmetadata: {name: %s}\nspec:\n  recipients: [", name)
	for i, one := range pairs {
		text += strings.Repeat(", ", min(i, 1)) + one.Recipient
	}
	text += "]\n  signingKeys: ["
	for i, one := range pairs {
		text += strings.Repeat(", ", min(i, 1)) + one.SigningKey
	}
	p.file("hosts/"+name+".yaml", text+"]\n")
}

func (p *pair) instance(name, role string, components ...string) {
	p.file("instances/"+name+".yaml", fmt.Sprintf("apiVersion: dive/v1alpha1\nkind: Instance\nmetadata: {name: %s}\nspec:\n  role: %s\n  host: %s-01\n  components:\n    %s\n",
		name, role, name, strings.Join(components, "\n    ")))
}

func (p *pair) load() *desired.Fleet {
	p.Helper()
	fleet, err := desired.LoadFS(p.files, desired.Options{Kinds: []desired.Kind{{Name: "Ledger", New: func() any { return &entry{} }}}})
	require.NoError(p, err)
	return fleet
}

func (p *pair) worker(fleet *desired.Fleet, name, keys string) (*worker, *ledger) {
	p.Helper()
	w := newWorld(p.T)
	w.instance = fleet.Instances[name]
	on, _ := newHost(p.T, w)
	on.Host, on.HostKeys = name+"-01", keys
	on.workers[name] = on
	return on, w.ledger
}

// merge makes both hosts take the manifests as they are now.
func (p *pair) merge() {
	p.Helper()
	p.fleet = p.load()
	for _, w := range []*worker{p.usa, p.deu} {
		w.assigned = &assignment{revision: w.assigned.revision, fleet: p.fleet, instance: p.fleet.Instances[w.name]}
	}
}

// Read is Statuses: what usa has published so far, or what the test puts in its place.
func (p *pair) Read(_ context.Context, list []peers.Peer, taken func(string) *peers.Taken) ([]peers.Answer, error) {
	p.Helper()
	if p.err != nil {
		return nil, p.err
	}
	require.Equal(p, []peers.Peer{{Instance: "usa", Host: "usa-01", SigningKeys: []string{p.keys["usa-01"].Public()[0].SigningKey}}}, list)
	a := p.answer
	a.Peer, a.Taken = list[0], taken("usa")
	if a.Refused != nil || a.Missing || a.Err != nil {
		return []peers.Answer{a}, nil
	}
	next := &peers.Taken{Instance: "usa", Host: "usa-01", Committed: p.usa.Clock.Now(), Revision: p.applied}
	if d := p.document(); d != nil {
		if p.alter != nil {
			p.alter(d)
		}
		content, err := d.Encode()
		require.NoError(p, err)
		next.Generation, next.Content = d.Generation, content
	}
	next.Commit = published.Digest(next.Content) + next.Committed.String() + p.applied
	a.Fresh = a.Taken == nil || a.Taken.Commit != next.Commit
	a.Taken = next
	return []peers.Answer{a}, nil
}

// document is what usa published last; nil: nothing.
func (p *pair) document() *published.Document {
	p.Helper()
	var record *published.Record
	require.NoError(p, p.usa.Store.View(p.Context(), func(r state.Reader) (err error) {
		record, err = readRecord(r, "usa")
		return err
	}))
	if record == nil {
		return nil
	}
	return &record.Document
}

// read has deu's agent read, and says whether it was roused.
func (p *pair) read() bool {
	p.Helper()
	p.deu.take()
	require.NoError(p, p.deu.ReadStatuses(p.Context()))
	return p.deu.take() == "imports"
}

// round makes a round of deu and gives its status.
func (p *pair) round() *report.Status {
	p.Helper()
	p.deu.round(p.Context(), "test")
	status, err := p.deu.Status(p.Context(), "deu")
	require.NoError(p, err)
	return status
}

func condition(t *testing.T, s *report.Status, name string) report.Condition {
	t.Helper()
	for _, c := range s.Conditions {
		if c.Type == name {
			return c
		}
	}
	t.Fatalf("there is no condition %s in %v", name, s.Conditions)
	return report.Condition{}
}

// change gives usa's output another value.
func (p *pair) change(value string) {
	p.Helper()
	p.instance("usa", "hub", "identity: {kind: Ledger, value: "+value+", publish: [value, token]}")
	p.merge()
	p.advance(time.Minute)
	p.usa.round(p.Context(), "test")
}

func (p *pair) advance(d time.Duration) {
	p.usa.Clock.(*handClock).move(d)
	p.deu.Clock.(*handClock).move(d)
}

func TestValuesCrossHosts(t *testing.T) {
	p := newPair(t)
	require.True(t, p.read() || p.document() == nil)
	require.Equal(t, []string{"a waits for instances.usa.identity.token, instances.usa.identity.value: usa has not published it yet"}, p.round().Why)
	require.Equal(t, []string{"b"}, p.deuL.made())

	p.usa.round(t.Context(), "test")
	require.True(t, p.read())
	status := p.round()
	require.Equal(t, report.Ready, status.Phase)
	require.Equal(t, "one and token-of-one", p.deuL.entries["a"])
	require.True(t, condition(t, status, "ImportsVerified").Status)
	require.False(t, p.read(), "nothing new")

	// a secret stands nowhere but in what is sealed
	content, err := p.document().Encode()
	require.NoError(t, err)
	require.NotContains(t, string(content), "token-of-one")
	require.Contains(t, string(content), "value: one")
	require.True(t, p.deu.Redactor.Contains("token-of-one"))

	first := p.document().Generation
	p.usa.round(t.Context(), "test")
	require.Equal(t, first, p.document().Generation, "what did not change is not sealed anew")
	p.change("two")
	require.True(t, p.read())
	p.round()
	require.Equal(t, "two and token-of-two", p.deuL.entries["a"])
	require.Equal(t, []string{"b", "a", "a"}, p.deuL.made(), "only the consumer")

	// the heartbeat alone disturbs nobody
	p.advance(15 * time.Minute)
	require.False(t, p.read())
}

func TestOnlyReadersGetASecret(t *testing.T) {
	p := newPair(t)
	p.usa.round(t.Context(), "test")
	token := published.Key{Component: "identity", Name: "token"}
	require.Equal(t, []string{"deu-01"}, p.document().Find(token).Readers)

	p.instance("deu", "spoke", `a: {kind: Ledger, value: "${instances.usa.identity.value}"}`)
	p.change("two")
	require.Nil(t, p.document().Find(token), "who was a reader gets no new one")
	require.NotNil(t, p.document().Find(published.Key{Component: "identity", Name: "value"}))
	status, err := p.usa.Status(t.Context(), "usa")
	require.NoError(t, err)
	require.Equal(t, report.Ready, status.Phase)

	p.instance("deu", "spoke", `a: {kind: Ledger, value: "${instances.usa.identity.token}"}`)
	p.host("deu-01") // which was not enrolled
	p.change("three")
	require.Nil(t, p.document().Find(token))
	status, err = p.usa.Status(t.Context(), "usa")
	require.NoError(t, err)
	c := condition(t, status, "OutputsPublished")
	require.False(t, c.Status)
	require.Contains(t, c.Message, "identity.token is not sealed to deu-01, which hosts deu: hosts/deu-01.yaml has no recipient")

	// another host's sealed value does not open here
	p.host("deu-01", p.keys["usa-01"].Public()...)
	p.file("hosts/usa-01.yaml", "apiVersion: dive/v1alpha1\nkind: Host\nmetadata: {name: usa-01}\nspec: {signingKeys: ["+p.keys["usa-01"].Public()[0].SigningKey+"]}\n")
	p.files["hosts/deu-01.yaml"].Data = []byte("apiVersion: dive/v1alpha1\nkind: Host\nmetadata: {name: deu-01}\nspec: {recipients: [" + p.keys["usa-01"].Public()[0].Recipient + "]}\n")
	p.change("four")
	p.read()
	require.Contains(t, strings.Join(p.round().Why, "\n"), "it is not sealed to this host")
}

// TestACopiedSecretIsNotUsed: who can sign for usa puts there what another host sealed to deu, and what usa sealed before.
func TestACopiedSecretIsNotUsed(t *testing.T) {
	p := newPair(t)
	p.usa.round(t.Context(), "test")
	require.True(t, p.read())
	p.round()
	require.Equal(t, "one and token-of-one", p.deuL.entries["a"])
	token := published.Key{Component: "identity", Name: "token"}
	former := p.document().Find(token).Sealed
	foreign, err := published.Seal(published.Place{Instance: "fra", Host: "fra-01", Key: token, Generation: 2}, "token-of-fra", "", p.fleet.Hosts["deu-01"].Recipients)
	require.NoError(t, err)
	for i, sealed := range []string{former, foreign} {
		made := len(p.deuL.made())
		p.alter = func(d *published.Document) { d.Find(token).Sealed = sealed }
		p.change(fmt.Sprintf("value-%d", i))
		require.True(t, p.read())
		status := p.round()
		require.Contains(t, strings.Join(status.Why, "\n"), "somebody copied it")
		require.NotContains(t, strings.Join(status.Why, "\n"), "token-of")
		require.Len(t, p.deuL.made(), made, "nothing is made with it")
		require.Equal(t, "one and token-of-one", p.deuL.entries["a"])
	}
	p.alter = nil
	p.change("two")
	require.True(t, p.read())
	require.Equal(t, report.Ready, p.round().Phase)
	require.Equal(t, "two and token-of-two", p.deuL.entries["a"])
}

func TestAPlainOutputThatHoldsASecretIsNotPublished(t *testing.T) {
	p := newPair(t)
	p.usa.Redactor.Add("hunter2/hunter2")
	p.change("https://hunter2%2Fhunter2@usa")
	status, err := p.usa.Status(t.Context(), "usa")
	require.NoError(t, err)
	require.Contains(t, condition(t, status, "OutputsPublished").Message, "identity.value is not published: it holds a secret")
	require.Nil(t, p.document().Find(published.Key{Component: "identity", Name: "value"}))
}

// TestWhatIsRefusedChangesNothing: the last good values stay, and the status says which, why and since when.
func TestWhatIsRefusedChangesNothing(t *testing.T) {
	p := newPair(t)
	p.usa.round(t.Context(), "test")
	p.read()
	p.round()
	made := len(p.deuL.made())
	p.change("two")
	p.answer.Refused = &peers.Refusal{Commit: "abc", Reason: peers.NotSigned, Message: "commit abc does not count as usa-01's: it is not signed", Do: "find out who"}
	require.True(t, p.read())
	status := p.round()
	c := condition(t, status, "ImportsVerified")
	require.False(t, c.Status)
	require.Equal(t, "NotSigned", c.Reason)
	require.Contains(t, c.Message, "the status of usa is refused: commit abc does not count as usa-01's: it is not signed; what was read before, generation ")
	require.Contains(t, status.Why, c.Message)
	require.Contains(t, status.Next, "find out who")
	require.Equal(t, report.Ready, status.Phase, "what runs is not touched by it")
	require.Len(t, p.deuL.made(), made)
	events, _ := p.deu.bus.after(0)
	require.True(t, func() bool {
		for _, e := range events {
			if e.Kind == "imports" && e.State == "NotSigned" && e.Instance == "deu" {
				return true
			}
		}
		return false
	}())
	p.advance(time.Minute)
	require.False(t, p.read(), "the same is no news")
	require.Equal(t, c.Since, condition(t, p.round(), "ImportsVerified").Since)

	p.answer.Refused = nil
	require.True(t, p.read())
	require.True(t, condition(t, p.round(), "ImportsVerified").Status)
	require.Equal(t, "two and token-of-two", p.deuL.entries["a"])
}

// TestValuesStayWithGitAway, over a restart too; and their age is told.
func TestValuesStayWithGitAway(t *testing.T) {
	p := newPair(t)
	p.usa.round(t.Context(), "test")
	p.read()
	p.round()
	p.deu.peers.known, p.deu.peers.opened = nil, nil // as at a start
	p.err = errors.New("connection refused")
	require.ErrorContains(t, p.deu.ReadStatuses(t.Context()), "connection refused")
	status := p.round()
	require.Equal(t, report.Ready, status.Phase)
	require.Equal(t, []string{"b", "a"}, sorted(p.deuL.made()))
	c := condition(t, status, "ImportsCurrent")
	require.Equal(t, "GitUnreachable", c.Reason)
	require.Contains(t, c.Message, "connection refused")

	p.err = nil
	p.read()
	require.True(t, condition(t, p.round(), "ImportsCurrent").Status)
	p.answer.Missing = true // nobody writes the branch any more
	p.advance(46 * time.Minute)
	p.read()
	c = condition(t, p.round(), "ImportsCurrent")
	require.Equal(t, "Stale", c.Reason)
	require.Contains(t, c.Message, "nothing was heard of the agent of usa since ")
	require.Equal(t, report.Ready, status.Phase)
}

func sorted(made []string) []string { // the two entries are made side by side
	if len(made) == 2 && made[0] == "a" {
		return []string{made[1], made[0]}
	}
	return made
}

func TestAStateThatCannotBeWrittenTakesNothing(t *testing.T) {
	p := newPair(t)
	p.usa.round(t.Context(), "test")
	require.NoError(t, p.deu.recallPeers(t.Context()))
	p.deu.Store.(*state.Failing).FailAt(1)
	require.ErrorContains(t, p.deu.ReadStatuses(t.Context()), "the disk is away")
	require.Nil(t, p.deu.neighbour("usa").taken)
	require.True(t, p.read(), "it is tried again")
}
