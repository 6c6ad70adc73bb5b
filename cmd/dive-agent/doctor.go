package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"dive-agent/config"
	"dive-agent/gitremote"

	"github.com/go-git/go-git/v5/plumbing"
)

// diagnosis is one thing that must be right on a host.
type diagnosis struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	Saw  string `json:"saw"`
	Do   string `json:"do,omitempty"`
}

func newDoctor(g *globals) *cobra.Command {
	return &cobra.Command{
		Use: "doctor", Short: "Check this host before and while the agent runs; each finding with what to do", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := config.Load(g.config)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), time.Minute)
			defer cancel()
			all := append([]diagnosis{checkEngine(ctx, c)}, checkTerraform(ctx, c)...)
			all = append(all, checkGit(ctx, c), checkDisk(c), checkMachine(c), checkClock(ctx))
			return writeDiagnoses(g, append(all, checkSources(ctx, c)...))
		},
	}
}

// writeDiagnoses shows all diagnoses, also after the first bad one; any bad one makes the exit code exitFailed.
func writeDiagnoses(g *globals, all []diagnosis) error {
	sick := 0
	for _, d := range all {
		if !d.OK {
			sick++
		}
	}
	if g.output == "json" {
		if err := g.json(all); err != nil {
			return err
		}
	} else {
		for _, d := range all {
			sign := "✓"
			if !d.OK {
				sign = "✗"
			}
			g.printf("%s %-10s %s\n", sign, d.Name, d.Saw)
			if d.Do != "" && !d.OK {
				g.printf("             %s\n", d.Do)
			}
		}
	}
	if sick > 0 {
		return &exitError{code: exitFailed}
	}
	return nil
}

func checkEngine(ctx context.Context, c *config.Config) diagnosis {
	d := diagnosis{Name: "engine", Do: "Start the Docker Engine, and let the agent's user open its socket (group docker)."}
	engine, err := client.New(client.WithHost(c.Engine))
	if err != nil {
		d.Saw = err.Error()
		return d
	}
	defer func() { _ = engine.Close() }()
	version, err := engine.ServerVersion(ctx, client.ServerVersionOptions{})
	if err != nil {
		d.Saw = fmt.Sprintf("%s: %v", c.Engine, err)
		return d
	}
	d.OK, d.Saw = true, fmt.Sprintf("%s %s, API %s", c.Engine, version.Version, version.APIVersion)
	return d
}

// checkTerraform looks at Terraform and OpenTofu as far as they are here or configured; one of them is enough.
func checkTerraform(ctx context.Context, c *config.Config) []diagnosis {
	var all []diagnosis
	if c.Terraform.Path != "" || onPath("terraform") || !onPath("tofu") && c.OpenTofu.Path == "" {
		all = append(all, checkTool(ctx, "terraform", "terraform", c.Terraform))
	}
	if c.OpenTofu.Path != "" || onPath("tofu") {
		all = append(all, checkTool(ctx, "opentofu", "tofu", c.OpenTofu))
	}
	return all
}

func onPath(program string) bool {
	_, err := exec.LookPath(program)
	return err == nil
}

func checkTool(ctx context.Context, name, program string, c config.Terraform) diagnosis {
	d := diagnosis{Name: name, Do: fmt.Sprintf("Install it, or name it as %s.path in the configuration.", name)}
	if c.Path != "" {
		program = c.Path
	}
	found, err := exec.LookPath(program)
	if err != nil {
		d.Saw = err.Error()
		return d
	}
	cmd := exec.CommandContext(ctx, found, "version")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.TempDir(), "CHECKPOINT_DISABLE=1"}
	out, err := cmd.Output()
	if err != nil {
		d.Saw = fmt.Sprintf("%s version: %v", found, err)
		return d
	}
	first, _, _ := strings.Cut(string(out), "\n")
	d.OK, d.Saw = true, found+" "+first
	if c.CLIConfig != "" {
		if _, err := os.Stat(c.CLIConfig); err != nil {
			d.OK, d.Saw, d.Do = false, fmt.Sprintf("%s.cliConfig: %v", name, err), "Write the file, or take the setting out."
		}
	}
	return d
}

func checkGit(ctx context.Context, c *config.Config) diagnosis {
	d := diagnosis{Name: "git", Do: "Check source.url and its credentials in the configuration."}
	remote, err := gitremote.New(remoteConfig(c.Source.Remote))
	if err != nil {
		d.Saw = err.Error()
		return d
	}
	defer remote.Close()
	hash, err := remote.Ref(ctx, plumbing.NewBranchReferenceName(c.Source.Branch))
	if err != nil {
		d.Saw = err.Error()
		return d
	}
	d.OK, d.Saw = true, fmt.Sprintf("%s %s at %s", remote, c.Source.Branch, gitremote.Short(hash.String()))
	return d
}

// leastDisk is what a spoke's first start needs at least.
const leastDisk = 2 << 30

func checkDisk(c *config.Config) diagnosis {
	d := diagnosis{Name: "disk", Do: "Free some space: images, volumes and Terraform's state need it."}
	dir := c.StateDir
	for {
		if _, err := os.Stat(dir); err == nil || dir == filepath.Dir(dir) {
			break
		}
		dir = filepath.Dir(dir)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		d.Saw = err.Error()
		return d
	}
	free := fs.Bavail * uint64(fs.Bsize)
	d.OK, d.Saw = free >= leastDisk, fmt.Sprintf("%.1f GiB free at %s", float64(free)/(1<<30), dir)
	return d
}

func checkMachine(c *config.Config) diagnosis {
	id := machineID(c)
	d := diagnosis{Name: "machine", OK: id != "", Saw: "machine id " + id, Do: "Make /etc/machine-id (systemd-machine-id-setup): instances are bound to it."}
	if id == "" {
		d.Saw = "no machine id"
	}
	return d
}

// checkClock compares the host's clock with the kernel's knowledge of synchronisation.
func checkClock(context.Context) diagnosis {
	d := diagnosis{Name: "clock", Do: "Set up time synchronisation: tokens and certificates depend on it."}
	var t unix.Timex
	status, err := unix.Adjtimex(&t)
	switch {
	case err != nil:
		d.OK, d.Saw = true, "cannot be judged here: "+err.Error()
	case status == unix.TIME_ERROR:
		d.Saw = "not synchronised, " + time.Now().UTC().Format(time.RFC3339)
	default:
		d.OK, d.Saw = true, "synchronised, "+time.Now().UTC().Format(time.RFC3339)
	}
	return d
}
