package story

import (
	"context"
	"crypto/md5"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"dive-agent/report"
	"dive-agent/testbed"
	"dive-agent/testbed/gitserver"
	"dive-agent/testbed/pki"
)

var hosts = []string{"usa-01", "deu-01", "fra-01"}

func (w *world) config(host string) string { return w.path(host, "agent.yaml") }

// enroll gives a host its own configuration, state folder and identity.
func (w *world) enroll(ctx context.Context, host string) error {
	if err := os.MkdirAll(w.path(host), 0o700); err != nil {
		return err
	}
	writer := gitserver.DefaultUsers()[1]
	password := w.path(host, "git-password")
	if err := os.WriteFile(password, []byte(writer.Password), 0o600); err != nil {
		return err
	}
	config := fmt.Sprintf(`host: %s
machineID: %[7]x
stateDir: state
socket: agent.sock
engine: %[2]s
resync: 1m
source:
  url: %[3]s
  interval: 2s
  caFile: %[4]s
  username: %[5]s
  passwordFile: git-password
terraform: {cliConfig: %[6]s}
`, host, w.host, w.gitURL, w.path("git", "ca.crt"), writer.Name, w.mirror.ConfigFile, md5.Sum([]byte(host)))
	if err := os.WriteFile(w.config(host), []byte(config), 0o640); err != nil {
		return err
	}
	file, err := w.agent(ctx, host, "enroll")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(w.path("clone"), "hosts", host+".yaml"), []byte(file), 0o644)
}

// provideHubCertificate does what a hub's operator does once: puts the server's certificate on the host.
func (w *world) provideHubCertificate(ctx context.Context) error {
	ca, err := pki.LoadOrCreate(w.path("pki"), "DIVE demo")
	if err != nil {
		return err
	}
	certificate, key, err := ca.Issue("localhost", "127.0.0.1", "host.docker.internal", "backend", "backend-usa")
	if err != nil {
		return err
	}
	for name, value := range map[string][]byte{"HUB_TLS_CERT": certificate, "HUB_TLS_KEY": key} {
		file := w.path("provided")
		if err := os.WriteFile(file, value, 0o600); err != nil {
			return err
		}
		if _, err := w.command(ctx, w.dir, "sh", "-c", `"$0" --config "$1" secrets set usa "$2" < "$3"`, w.agentPath, w.config("usa-01"), name, file); err != nil {
			return err
		}
		if err := os.Remove(file); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) startAgent(host string) error {
	return w.start(host, w.agentPath, "run", "--config", w.config(host))
}

// agent runs one of the agent's commands for a host.
func (w *world) agent(ctx context.Context, host string, args ...string) (string, error) {
	return w.command(ctx, w.path("clone"), w.agentPath, append([]string{"--config", w.config(host)}, args...)...)
}

// sync brings an instance to Ready, shown as a person would see it. What failed on the way is tried again by the agent, within
// the limit.
func (w *world) sync(ctx context.Context, host, instance string, limit time.Duration) error {
	end := time.Now().Add(limit)
	if err := w.awaitSocket(ctx, host); err != nil {
		return err
	}
	err := w.show(ctx, w.dir, w.agentPath, "--config", w.config(host), "sync", "--wait", "--timeout", limit.String(), instance)
	if err == nil {
		return nil
	}
	note("%s is not Ready yet (%v): its agent tries again by itself", instance, err)
	if _, late := w.awaitPhase(ctx, host, instance, report.Ready, time.Until(end)); late != nil {
		return errors.Join(err, late)
	}
	return nil
}

// verify has every check of the hub and of DEU made, as a person would.
func (w *world) verify(ctx context.Context) error {
	if err := w.awaitBranch(ctx, "deu", "deu: Ready"); err != nil {
		return err
	}
	if err := w.person(ctx, "deu-01", 0, "verify", "deu"); err != nil {
		return err
	}
	if err := w.person(ctx, "usa-01", 0, "verify", "usa"); err != nil {
		return err
	}
	return w.certificates(ctx)
}

// certificates shows what became of the request for a certificate that DEU's agent made: who asks its key access service by TLS, and
// the hub's table.
func (w *world) certificates(ctx context.Context) error {
	deu, err := w.status(ctx, "deu-01", "deu")
	if err != nil {
		return err
	}
	kas := slices.IndexFunc(deu.Checks, func(c report.Check) bool { return c.Name == "kas" })
	if kas < 0 || !strings.Contains(deu.Checks[kas].Saw, "who shows a certificate") {
		return fmt.Errorf("no check says that kas of DEU asks for a certificate: %v", deu.Checks)
	}
	err = testbed.Until(ctx, time.Minute, often, "the hub's table has DEU's certificate and revision", func() error {
		usa, err := w.status(ctx, "usa-01", "usa")
		if err == nil && (len(usa.Spokes) != 1 || usa.Spokes[0].Certificate.IsZero() || usa.Spokes[0].Revision != deu.Applied) {
			err = fmt.Errorf("it says %+v", usa.Spokes)
		}
		return err
	})
	if err != nil {
		return err
	}
	out, err := w.agent(ctx, "usa-01", "status", "usa")
	if err != nil {
		return err
	}
	lines := strings.Split(out, "\n")
	table := slices.IndexFunc(lines, func(line string) bool { return strings.HasPrefix(strings.TrimSpace(line), "SPOKE ") })
	if table < 0 || table+2 > len(lines) {
		return fmt.Errorf("the hub's status has no table of spokes:\n%s", out)
	}
	fmt.Printf("  the hub's table of spokes\n%s\n", indent(strings.Join(lines[table:table+2], "\n")))
	w.sawText("mutual TLS by certificates of the fleet's authority", "proved by a check", deu.Checks[kas].Saw)
	return nil
}

func (w *world) awaitSocket(ctx context.Context, host string) error {
	return testbed.Until(ctx, 20*time.Second, often, "agent of "+host, func() error {
		_, err := w.agent(ctx, host, "status")
		return err
	})
}

func (w *world) status(ctx context.Context, host, instance string) (*report.Status, error) {
	out, err := w.agent(ctx, host, "status", instance, "--output", "json")
	if err != nil {
		return nil, err
	}
	s := &report.Status{}
	return s, json.Unmarshal([]byte(out), s)
}

// awaitPhase waits until an instance is in a phase, and gives its status.
func (w *world) awaitPhase(ctx context.Context, host, instance string, phase report.Phase, limit time.Duration) (s *report.Status, err error) {
	err = testbed.Until(ctx, limit, often, instance+" "+string(phase), func() error {
		if s, err = w.status(ctx, host, instance); err != nil {
			return err
		}
		if s.Phase != phase {
			return fmt.Errorf("is %s: %s %s", s.Phase, s.News, strings.Join(s.Why, "; "))
		}
		return nil
	})
	return s, err
}

// branchFile reads a file of a status branch as anybody could.
func (w *world) branchFile(ctx context.Context, instance, file string) (string, error) {
	return w.command(ctx, w.path("git", "repos", "fleet.git"), "git", "show", "status/"+instance+":"+file)
}

// verifySigned checks, with the agent's command and with plain git, that the status is of the host that the fleet names.
func (w *world) verifySigned(ctx context.Context) error {
	if err := w.person(ctx, "deu-01", 0, "verify-status"); err != nil {
		return err
	}
	signers, err := w.agent(ctx, "deu-01", "verify-status", "--allowed-signers")
	if err != nil {
		return err
	}
	file := w.path("allowed-signers")
	if err := os.WriteFile(file, []byte(signers), 0o644); err != nil {
		return err
	}
	out, err := w.command(ctx, w.path("git", "repos", "fleet.git"), "sh", "-c", `git -c gpg.ssh.allowedSignersFile="$0" verify-commit status/deu 2>&1`, file)
	if err != nil {
		return err
	}
	fmt.Printf("  $ dive-agent verify-status --allowed-signers > allowed-signers\n  $ git -c gpg.ssh.allowedSignersFile=allowed-signers verify-commit status/deu\n%s\n", indent(out))
	return nil
}

// awaitBranch waits until the status branch tells what is expected.
func (w *world) awaitBranch(ctx context.Context, instance, subject string) error {
	return testbed.Until(ctx, 20*time.Second, often, "status/"+instance+" "+subject, func() error {
		out, err := w.command(ctx, w.path("git", "repos", "fleet.git"), "git", "log", "-1", "--format=%s", "status/"+instance)
		if err == nil && !strings.Contains(out, subject) {
			err = fmt.Errorf("says %q", strings.TrimSpace(out))
		}
		return err
	})
}

// merge commits everything in the clone on a branch, pushes it, merges it into main and pushes that.
func (w *world) merge(ctx context.Context, branch, message string) error {
	clone := w.path("clone")
	for _, args := range [][]string{
		{"add", "-A"},
		{"commit", "-q", "-m", message},
		{"push", "-q", "-f", "origin", branch},
		{"checkout", "-q", "main"},
		{"merge", "-q", "--no-ff", "-m", "Merge " + branch, branch},
		{"push", "-q", "origin", "main"},
	} {
		if _, err := w.command(ctx, clone, "git", args...); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) branch(ctx context.Context, name string) error {
	_, err := w.command(ctx, w.path("clone"), "git", "checkout", "-q", "-B", name)
	return err
}
