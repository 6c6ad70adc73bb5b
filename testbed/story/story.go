package story

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/moby/moby/client"

	"dive-agent/report"
	"dive-agent/testbed"
)

// tell tells the story, point by point.
func (w *world) tell(ctx context.Context) error {
	begun := time.Now()
	for _, chapter := range []struct {
		title string
		tell  func(context.Context) error
	}{
		{"The world: an engine, a Git server, a fleet repository with the hub alone", w.setUp},
		{"1  The hub comes up", w.hub},
		{"2  Spoke DEU is proposed on a branch, checked and planned, and merged", w.propose},
		{"3  deu-01 sees it and brings the spoke up; the hub's agent approves it because it is merged", w.spoke},
		{"4  What anybody can read: the status branch", w.readStatus},
		{"4b People of both sides sign in at the other one, in a browser", w.signIns},
		{"4c A policy is committed, and reaches DEU's OPA", w.policyCommit},
		{"5a A container is removed by hand", w.heal},
		{"5b A bad revision is merged, then its fix", w.badRevision},
		{"6  Spoke FRA is merged; its agent is killed in the middle and started again", w.killed},
		{"7  Git is taken away, and comes back", w.withoutGit},
		{"8  DEU leaves the coalition", w.leave},
		{"Looking for what must not be there", w.leaks},
	} {
		heading(chapter.title)
		started := time.Now()
		if err := chapter.tell(ctx); err != nil {
			w.lastWords()
			return fmt.Errorf("%s: %w", chapter.title, err)
		}
		note("took %.1f s", time.Since(started).Seconds())
	}
	w.saw("the whole demo", "5 min", 5*time.Minute, time.Since(begun))
	return w.table()
}

func (w *world) setUp(ctx context.Context) error {
	if err := w.prepare(ctx); err != nil {
		return err
	}
	if err := w.recordEngine(); err != nil {
		return err
	}
	note("engine %s", w.host)
	note("fleet  %s", w.gitURL)
	for _, host := range hosts[:2] {
		if err := w.enroll(ctx, host); err != nil {
			return err
		}
	}
	if err := w.provideHubCertificate(ctx); err != nil {
		return err
	}
	clone := w.path("clone")
	for _, args := range [][]string{{"checkout", "-q", "-B", "main"}, {"add", "-A"}, {"commit", "-q", "-m", "The fleet, with the hub alone"}, {"push", "-q", "origin", "main"}} {
		if _, err := w.command(ctx, clone, "git", args...); err != nil {
			return err
		}
	}
	for _, host := range hosts[:2] {
		if err := w.startAgent(host); err != nil {
			return err
		}
	}
	note("agents usa-01 and deu-01 run, each with its own configuration, state folder and identity")
	return nil
}

func (w *world) hub(ctx context.Context) error {
	started := time.Now()
	if err := w.sync(ctx, "usa-01", "usa", 6*time.Minute); err != nil {
		return err
	}
	w.saw("hub from nothing to Ready", "3 min", 3*time.Minute, time.Since(started))
	status, err := w.awaitPhase(ctx, "usa-01", "usa", report.Ready, time.Minute)
	if err != nil {
		return err
	}
	w.sawNode(status, "database", "hub: writable primary, once mongod runs", "30 s", 30*time.Second)
	w.sawNode(status, "identity", "hub: Terraform, first apply", "1 min", time.Minute)
	return w.awaitBranch(ctx, "usa", "usa: Ready")
}

func (w *world) propose(ctx context.Context) error {
	if err := w.branch(ctx, "add-deu"); err != nil {
		return err
	}
	if err := w.person(ctx, "deu-01", 0, "new", "spoke", "DEU", "Germany"); err != nil {
		return err
	}
	content, err := os.ReadFile(filepath.Join(w.path("clone"), "instances", "deu.yaml"))
	if err != nil {
		return err
	}
	fmt.Println(indent(string(content)))
	if err := w.person(ctx, "deu-01", 0, "validate", "."); err != nil {
		return err
	}
	if err := w.person(ctx, "deu-01", 2, "plan", ".", "--instance", "deu", "--output", "markdown"); err != nil {
		return err
	}
	if err := w.merge(ctx, "add-deu", "Add spoke DEU"); err != nil {
		return err
	}
	note("merged add-deu into main; nobody does anything else")
	return nil
}

// person runs a command as a person would, with its output shown.
func (w *world) person(ctx context.Context, host string, code int, args ...string) error {
	fmt.Printf("  $ dive-agent %s\n", strings.Join(args, " "))
	out, err := w.agent(ctx, host, args...)
	if exitCode(err) != code {
		return fmt.Errorf("exit code %d, expected %d: %w", exitCode(err), code, err)
	}
	fmt.Println(indent(out))
	return nil
}

func (w *world) spoke(ctx context.Context) error {
	started := time.Now()
	if err := w.sync(ctx, "deu-01", "deu", 8*time.Minute); err != nil {
		return err
	}
	w.saw("spoke DEU from merge to Ready", "10 min", 10*time.Minute, time.Since(started))
	status, err := w.awaitPhase(ctx, "deu-01", "deu", report.Ready, time.Minute)
	if err != nil {
		return err
	}
	w.sawNode(status, "database", "deu: writable primary, once mongod runs", "30 s", 30*time.Second)
	w.sawNode(status, "identity", "deu: Terraform, first apply", "1 min", time.Minute)
	w.sawNode(status, "registration", "deu: registered, and approved by the hub's agent", "no manual step", time.Minute)
	return w.verify(ctx)
}

func (w *world) readStatus(ctx context.Context) error {
	log, err := w.command(ctx, w.path("git", "repos", "fleet.git"), "git", "log", "--oneline", "status/deu")
	if err != nil {
		return err
	}
	fmt.Printf("  $ git log --oneline status/deu\n%s\n", indent(log))
	page, err := w.branchFile(ctx, "deu", "README.md")
	if err != nil {
		return err
	}
	fmt.Printf("  $ git show status/deu:README.md\n%s\n", indent(page))
	outputs, err := w.branchFile(ctx, "usa", "outputs.yaml")
	if err != nil {
		return err
	}
	if !strings.Contains(outputs, "AGE ENCRYPTED FILE") {
		return fmt.Errorf("the hub publishes nothing that is sealed to deu-01: %s", outputs)
	}
	fmt.Printf("  $ git show status/usa:outputs.yaml     (what the hub hands over to DEU, sealed to deu-01)\n%s\n", indent(outputs))
	return w.verifySigned(ctx)
}

// heal removes a container by hand and waits for another one in its place.
func (w *world) heal(ctx context.Context) error {
	before, err := w.containers(ctx, "dive-spoke-deu")
	if err != nil {
		return err
	}
	victim := before["kas"]
	if victim == "" {
		return fmt.Errorf("no container of service kas among %v", before)
	}
	fmt.Printf("  $ docker rm -f kas\n")
	started := time.Now()
	if _, err := w.engine.ContainerRemove(ctx, victim, client.ContainerRemoveOptions{Force: true}); err != nil {
		return err
	}
	err = testbed.Until(ctx, 30*time.Second, often, "kas runs again", func() error {
		now, err := w.containers(ctx, "dive-spoke-deu")
		if err == nil && (now["kas"] == "" || now["kas"] == victim) {
			err = fmt.Errorf("it does not run")
		}
		return err
	})
	if err != nil {
		return err
	}
	w.saw("removed container runs again", "healed", 10*time.Second, time.Since(started))
	_, err = w.awaitPhase(ctx, "deu-01", "deu", report.Ready, time.Minute)
	return err
}

func (w *world) badRevision(ctx context.Context) error {
	before, err := w.containers(ctx, "dive-spoke-deu")
	if err != nil {
		return err
	}
	file := filepath.Join(w.path("clone"), "instances", "deu.yaml")
	good, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if err := w.branch(ctx, "break-deu"); err != nil {
		return err
	}
	// An image that starts and ends at once: MongoDB's entrypoint does not know the role "kas".
	bad := strings.TrimRight(string(good), "\n") + "\n"
	bad = strings.Replace(bad, "values: {", "values: {kasImage: \"dive-testbed/redis:7\", ", 1)
	if bad == string(good) {
		return fmt.Errorf("cannot break %s", file)
	}
	if err := os.WriteFile(file, []byte(bad), 0o644); err != nil {
		return err
	}
	if err := w.merge(ctx, "break-deu", "Give DEU an image of kas that does not start"); err != nil {
		return err
	}
	status, err := w.awaitPhase(ctx, "deu-01", "deu", report.Degraded, 3*time.Minute)
	if err != nil {
		return err
	}
	if err := w.person(ctx, "deu-01", 0, "status", "deu"); err != nil {
		return err
	}
	after, err := w.containers(ctx, "dive-spoke-deu")
	if err != nil {
		return err
	}
	for service, id := range before {
		if service != "kas" && after[service] != id {
			return fmt.Errorf("%s was touched by a revision that only changes kas", service)
		}
	}
	if after["kas"] == "" {
		return fmt.Errorf("kas does not run: it was not put back")
	}
	w.sawText("bad revision", "put back, the rest untouched", "put back; "+first(status.Why))
	if err := w.awaitBranch(ctx, "deu", "deu: Degraded"); err != nil {
		return err
	}
	if err := w.branch(ctx, "mend-deu"); err != nil {
		return err
	}
	if err := os.WriteFile(file, good, 0o644); err != nil {
		return err
	}
	if err := w.merge(ctx, "mend-deu", "Give DEU its image of kas back"); err != nil {
		return err
	}
	if err := w.sync(ctx, "deu-01", "deu", 3*time.Minute); err != nil {
		return err
	}
	return w.awaitBranch(ctx, "deu", "deu: Ready")
}

// killed kills the agent of a spoke that is half-way, and checks that the next one makes nothing twice.
func (w *world) killed(ctx context.Context) error {
	if err := w.enroll(ctx, "fra-01"); err != nil {
		return err
	}
	if err := w.branch(ctx, "add-fra"); err != nil {
		return err
	}
	if err := w.person(ctx, "fra-01", 0, "new", "spoke", "FRA", "France"); err != nil {
		return err
	}
	if err := w.startAgent("fra-01"); err != nil {
		return err
	}
	if err := w.merge(ctx, "add-fra", "Add spoke FRA"); err != nil {
		return err
	}
	err := testbed.Until(ctx, 2*time.Minute, often, "fra is half-way", func() error {
		running, err := w.containers(ctx, "dive-spoke-fra")
		if err == nil && running["keycloak"] == "" {
			err = fmt.Errorf("%d containers", len(running))
		}
		return err
	})
	if err != nil {
		return err
	}
	half, err := w.containers(ctx, "dive-spoke-fra")
	if err != nil {
		return err
	}
	fmt.Printf("  $ kill -9 (agent of fra-01), with %d containers running\n", len(half))
	if err := w.stop(ctx, "fra-01", syscall.SIGKILL); err != nil {
		return err
	}
	started := time.Now()
	if err := w.startAgent("fra-01"); err != nil {
		return err
	}
	if err := w.sync(ctx, "fra-01", "fra", 8*time.Minute); err != nil {
		return err
	}
	if _, err := w.awaitPhase(ctx, "fra-01", "fra", report.Ready, time.Minute); err != nil {
		return err
	}
	end, err := w.containers(ctx, "dive-spoke-fra")
	if err != nil {
		return err
	}
	for service, id := range half {
		if end[service] != id {
			return fmt.Errorf("%s was made twice", service)
		}
	}
	w.saw("killed agent, started again, to Ready; nothing made twice", "survived", 5*time.Minute, time.Since(started))
	return nil
}

// withoutGit stops the Git server and checks that all goes on, that the status says so, and that no restart is needed.
func (w *world) withoutGit(ctx context.Context) error {
	before, err := w.containers(ctx, "")
	if err != nil {
		return err
	}
	if err := w.stop(ctx, "git", syscall.SIGTERM); err != nil {
		return err
	}
	fmt.Println("  $ kill (the Git server)")
	err = testbed.Until(ctx, 30*time.Second, often, "the status says so", func() error {
		out, err := w.agent(ctx, "deu-01", "status")
		if err == nil && !strings.Contains(out, "not followed since") {
			err = fmt.Errorf("it does not")
		}
		return err
	})
	if err != nil {
		return err
	}
	if err := w.person(ctx, "deu-01", 0, "status"); err != nil {
		return err
	}
	after, err := w.containers(ctx, "")
	if err != nil {
		return err
	}
	for service, id := range before {
		if after[service] != id {
			return fmt.Errorf("%s does not run as before while Git is away", service)
		}
	}
	started := time.Now()
	if err := w.startGit(ctx); err != nil {
		return err
	}
	err = testbed.Until(ctx, time.Minute, often, "the agent follows again", func() error {
		out, err := w.agent(ctx, "deu-01", "status")
		if err == nil && strings.Contains(out, "not followed since") {
			err = fmt.Errorf("it does not")
		}
		return err
	})
	w.saw("Git back, followed again", "goes on by itself", time.Minute, time.Since(started))
	return err
}

// containers gives the running containers of a project (of all the demo's, when empty) by service.
func (w *world) containers(ctx context.Context, project string) (map[string]string, error) {
	found := map[string]string{}
	for _, p := range projects {
		if project != "" && p != project {
			continue
		}
		list, err := w.engine.ContainerList(ctx, client.ContainerListOptions{Filters: client.Filters{}.Add("label", "com.docker.compose.project="+p)})
		if err != nil {
			return nil, err
		}
		for _, c := range list.Items {
			service := c.Labels["com.docker.compose.service"]
			if project == "" {
				service = p + "/" + service
			}
			found[service] = c.ID
		}
	}
	return found, nil
}

// lastWords shows the ends of the logs when something went wrong.
func (w *world) lastWords() {
	logs, _ := filepath.Glob(w.path("*.log")) // a pattern that is right
	for _, log := range logs {
		content, err := os.ReadFile(log)
		if err != nil {
			continue
		}
		lines := strings.Split(strings.TrimSpace(string(content)), "\n")
		fmt.Printf("\n--- the last lines of %s\n%s\n", filepath.Base(log), strings.Join(lines[max(0, len(lines)-25):], "\n"))
	}
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}
