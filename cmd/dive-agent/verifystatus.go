package main

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dive-agent/attest"
	"dive-agent/config"
	"dive-agent/desired"
	"dive-agent/gitremote"
	"dive-agent/reconcilers/all"
	"dive-agent/report"
)

// statusCheck is what verify-status was asked for.
type statusCheck struct {
	dir            string
	allowedSigners bool
	remote         config.Remote
}

func newVerifyStatus(g *globals) *cobra.Command {
	var s statusCheck
	cmd := &cobra.Command{
		Use:   "verify-status [NAME...]",
		Short: "Check that status branches were written by the hosts that the fleet binds their instances to",
		Long: `Fetches the status branches of all instances, or of those that are named, and checks each against the merged fleet: it is
signed with a key in hosts/<host>.yaml of the host that the manifest binds the instance to, and its documents name that
instance and that host. The branch of an instance that was removed is its record: it is told of as removed where the host that it
names signed it. By a host's configuration, or anywhere by a clone of the fleet repository and --remote.
Exit code 0: all are verified; 1: one is not, or could not be read; 65: bad manifests.

With --allowed-signers it asks nobody, and prints the hosts' keys for plain git:
  dive-agent verify-status --allowed-signers > allowed-signers
  git fetch origin '+refs/heads/status/*:refs/remotes/origin/status/*'
  git -c gpg.ssh.allowedSignersFile=allowed-signers verify-commit origin/status/deu`,
		RunE: func(cmd *cobra.Command, args []string) error { return s.run(cmd.Context(), g, args) },
	}
	f := cmd.Flags()
	f.StringVar(&s.dir, "dir", "", "a clone of the fleet repository, or a folder with its files, to check against; default: what this host follows")
	f.BoolVar(&s.allowedSigners, "allowed-signers", false, "print the keys of the hosts as an allowed signers file of git, and check nothing")
	f.StringVar(&s.remote.URL, "remote", "", "where the status branches are; default: as in the configuration of this host. What follows is about it:")
	f.StringVar(&s.remote.Username, "username", "", "user for https")
	f.StringVar(&s.remote.PasswordFile, "password-file", "", "file with the user's password")
	f.StringVar(&s.remote.TokenFile, "token-file", "", "file with a bearer token for https")
	f.StringVar(&s.remote.CAFile, "ca-file", "", "certificates of the authorities of the server")
	f.StringVar(&s.remote.IdentityFile, "identity-file", "", "private key for ssh")
	f.StringVar(&s.remote.KnownHostsFile, "known-hosts-file", "", "the server's keys for ssh")
	f.StringVar(&s.remote.Proxy, "proxy", "", "proxy to go through")
	return cmd
}

func (s *statusCheck) run(ctx context.Context, g *globals, names []string) error {
	fleet, at, err := s.fleet(g)
	if err != nil {
		return err
	}
	if s.allowedSigners {
		text, err := attest.AllowedSigners(fleet, names)
		if err == nil {
			g.printf("%s", text)
		}
		return err
	}
	remote, err := s.open(g)
	if err != nil {
		return err
	}
	defer remote.Close()
	results, err := attest.Check(ctx, fleet, names, attest.Options{Remote: remote, Now: time.Now, Former: s.former(ctx)})
	if err != nil {
		return err
	}
	bad := 0
	for _, r := range results {
		if r.Verdict != attest.Verified && !r.Verdict.Aside() {
			bad++
		}
	}
	if g.output == "json" {
		err = g.json(map[string]any{"ok": bad == 0, "against": at, "remote": remote.String(), "branches": results})
	} else {
		writeVerdicts(g, results, fmt.Sprintf("status branches of %s against %s", remote.String(), at))
	}
	if bad > 0 && err == nil {
		err = &exitError{code: exitFailed}
	}
	return err
}

// fleet gives what the branches are checked against, and how people call it.
func (s *statusCheck) fleet(g *globals) (*desired.Fleet, string, error) {
	dir, at := s.dir, s.dir
	if dir == "" {
		c, err := config.Load(g.config)
		if err != nil {
			return nil, "", fmt.Errorf("%w; without a host's configuration, name a clone of the fleet repository with --dir, and where the branches are with --remote", err)
		}
		h := &host{config: c}
		defer h.close()
		if err := h.openSource(); err != nil {
			return nil, "", err
		}
		revision, err := h.followed()
		if err != nil {
			return nil, "", err
		}
		dir, at = revision.Dir, revision.Short()
	}
	fleet, err := desired.Load(dir, desired.Options{Kinds: all.Registry.Kinds(), Light: true, Allow: allowAll})
	return fleet, at, err
}

// open gives the remote that holds the branches.
func (s *statusCheck) open(g *globals) (*gitremote.Remote, error) {
	r := s.remote
	if r.URL == "" {
		c, err := config.Load(g.config)
		if err != nil {
			return nil, fmt.Errorf("%w; without a host's configuration, say with --remote where the status branches are", err)
		}
		if r = c.Source.Remote; c.Report.Status != nil {
			r = *c.Report.Status
		}
	}
	settings := remoteConfig(r)
	settings.Limits = attest.Limits
	return gitremote.New(settings)
}

// former looks a key up in the history of the clone that was named: since when a host's file lists it no more. Nil: there is none.
func (s *statusCheck) former(ctx context.Context) func(host, key string) string {
	git := func(args ...string) (string, error) {
		out, err := exec.CommandContext(ctx, "git", append([]string{"-C", s.dir}, args...)...).Output()
		return strings.TrimSpace(string(out)), err
	}
	if s.dir == "" {
		return nil
	}
	return func(host, key string) string {
		words := strings.Fields(key)
		if len(words) != 2 {
			return ""
		}
		// The newest commit that changed how often the key stands in the file: as it is not there now, the one that took it out.
		out, err := git("log", "-1", "--format=%h of %cs", "-S", words[1], "--", "hosts/"+host+".yaml")
		if err != nil {
			return "" // no clone, or no git: nothing is known
		}
		return out
	}
}

// writeVerdicts shows a line for each branch, and below it why one does not count.
func writeVerdicts(g *globals, results []attest.Result, title string) {
	instance, host, good, counted := 0, 0, 0, 0
	for _, r := range results {
		instance, host = max(instance, len(r.Instance)), max(host, len(r.Host))
	}
	g.printf("%s\n\n", title)
	now := time.Now()
	for _, r := range results {
		mark := "✗"
		if r.Verdict == attest.Verified {
			mark = "✓"
			good++
		}
		if r.Verdict.Aside() {
			mark = "·"
		} else {
			counted++
		}
		line := fmt.Sprintf("  %s %-*s  %-10s  %-*s  %s", mark, instance, r.Instance, r.Verdict, host, r.Host, gitremote.Short(r.Commit))
		if !r.Written.IsZero() {
			line += "  " + report.Age(now.Sub(r.Written)) + " ago"
		}
		if r.Phase != "" {
			line += "  " + r.Phase + "  " + r.Key
		}
		g.printf("%s\n", strings.TrimRight(line, " "))
		if r.Stale(now) {
			g.printf("%s\n", "      its agent writes every 15 min: it is away, or an old status was put back")
		}
		for _, text := range []string{r.Why, r.Do} {
			if text != "" {
				g.printf("      %s\n", text)
			}
		}
	}
	g.printf("\n%d of %d verified.\n", good, counted)
}
