package keycloak

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/terraform-exec/tfexec"
	"github.com/stretchr/testify/require"

	"dive-agent/reconcilers"
)

// ofOneTool shows that a realm stays with the program that made it, and that no other version of it is run.
func ofOneTool(t *testing.T, b *bed) {
	w := newWorld(t, b, "")
	w.spec.ToolVersion = ">= 99, < 100"
	observed, plan := w.look()
	var blocked *reconcilers.BlockedError
	require.ErrorAs(t, observed.Err, &blocked)
	require.Equal(t, "ToolVersion", blocked.Reason)
	require.Contains(t, blocked.Message, "the manifest wants >= 99, < 100")
	require.Empty(t, plan.Changes)
	require.Equal(t, "no realm", w.picture(t))

	w.spec.ToolVersion = ">= 1.0, < 2"
	require.NotEmpty(t, w.drive())

	// A version manager stands at the same path, as it was, and runs another version from one day to the next.
	w.manageVersions()
	w.spec.ToolVersion, w.spec.Variables["title"] = ">= 99, < 100", tree(t, "Another title")
	require.NoError(t, os.WriteFile(w.tool+".version", []byte("99.1.2"), 0o600))
	observed, plan = w.look()
	require.ErrorAs(t, observed.Err, &blocked)
	require.Equal(t, "ToolVersion", blocked.Reason)
	require.Contains(t, blocked.Message, "the manifest wants >= 99, < 100", "the version that a plan tells is compared, too")
	require.Empty(t, plan.Changes)
	w.spec.ToolVersion = ">= 1.0, < 2"
	observed, _ = w.look()
	require.ErrorAs(t, observed.Err, &blocked, "it says that it is 99.1.2")
	require.NoError(t, os.Remove(w.tool+".version"))
	require.Len(t, w.drive(), 2, "what was known of the version refuses nothing")

	before := w.processes()
	made := w.spec.tool()
	w.spec.Tool = map[string]string{terraform: opentofu, opentofu: terraform}[made]
	observed, plan = w.look()
	require.ErrorAs(t, observed.Err, &blocked)
	require.Equal(t, "ToolChanged", blocked.Reason)
	require.Contains(t, blocked.Do, "Put `tool: "+made+"` back")
	require.Empty(t, plan.Changes)
	require.Equal(t, before, w.processes(), "the other program did not even start")

	w.spec.Tool = made
	observed, plan = w.look()
	require.NoError(t, observed.Err)
	require.Empty(t, plan.Changes)

	// On purpose, as the message says. That the program is the same one here is no matter: the agent does not know.
	w.spec.Tool, w.spec.Adopt = map[string]string{terraform: opentofu, opentofu: terraform}[made], true
	require.NoError(t, os.Remove(filepath.Join(w.target.Dir, "terraform.tfstate")))
	for _, line := range w.drive() {
		require.True(t, strings.HasPrefix(line, "update ") || strings.HasPrefix(line, "create output."), line)
	}
}

// manageVersions puts a version manager in the tool's place, which tells the version in the file beside it, if there is one.
func (w *world) manageVersions() {
	w.t.Helper()
	script, err := os.ReadFile(w.tool)
	require.NoError(w.t, err)
	lines := strings.SplitN(string(script), "\n", 2)
	lines[0] += fmt.Sprintf(`
if [ "$1" = version ] && [ -e '%[1]s.version' ]; then
	echo "$1" >>'%[2]s'
	echo "{\"terraform_version\": \"$(cat '%[1]s.version')\"}"
	exit
fi`, w.tool, w.calls)
	require.NoError(w.t, os.WriteFile(w.tool, []byte(strings.Join(lines, "\n")), 0o755))
}

func TestToolIsFoundInPathOrAtItsPath(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	_, err := findTool(&Spec{Tool: opentofu}, reconcilers.Deps{})
	require.ErrorIs(t, err, exec.ErrNotFound)
	require.ErrorContains(t, err, "set opentofu.path in the agent's configuration")

	for _, name := range []string{"tofu", "terraform", "other"} {
		require.NoError(t, os.WriteFile(dir+"/"+name, []byte("#!/bin/sh\n"), 0o700))
	}
	for _, c := range []struct {
		tool, path, want string
	}{
		{"", "", "/terraform"},
		{opentofu, "", "/tofu"},
		{opentofu, dir + "/other", "/other"},
	} {
		tool, err := findTool(&Spec{Tool: c.tool}, reconcilers.Deps{OpenTofu: reconcilers.Terraform{Path: c.path}})
		require.NoError(t, err)
		require.Equal(t, dir+c.want, tool.Path)
	}
}

// over is a context that ends between the library's look at it and its look after a process was started.
type over struct{ context.Context }

func (over) Done() <-chan struct{} { return nil }
func (over) Err() error            { return context.Canceled }

// The library's error for a process that ended well when its context was over panics when it is asked for its text.
func TestAProcessThatWasStoppedAtItsEndIsTold(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	tf, err := tfexec.NewTerraform(dir, "/bin/true")
	require.NoError(t, err)
	_, _, err = tf.Version(over{t.Context()}, true)
	require.ErrorIs(t, err, context.Canceled)
	require.Panics(t, func() { _ = err.Error() }, "the library mended it: what stands in for it can go")
	require.Equal(t, "it was stopped before its end", brief(err))
	l := &look{spec: &Spec{Module: "realm"}, work: &workspace{toolName: terraform}}
	require.EqualError(t, l.failed("apply", &stream{}, err), "terraform apply of module realm did not end in time: context deadline exceeded")
}
