package browser_test

import (
	"fmt"
	"image/png"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/testbed"
	"dive-agent/testbed/browser"
)

// site counts how often a window was there, and greets by what was typed.
func site(w http.ResponseWriter, r *http.Request) {
	seen := "never"
	if _, err := r.Cookie("seen"); err == nil {
		seen = "before"
	}
	http.SetCookie(w, &http.Cookie{Name: "seen", Value: "yes", Secure: true}) // as Keycloak's are
	w.Header().Set("Content-Type", "text/html")
	_, _ = fmt.Fprintf(w, `<p id="seen">%s</p><p id="said"></p><p id="abroad"></p><input id="name" value="old"><button id="ok" onclick="said.innerText = 'Hello ' + document.getElementById('name').value">OK</button>
<script>fetch("http://dive.example/").then(() => "reached", () => "refused").then(t => abroad.innerText = t)</script>`, seen)
}

func TestABrowserIsUsedAsAPersonWould(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(site))
	t.Cleanup(server.Close)
	address := strings.Replace(server.URL, "127.0.0.1", "localhost", 1) + "/?code=hidden"

	b, err := browser.Start(t.Context(), "", testbed.LineProgress(os.Stderr))
	require.NoError(t, err)
	ended := false
	t.Cleanup(func() {
		if !ended {
			require.NoError(t, b.Close())
		}
	})
	page := func() *browser.Page {
		p, err := b.NewPage()
		require.NoError(t, err)
		require.NoError(t, p.Open(address))
		return p
	}
	text := func(p *browser.Page, element string) string {
		text, err := p.Text(element)
		require.NoError(t, err)
		return text
	}
	first := page()
	require.Equal(t, "never", text(first, "#seen"))
	require.NoError(t, first.Open(address))
	require.Equal(t, "before", text(first, "#seen"), "a cookie for TLS counts on this machine without")
	second := page()
	require.Equal(t, "never", text(second, "#seen"), "two people share nothing")

	require.NoError(t, first.Type("#name", "Eve"))
	require.NoError(t, first.Type("#name", "Ada"))
	require.NoError(t, first.Click("#ok"))
	require.Equal(t, "Hello Ada", text(first, "#said"))
	require.Equal(t, "refused", text(first, "#abroad"), "it reaches this machine alone")
	where, err := first.Address()
	require.NoError(t, err)
	require.NotContains(t, where, "hidden")
	value, err := browser.Evaluate[string](first, `document.querySelector("#name").value`)
	require.NoError(t, err)
	require.Equal(t, "Ada", value)

	file := filepath.Join(t.TempDir(), "page.png")
	require.NoError(t, first.Picture(file))
	picture, err := os.Open(file)
	require.NoError(t, err)
	defer picture.Close()
	shown, err := png.DecodeConfig(picture)
	require.NoError(t, err)
	require.Greater(t, shown.Width*shown.Height, 300*300)

	closed, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, closed.Close())
	err = second.Open("http://" + closed.Addr().String() + "/?code=hidden")
	require.ErrorContains(t, err, "CONNECTION_REFUSED")
	require.NotContains(t, err.Error(), "hidden")

	first.Close()
	ended = true
	require.NoError(t, b.Close())
	require.Error(t, second.Open(address))
}
