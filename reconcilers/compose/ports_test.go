package compose

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTakenPortsAreNamed(t *testing.T) {
	for said, port := range map[string]string{
		"Error starting userland proxy: listen tcp4 127.0.0.1:41123: bind: address already in use": "41123",
		"Bind for 0.0.0.0:8080 failed: port is already allocated":                                  "8080",
		"failed to bind host port for 0.0.0.0:8081:172.17.0.2:80/tcp: address already in use":      "8081",
		"failed to bind host port 127.0.0.1:8082/tcp: address already in use":                      "8082",
		"no such image": "",
	} {
		require.Equal(t, port, takenPort(said), said)
	}
}
