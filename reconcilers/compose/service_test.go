package compose

import (
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/reconcilers"
)

const twoServices = `
services:
  db:
    image: ${IMAGE}
    init: true
    command: [bash, -c, "${RUN}"]
    volumes: [data:/data]
    healthcheck: {test: [CMD, "true"], interval: 300ms}
  web:
    image: ${IMAGE}
    init: true
    command: [bash, -c, "${RUN}"]
    environment: {COLOUR: "${COLOUR:-red}"}
    depends_on: {db: {condition: service_healthy}}
volumes: {data: {}}
`

func TestStackComesUpAndStaysInSync(t *testing.T) {
	t.Parallel()
	w := newWorld(t, twoServices)
	w.up("db", "web")
	db, web := w.inspect("db"), w.inspect("web")
	require.Equal(t, "/"+w.project+"-db-1", db.Name)
	w.restart()
	for _, part := range []string{SharedPart, "db", "web"} {
		w.inSync(part)
	}
	require.Equal(t, "running, healthy", w.observe("db").Facts.Summary)

	w.set("COLOUR", "blue")
	w.inSync("db")
	change := w.change("web")
	require.Equal(t, reconcilers.Replace, change.Action)
	require.Equal(t, "environment COLOUR changed", change.Reason)
	w.up("db", "web")
	require.Equal(t, db.ID, w.inspect("db").ID, "a change of web must leave db alone")
	require.NotEqual(t, web.ID, w.inspect("web").ID)

	// Both change, one is applied: Compose left to itself would stop and recreate db along with web.
	w.set("RUN", serve+" # newer")
	require.NoError(t, w.try("web"))
	w.inSync("web")
	now := w.inspect("db")
	require.Equal(t, db.ID, now.ID)
	require.True(t, now.State.Running)
}
