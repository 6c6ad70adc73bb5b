package published_test

import (
	"encoding/json"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/stretchr/testify/require"

	"dive-agent/published"
)

var (
	key   = []byte("0123456789abcdef0123456789abcdef")
	start = time.Date(2026, 11, 22, 17, 0, 0, 500, time.UTC)
	realm = published.Key{Component: "identity", Name: "realm_url"}
	pass  = published.Key{Component: "identity", Name: "client_secret"}
)

// chain makes records one after the other, each kept and read back as the agent does.
type chain struct {
	*testing.T
	last *published.Record
	now  time.Time
	host string
}

func (c *chain) next(values ...published.Value) (*published.Document, bool) {
	c.Helper()
	c.now = c.now.Add(time.Second)
	next, changed, err := published.Next(c.last, "usa", c.host, values, key, c.now)
	require.NoError(c, err)
	if next == nil {
		return nil, changed
	}
	kept, err := json.Marshal(next)
	require.NoError(c, err)
	c.last = &published.Record{}
	require.NoError(c, json.Unmarshal(kept, c.last))
	content, err := c.last.Document.Encode()
	require.NoError(c, err)
	_, err = published.Decode(content)
	require.NoError(c, err)
	return &c.last.Document, changed
}

func plainValue(text string) published.Value {
	return published.Value{Key: realm, Text: text, Known: true}
}

func secretValue(text string, readers ...published.Reader) published.Value {
	return published.Value{Key: pass, Text: text, Known: true, Secret: true, Readers: readers}
}

func reader(host string, ids ...*age.X25519Identity) published.Reader {
	r := published.Reader{Host: host}
	for _, id := range ids {
		r.Recipients = append(r.Recipients, id.Recipient().String())
	}
	return r
}

func TestOnlyWhatChangesIsSealedAnew(t *testing.T) {
	t.Parallel()
	deu, fra := identity(t), identity(t)
	c := &chain{T: t, now: start, host: "usa-01"}
	none, changed := c.next()
	require.Nil(t, none, "who never published anything has no document")
	require.False(t, changed)

	first, changed := c.next(plainValue("https://usa/1"), secretValue("one", reader("deu-01", deu)))
	require.True(t, changed)
	require.Equal(t, c.now.Unix(), first.Generation)
	same, changed := c.next(secretValue("one", reader("deu-01", deu)), plainValue("https://usa/1"))
	require.False(t, changed)
	require.Equal(t, first, same)

	second, changed := c.next(plainValue("https://usa/2"), secretValue("one", reader("deu-01", deu)))
	require.True(t, changed)
	require.Equal(t, c.now.Unix(), second.Generation)
	require.Equal(t, *first.Find(pass), *second.Find(pass), "the secret stays as it is, to the byte")
	require.Equal(t, second.Generation, second.Find(realm).Generation)

	// another reader, another recipient of one, another value
	third, _ := c.next(plainValue("https://usa/2"), secretValue("one", reader("fra-01", fra), reader("deu-01", deu)))
	require.Equal(t, []string{"deu-01", "fra-01"}, third.Find(pass).Readers)
	require.Equal(t, *second.Find(realm), *third.Find(realm))
	rotated := identity(t)
	fourth, _ := c.next(plainValue("https://usa/2"), secretValue("one", reader("fra-01", fra), reader("deu-01", deu, rotated)))
	for _, id := range []age.Identity{deu, fra, rotated} {
		text, _, err := published.Open(fourth.Place(fourth.Find(pass)), fourth.Find(pass).Sealed, id)
		require.NoError(t, err)
		require.Equal(t, "one", text)
	}

	// a reader that is taken away gets no new value
	fifth, changed := c.next(plainValue("https://usa/2"), secretValue("two", reader("deu-01", deu)))
	require.True(t, changed)
	_, _, err := published.Open(fifth.Place(fifth.Find(pass)), fifth.Find(pass).Sealed, fra)
	require.ErrorContains(t, err, "not sealed to this host")

	// a secret of another generation in the place of this one
	_, _, err = published.Open(fifth.Place(fifth.Find(pass)), fourth.Find(pass).Sealed, deu)
	require.ErrorContains(t, err, "somebody copied it")
}

func TestWhatIsNotPublished(t *testing.T) {
	t.Parallel()
	deu := identity(t)
	c := &chain{T: t, now: start, host: "usa-01"}
	d, _ := c.next(plainValue("https://usa/1"), secretValue("one"))
	require.Nil(t, d.Find(pass), "a secret that nobody reads")
	d, changed := c.next(plainValue("https://usa/1"), secretValue("one", reader("deu-01")))
	require.False(t, changed)
	require.Nil(t, d.Find(pass), "nor one whose reader has no key yet")
	d, _ = c.next(plainValue("https://usa/1"), secretValue("one", reader("deu-01", deu)))
	require.NotNil(t, d.Find(pass))

	unknown := published.Value{Key: pass, Secret: true, Readers: []published.Reader{reader("deu-01", deu)}}
	same, changed := c.next(plainValue("https://usa/1"), unknown)
	require.False(t, changed, "what cannot be told now stays")
	require.Equal(t, d, same)
	d, _ = c.next(published.Value{Key: realm, Secret: true}, secretValue("one", reader("deu-01", deu)))
	require.Nil(t, d.Find(realm), "what turns out to be secret does not stay plain")
	d, changed = c.next(secretValue("one"))
	require.True(t, changed)
	require.Empty(t, d.Outputs, "the last reader went")
	_, changed = c.next()
	require.False(t, changed)
}

func TestTheGenerationNeverGoesBack(t *testing.T) {
	t.Parallel()
	c := &chain{T: t, now: start, host: "usa-01"}
	first, _ := c.next(plainValue("1"))
	c.now = c.now.Add(-time.Hour) // the clock went back
	second, _ := c.next(plainValue("2"))
	require.Equal(t, first.Generation+1, second.Generation)
	c.now = start.Add(time.Hour)
	c.last = nil // the state was lost
	third, _ := c.next(plainValue("3"))
	require.Greater(t, third.Generation, second.Generation)

	deu := identity(t)
	here, _ := c.next(secretValue("one", reader("deu-01", deu)))
	c.host = "usa-02"
	moved, changed := c.next(secretValue("one", reader("deu-01", deu)))
	require.True(t, changed, "what moves is sealed for its new place")
	require.Greater(t, moved.Generation, here.Generation)
	text, _, err := published.Open(moved.Place(moved.Find(pass)), moved.Find(pass).Sealed, deu)
	require.NoError(t, err)
	require.Equal(t, "one", text)
}

func TestTooMuchIsNotPublished(t *testing.T) {
	t.Parallel()
	_, changed, err := published.Next(nil, "usa", "usa-01", []published.Value{plainValue(string(make([]byte, published.MaxBytes)))}, key, start)
	require.ErrorContains(t, err, "publish less")
	require.False(t, changed)
}
