package compose

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/reconcilers"
)

const minorStack = `
services:
  web:
    image: ${IMAGE}
    init: true
    command: [bash, -c, "${RUN}"]
    labels: {dive.service.class: "${CLASS}"}
    healthcheck: {test: [CMD, "true"], interval: 300ms}
`

// A version of an optional service that does not work is put back, fails that service alone, and is tried again when it
// changes, or when a person asks.
func TestMinorServiceIsNotRejected(t *testing.T) {
	t.Parallel()
	for _, class := range []string{"optional", "stretch"} {
		t.Run(class, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, minorStack)
			w.set("CLASS", class)
			w.up("web")
			w.set("RUN", "echo cannot; exit 7")
			err := w.try("web")
			var rejected *reconcilers.RejectedError
			require.False(t, errors.As(err, &rejected), "the revision is not to blame")
			require.ErrorContains(t, err, "service web exited with 7; put back to "+w.image)
			var blocked *reconcilers.BlockedError
			require.ErrorAs(t, err, &blocked)
			require.Equal(t, "VersionNotTaken", blocked.Reason)
			require.Contains(t, blocked.Do, "dive-agent sync deu --retry")
			id := w.inspect("web").ID
			w.restart()
			require.EqualError(t, w.observe("web").Err, err.Error())
			require.Empty(t, w.plan("web").Changes)
			require.Equal(t, "running", w.observe("web").Facts.Service.State)
			require.Equal(t, id, w.inspect("web").ID)

			target := w.target("web")
			target.Retry = true
			o, observeErr := w.r.Observe(t.Context(), target)
			require.NoError(t, observeErr)
			p, observeErr := w.r.Plan(target, o)
			require.NoError(t, observeErr)
			require.Equal(t, "command changed", p.Changes[0].Reason)
			w.set("RUN", serve+" # newer")
			w.up("web")
		})
	}
}

// The first version of an optional service that does not work is left, not tried over and over, and taken when it gets well.
func TestFirstVersionOfAMinorService(t *testing.T) {
	t.Parallel()
	w := newWorld(t, minorStack)
	w.set("CLASS", "optional")
	w.set("RUN", "echo cannot; exit 7")
	require.NoError(t, w.try(SharedPart))
	err := w.try("web")
	require.ErrorContains(t, err, "service web exited with 7; there is no earlier version to put back")
	for range 2 {
		require.EqualError(t, w.observe("web").Err, err.Error())
		require.Empty(t, w.plan("web").Changes)
	}
	w.set("RUN", serve)
	w.up("web")
}

// One of the others holds its revision up.
func TestOtherClassesAreRejected(t *testing.T) {
	t.Parallel()
	for _, class := range []string{"core", "infrastructure"} {
		t.Run(class, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, minorStack)
			w.set("CLASS", class)
			w.up("web")
			w.set("RUN", "exit 7")
			var rejected *reconcilers.RejectedError
			require.ErrorAs(t, w.try("web"), &rejected)
		})
	}
}

func TestClassesAreChecked(t *testing.T) {
	fleet, problems := repository(t, "", `services:
  a: {image: "a:1"}
  b: {image: "b:1", labels: {dive.service.class: optional}}
  c: {image: "c:1", labels: [dive.service.class=stretch]}
  d: {image: "d:1", labels: {dive.service.class: infrastructure}}
`, nil)
	require.Empty(t, problems)
	minor := map[string]bool{}
	for _, node := range fleet.Instances["deu"].Graph.Nodes {
		minor[node.ID] = node.Minor
	}
	require.Equal(t, map[string]bool{
		"database": false, "stack/@resources": false, "stack/a": false, "stack/b": true, "stack/c": true, "stack/d": false,
	}, minor)
	_, problems = repository(t, "", "services:\n  a: {image: \"a:1\", labels: {dive.service.class: option}}\n", nil)
	require.Len(t, problems, 1)
	require.Equal(t, `blueprints/spoke/compose.yaml:2:30: service a has the class "option": dive.service.class is one of core, infrastructure, optional, stretch, init`, problems[0].String())
}
