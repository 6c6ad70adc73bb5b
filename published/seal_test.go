package published_test

import (
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/stretchr/testify/require"

	"dive-agent/published"
)

func identity(t testing.TB) *age.X25519Identity {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	return id
}

var place = published.Place{Instance: "usa", Host: "usa-01", Key: published.Key{Component: "federation", Name: "token", For: "deu"}, Generation: 7}

const token = "a token that nobody may see"

func TestASealedValueOpensAtItsPlaceAlone(t *testing.T) {
	t.Parallel()
	deu, old := identity(t), identity(t)
	sealed, err := published.Seal(place, token, "", []string{deu.Recipient().String(), old.Recipient().String()})
	require.NoError(t, err)
	require.NotContains(t, sealed, "token")
	for _, id := range []age.Identity{deu, old} { // while a host's key rotates
		text, typ, err := published.Open(place, sealed, identity(t), id)
		require.NoError(t, err)
		require.Equal(t, token, text)
		require.Empty(t, typ)
	}

	elsewhere := map[string]func(*published.Place){
		"another instance":   func(p *published.Place) { p.Instance = "fra" },
		"another host":       func(p *published.Place) { p.Host = "usa-02" },
		"another component":  func(p *published.Place) { p.Key.Component = "identity" },
		"another name":       func(p *published.Place) { p.Key.Name = "client_secret" },
		"another reader":     func(p *published.Place) { p.Key.For = "fra" },
		"for all":            func(p *published.Place) { p.Key.For = "" },
		"another generation": func(p *published.Place) { p.Generation = 8 },
		"names run together": func(p *published.Place) { p.Key.Component, p.Key.Name = "federation.token", "" },
	}
	for name, move := range elsewhere {
		other := place
		move(&other)
		_, _, err := published.Open(other, sealed, deu)
		var refused *published.SealedError
		require.ErrorAs(t, err, &refused, name)
		require.Contains(t, err.Error(), "somebody copied it", name)
		require.NotContains(t, err.Error(), token)
	}
}

func TestWhatCannotBeOpened(t *testing.T) {
	t.Parallel()
	deu := identity(t)
	sealed, err := published.Seal(place, token, published.JSON, []string{deu.Recipient().String()})
	require.NoError(t, err)
	open := func(sealed string, ids ...age.Identity) string {
		t.Helper()
		_, _, err := published.Open(place, sealed, ids...)
		var refused *published.SealedError
		require.ErrorAs(t, err, &refused)
		require.NotContains(t, err.Error(), token)
		return refused.Reason
	}
	require.Contains(t, open(sealed), "no key")
	require.Equal(t, "it is not sealed to this host", open(sealed, identity(t)))
	require.Equal(t, "its type is unknown", open(sealed, deu), "it is no JSON")
	for cut := range len(sealed) - 1 { // at every byte; the last one is a newline
		open(sealed[:cut], deu)
	}
	lines := strings.Split(sealed, "\n")
	lines[3] = strings.Map(func(r rune) rune {
		if r == 'A' {
			return 'B'
		}
		return 'A'
	}, lines[3])
	require.Equal(t, "it is damaged", open(strings.Join(lines, "\n"), deu))
	require.Equal(t, "it is damaged", open(token, deu))
}

func TestNobodyToSealTo(t *testing.T) {
	t.Parallel()
	_, err := published.Seal(place, token, "", nil)
	require.ErrorContains(t, err, "nobody")
	_, err = published.Seal(place, token, "", []string{identity(t).String()})
	require.ErrorContains(t, err, "no age recipient")
}
