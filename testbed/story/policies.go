package story

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"dive-agent/examples"
	"dive-agent/testbed"
	"dive-agent/testbed/gitserver"
)

// policies are the coalition's, in a repository of their own on a Git server of their own: the hub's OPAL server follows it.
type policies struct {
	repo   *gitserver.Repository
	values map[string]string // of fleet.yaml, as YAML text
}

const policyFile = "policies/authorization.rego"

// startPolicies starts the Git server of the policies where containers reach it, with the policy that every OPA of the example begins
// with.
func (w *world) startPolicies(ctx context.Context) error {
	gateway, err := testbed.HostGateway(ctx, w.engine)
	if err != nil {
		return err
	}
	probe, err := net.Listen("tcp", net.JoinHostPort(gateway, "0"))
	if err != nil {
		return fmt.Errorf("listen where containers reach this machine: %w", err)
	}
	address := probe.Addr().String()
	_ = probe.Close()
	program, err := testbed.Program(ctx, "./testbed/gitserver/cmd/gitserver")
	if err != nil {
		return err
	}
	server, err := gitserver.New(gitserver.Options{Dir: w.path("policies"), ListenSSH: "off"})
	if err != nil {
		return err
	}
	if w.policies.repo, err = server.CreateRepository("policies"); err != nil {
		return err
	}
	files, err := examples.Files(examples.Options{})
	if err != nil {
		return err
	}
	if _, err := w.policies.repo.TryCommit("main", "The policies of the coalition", gitserver.Files{policyFile: string(files["blueprints/spoke/"+policyFile])}); err != nil {
		return err
	}
	if err := w.start("policies", program, "-dir", w.path("policies"), "-listen", address, "-listen-ssh", "off"); err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	reader := gitserver.DefaultUsers()[0]
	location := url.URL{Scheme: "https", User: url.UserPassword(reader.Name, reader.Password), Host: "host.docker.internal:" + port, Path: "/policies.git"}
	w.policies.values = map[string]string{"policyRepo": location.String(), "policyRepoCA": strconv.Quote(string(server.CA().PEM())), "policyPoll": "2"}
	return nil
}

// policyCommit commits another policy, and asks DEU's OPA until it decides by it; then the check says which commit is there.
func (w *world) policyCommit(ctx context.Context) error {
	const denial = "the exercise is over"
	before, err := w.policies.repo.Git("show", "main:"+policyFile)
	if err != nil {
		return err
	}
	denied, err := denials(ctx)
	if err == nil && strings.Contains(denied, denial) {
		err = errors.New("DEU's OPA denies by a policy that was not committed yet")
	}
	if err != nil {
		return err
	}
	rule := fmt.Sprintf("denials contains %q if input.resource.exercise\n", denial)
	started := time.Now()
	commit, err := w.policies.repo.TryCommit("main", "Deny what belongs to the exercise", gitserver.Files{policyFile: before + "\n\n" + rule})
	if err != nil {
		return err
	}
	fmt.Printf("  $ git commit -m \"Deny what belongs to the exercise\"     (in the repository of policies: %s)\n  + %s", commit[:7], rule)
	err = testbed.Until(ctx, time.Minute, often, "DEU's OPA decides by "+commit[:7], func() error {
		denied, err := denials(ctx)
		if err == nil && !strings.Contains(denied, denial) {
			err = fmt.Errorf("it denies for %s", denied)
		}
		return err
	})
	if err != nil {
		return err
	}
	w.saw("policy commit in DEU's OPA", "15 s", 15*time.Second, time.Since(started))
	said, err := w.agent(ctx, "deu-01", "verify", "deu")
	if err != nil {
		return err
	}
	for line := range strings.Lines(said) {
		if strings.Contains(line, "policies of "+commit[:7]) {
			fmt.Printf("  $ dive-agent verify deu\n%s\n", indent(strings.TrimSpace(line)))
			return nil
		}
	}
	return fmt.Errorf("no check says that the policies of %s are in OPA: %s", commit[:7], said)
}

// denials asks DEU's OPA why it would deny something of the exercise.
func denials(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	const deuOPA = "http://127.0.0.1:8291/v1/data/dive/authorization/denials"
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, deuOPA, bytes.NewReader([]byte(`{"input": {"resource": {"exercise": true}}}`)))
	if err != nil {
		return "", err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = answer.Body.Close() }()
	var said struct {
		Result []string `json:"result"`
	}
	if err := json.NewDecoder(answer.Body).Decode(&said); err != nil {
		return "", fmt.Errorf("%s answers %s: %w", deuOPA, answer.Status, err)
	}
	return strings.Join(said.Result, "; "), nil
}
