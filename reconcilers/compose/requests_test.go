package compose

import (
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/testbed"
)

const servingStack = `
services:
  web:
    image: ${IMAGE}
    init: true
    command: [python3, /load/server.py]
    environment: {COLOUR: "${COLOUR:-red}", WARMUP: "2"}
    volumes: ["./load:/load:ro"]
    healthcheck: {test: [CMD, curl, -sf, "http://localhost/"], interval: 300ms, start_period: 10s}
    deploy: {replicas: "${REPLICAS:-1}", update_config: {order: start-first, monitor: 1s}}
  client:
    image: ${IMAGE}
    init: true
    command: [python3, /load/client.py]
    volumes: ["./load:/load:ro"]
    stop_grace_period: 30s
`

// TestNoRequestIsLost: a client that asks for the address each time and tries once loses nothing while a server that dies
// when it is told to, and answers 503 before it is ready, is changed twice, or put back.
func TestNoRequestIsLost(t *testing.T) {
	for _, replicas := range []string{"1", "2"} {
		t.Run(replicas+" replicas", func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, servingStack)
			w.write(map[string]string{"load/server.py": testbed.LoadServer, "load/client.py": testbed.LoadClient})
			w.set("REPLICAS", replicas)
			w.up("web", "client")
			w.set("COLOUR", "blue")
			require.NoError(t, w.try("web"))
			w.inSync("web")
			w.write(map[string]string{"compose.yaml": regexp.MustCompile(`http://localhost/`).ReplaceAllString(servingStack, "http://localhost:81/")})
			require.Contains(t, rejected(t, w.try("web")).PutBack, "put back to")
			w.write(map[string]string{"compose.yaml": servingStack})
			w.set("COLOUR", "green")
			require.NoError(t, w.try("web"))
			counted, err := testbed.CountRequests(t.Context(), w.engine, w.inspect("client").ID)
			require.NoError(t, err)
			t.Log(counted.Said)
			require.Greater(t, counted.Sent, 1000)
			require.Zero(t, counted.Lost, counted.Said)
		})
	}
}
