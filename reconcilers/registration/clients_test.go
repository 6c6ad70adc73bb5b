package registration

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestOneClientForEachHub: a hub whose authority rotates leaves none behind.
func TestOneClientForEachHub(t *testing.T) {
	t.Parallel()
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	var c clients
	defer c.close()
	first, err := c.get(server.URL, ca)
	require.NoError(t, err)
	again, err := c.get(server.URL, ca)
	require.NoError(t, err)
	require.Same(t, first, again)
	rotated, err := c.get(server.URL, ca+ca)
	require.NoError(t, err)
	require.NotSame(t, first, rotated)
	require.Len(t, c.made, 1)
}
