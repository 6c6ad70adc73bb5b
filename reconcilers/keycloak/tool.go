package keycloak

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"

	"github.com/hashicorp/go-version"
	"github.com/hashicorp/terraform-exec/tfexec"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

// The programs that a manifest may choose. They read the same modules; each has provider addresses, a lock file and a
// state of its own, so that a realm stays with the one that made it.
const (
	terraform = "terraform"
	opentofu  = "opentofu"
)

// program is the executable's name in PATH, title the name in sentences.
var (
	program = map[string]string{terraform: "terraform", opentofu: "tofu"}
	title   = map[string]string{terraform: "Terraform", opentofu: "OpenTofu"}
)

func (s *Spec) tool() string {
	if s.Tool == "" {
		return terraform
	}
	return s.Tool
}

func (s *Spec) validateTool(c *desired.Check) {
	if _, known := program[s.tool()]; !known {
		c.Errorf(c.At("tool"), "tool %q: %s and %s are possible", s.Tool, terraform, opentofu)
	}
	if s.ToolVersion == "" {
		return
	}
	if _, err := version.NewConstraint(s.ToolVersion); err != nil {
		c.Errorf(c.At("toolVersion"), "toolVersion %q: not a list of comparisons such as \">= 1.9, < 2.0\"", s.ToolVersion)
	}
}

// findTool gives the tool that the spec chooses, with the executable's whole path.
func findTool(s *Spec, d reconcilers.Deps) (reconcilers.Terraform, error) {
	tool := d.Terraform
	if s.tool() == opentofu {
		tool = d.OpenTofu
	}
	if tool.Path == "" {
		tool.Path = program[s.tool()]
	}
	path, err := exec.LookPath(tool.Path)
	if err != nil {
		return tool, fmt.Errorf("%s is not on this host: %w. Install it, or set %s.path in the agent's configuration", s.tool(), err, s.tool())
	}
	tool.Path = path
	return tool, nil
}

// sameTool refuses to run another program over what one has made.
func (l *look) sameTool() error {
	r := l.record
	if r.Serial == 0 || r.tool() == l.spec.tool() {
		return nil
	}
	if r.Backend != "" {
		return l.toolChanged(r.tool())
	}
	if _, err := os.Stat(l.work.state); errors.Is(err, fs.ErrNotExist) && l.spec.Adopt {
		return nil // as it is told below
	}
	return &reconcilers.BlockedError{
		Reason: "ToolChanged", Message: fmt.Sprintf("this realm was applied by %s, and the manifest says %s: neither reads the other's state and lock file for sure", r.tool(), l.spec.tool()),
		Do: fmt.Sprintf("Put `tool: %s` back. To move on purpose, move %s away on the host and merge `adopt: true`: the realm is taken over as it is", r.tool(), l.work.state),
	}
}

// toolChanged refuses a tool for a remote state that another one wrote.
func (l *look) toolChanged(maker string) error {
	return &reconcilers.BlockedError{
		Reason: "ToolChanged", Message: fmt.Sprintf("this realm was applied by %s, and the manifest says %s: neither reads the other's state for sure", maker, l.spec.tool()),
		Do: fmt.Sprintf("Put `tool: %s` back. To move on purpose, give it a place of its own by backend, move %s away on the host and merge `adopt: true`: the realm is taken over as it is", maker, l.work.recordFile()),
	}
}

// tool is the program that wrote a state, by where its providers come from; empty when that does not tell.
func (s *tfState) tool() string {
	for _, r := range s.Resources {
		switch {
		case strings.Contains(r.Provider, "registry.opentofu.org/"):
			return opentofu
		case strings.Contains(r.Provider, "registry.terraform.io/"):
			return terraform
		}
	}
	return ""
}

// stamp tells one build of an executable from another at the same path, without reading it.
func stamp(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return ""
	}
	return fmt.Sprintf("%s %d %d", path, info.Size(), info.ModTime().UnixNano())
}

// askVersion lets the library learn the program's version, which it does once for each of its values, and compares it
// with the manifest's. What was learned at an earlier look refuses nothing: it is asked again.
func (w *workspace) askVersion(ctx context.Context, tf *tfexec.Terraform) error {
	ctx, cancel := context.WithTimeout(ctx, showLimit)
	defer cancel()
	is, _, err := tf.Version(ctx, false)
	if err == nil && w.accept(is) != nil {
		is, _, err = tf.Version(ctx, true)
	}
	if err != nil {
		return fmt.Errorf("%s version: %s", w.toolName, brief(err))
	}
	return w.accept(is)
}

// sameVersion compares the version that a run told of itself with the one that the library knows: a program that chooses another one
// by itself, as version managers do, may be as it was and run what the manifest does not want.
func (w *workspace) sameVersion(ctx context.Context, told string) error {
	is, err := version.NewVersion(told)
	if err != nil {
		return nil // it told none
	}
	known, _, err := w.tf.Version(ctx, false)
	if err != nil || known.Equal(is) {
		return err
	}
	if _, _, err := w.tf.Version(ctx, true); err != nil {
		return fmt.Errorf("%s version: %s", w.toolName, brief(err))
	}
	return w.accept(is)
}

// accept compares a version with the manifest's. A version before its release counts as the release.
func (w *workspace) accept(is *version.Version) error {
	if w.toolVersion == "" {
		return nil
	}
	wanted, err := version.NewConstraint(w.toolVersion)
	if err != nil {
		return err
	}
	if wanted.Check(is.Core()) {
		return nil
	}
	return &reconcilers.BlockedError{
		Reason: "ToolVersion", Message: fmt.Sprintf("%s %s is on this host, and the manifest wants %s", w.toolName, is, w.toolVersion),
		Do: fmt.Sprintf("Install such a version at %s, or name another by %s.path in the agent's configuration, or change toolVersion", w.tool.Path, w.toolName),
	}
}
