package compose

import (
	"context"
	"strings"
	"testing"

	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

const builtStack = `
services:
  web:
    build: {context: ./app, target: last, args: {BASE: "${IMAGE}", WORD: "${WORD:-one}"}}
    init: true
    command: [bash, -c, "${RUN}"]
    healthcheck: {test: [CMD, "true"], interval: 300ms}
`

// An image is built of the repository when what it is made of changed, and only then; a bad one touches nothing.
func TestBuild(t *testing.T) {
	t.Parallel()
	w := newWorld(t, builtStack)
	t.Cleanup(func() {
		w.clean()
		ctx := context.WithoutCancel(t.Context())
		list, _ := w.engine.ImageList(ctx, client.ImageListOptions{Filters: make(client.Filters).Add("label", builtLabel+"="+w.project+"/web")})
		for _, image := range list.Items {
			_, _ = w.engine.ImageRemove(ctx, image.ID, client.ImageRemoveOptions{Force: true, PruneChildren: true})
		}
	})
	const dockerfile = "ARG BASE\nFROM $BASE AS first\nFROM first AS last\nARG WORD\nENV WORD=$WORD\nCOPY . /app\nRUN chmod +x /app/run && echo built > /built\n"
	w.write(map[string]string{"app/Dockerfile": dockerfile, "app/run": "run", "app/skip/secret": "x", "app/.dockerignore": "skip\n.dockerignore\n"})
	p := w.plan(SharedPart)
	var builds []reconcilers.Change
	for _, c := range p.Changes {
		if strings.HasPrefix(c.Reason, "build:") {
			builds = append(builds, c)
		}
	}
	require.Len(t, builds, 1)
	require.Contains(t, builds[0].Address, "image dive-build/"+w.project+"-web:")
	w.up("web")
	require.Equal(t, "built\n", w.exec(t, "web", "cat", "/built"))
	require.Equal(t, "Dockerfile\nrun\n", w.exec(t, "web", "ls", "/app"))
	require.Contains(t, w.inspect("web").Config.Env, "WORD=one")
	first := w.inspect("web")

	// What is left out of the context, and a touched file, change nothing.
	w.write(map[string]string{"app/skip/secret": "other", "app/run": "run"})
	w.restart()
	w.inSync(SharedPart)
	w.inSync("web")

	w.write(map[string]string{"app/run": "run more"})
	require.Contains(t, w.change("web").Reason, "image "+first.Config.Image+" -> dive-build/")
	w.up("web")
	require.Equal(t, "run more", w.exec(t, "web", "cat", "/app/run"))
	w.set("WORD", "two")
	w.up("web")
	require.Contains(t, w.inspect("web").Config.Env, "WORD=two")

	// One that cannot be built.
	before := w.inspect("web").ID
	w.write(map[string]string{"app/Dockerfile": dockerfile + "RUN echo no such module >&2; exit 7\n"})
	bad := rejected(t, w.try(SharedPart))
	require.Equal(t, "the image of service web cannot be built", bad.Message)
	require.Equal(t, untouched, bad.PutBack)
	require.Contains(t, strings.Join(bad.Logs, "\n")+bad.Error(), "no such module")
	require.Equal(t, before, w.inspect("web").ID)

	// Back to what was: nothing is built again.
	w.write(map[string]string{"app/Dockerfile": dockerfile})
	w.inSync(SharedPart)
	w.inSync("web")

	// The last ones are kept, and no more.
	for _, word := range []string{"three", "four", "five"} {
		w.set("WORD", word)
		w.up("web")
	}
	list, err := w.engine.ImageList(t.Context(), client.ImageListOptions{Filters: make(client.Filters).Add("label", builtLabel+"="+w.project+"/web")})
	require.NoError(t, err)
	tagged := 0
	for _, image := range list.Items {
		if len(image.RepoTags) > 0 && image.RepoTags[0] != "<none>:<none>" {
			tagged++
		}
	}
	require.LessOrEqual(t, tagged, builtKept+1)

	// An argument that is not known yet builds nothing.
	w.spec.Environment["WORD"] = w.expr("${database.uri}")
	w.outputs["uri"] = desired.Unknown()
	require.Empty(t, w.plan(SharedPart).Changes)
}
