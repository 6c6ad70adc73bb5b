package main

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/agent"
	"dive-agent/desired"
	"dive-agent/reconcilers"
	"dive-agent/report"
	"dive-agent/secrets"
)

// do runs a command line and gives its exit code and what it wrote.
func do(t *testing.T, args ...string) (code int, out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	code = execute(t.Context(), args, streams{&o, &e})
	return code, o.String(), e.String()
}

func example(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "fleet")
	code, _, errs := do(t, "init", dir)
	require.Equal(t, exitDone, code, errs)
	return dir
}

func TestUsageErrorsExitWith64(t *testing.T) {
	for _, args := range [][]string{
		{"nonsense"},
		{"new", "spke", "DEU", "Germany"},
		{"secrets", "lst"},
		{"version", "x"},
		{"sync"},
		{"completion", "bash", "x"},
		{"status", "a", "b"},
		{"validate", "--nonsense"},
		{"plan", "--output", "yaml"},
		{"graph"},
		{"graph", "usa", "--dir", example(t), "--format", "png"},
		{"secrets", "set", "usa"},
	} {
		code, _, errs := do(t, args...)
		require.Equal(t, exitUsage, code, "%v: %s", args, errs)
		require.True(t, strings.HasPrefix(errs, "dive-agent: "), errs)
		require.Equal(t, 1, strings.Count(errs, "\n"), "one line: %s", errs)
		require.Regexp(t, "--help|is none of", errs)
	}
	_, _, errs := do(t, "secrets", "set", "usa")
	require.Equal(t, "dive-agent: 1 argument given, usage: dive-agent secrets set INSTANCE NAME [flags] (see dive-agent secrets set --help)\n", errs)
	_, _, errs = do(t, "new", "spke")
	require.Equal(t, "dive-agent: no command \"spke\", did you mean \"spoke\"? (see dive-agent new --help)\n", errs)
}

func TestInitNewValidate(t *testing.T) {
	dir := example(t)
	code, out, _ := do(t, "validate", dir)
	require.Equal(t, exitDone, code)
	require.Equal(t, "1 instance on 1 host: no problem found.\n", out)

	code, out, errs := do(t, "new", "spoke", "DEU", "Germany", "--dir", dir)
	require.Equal(t, exitDone, code, errs)
	require.Contains(t, out, "wrote instances/deu.yaml")
	code, _, errs = do(t, "new", "spoke", "DEU", "Germany", "--dir", dir)
	require.Equal(t, exitFailed, code)
	require.Contains(t, errs, "deu")
	code, _, errs = do(t, "init", dir)
	require.Equal(t, exitFailed, code)
	require.Contains(t, errs, "nothing was written")

	code, _, errs = do(t, "validate", dir+"/nowhere")
	require.Equal(t, exitFailed, code)
	require.Contains(t, errs, dir+"/nowhere")

	file := filepath.Join(dir, "instances", "deu.yaml")
	content, err := os.ReadFile(file)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, bytes.Replace(content, []byte("blueprint:"), []byte("blueprnt:"), 1), 0o600))
	code, out, _ = do(t, "validate", dir)
	require.Equal(t, exitData, code)
	require.Contains(t, out, `instances/deu.yaml:5:3`)
	require.Contains(t, out, `unknown field "blueprnt", did you mean "blueprint"?`)
	require.Contains(t, out, "Nothing was changed.")
	code, out, _ = do(t, "validate", dir, "--output", "json")
	require.Equal(t, exitData, code)
	var result struct {
		OK       bool
		Problems []struct{ Message string }
	}
	require.NoError(t, json.Unmarshal([]byte(out), &result))
	require.False(t, result.OK)
	require.NotEmpty(t, result.Problems)
}

func TestValidateRefusesModulesThatRunCommands(t *testing.T) {
	dir := example(t)
	module := filepath.Join(dir, "blueprints", "hub", "terraform", "more.tf")
	require.NoError(t, os.WriteFile(module, []byte("resource \"terraform_data\" \"x\" {\n  provisioner \"local-exec\" {}\n}\n"), 0o600))
	code, out, _ := do(t, "validate", dir)
	require.Equal(t, exitData, code)
	require.Contains(t, out, `blueprints/hub/terraform/more.tf:2:3  terraform_data.x has a provisioner "local-exec"`)
	code, _, _ = do(t, "validate", dir, "--allow", "provisioners")
	require.Equal(t, exitDone, code)
	code, _, errs := do(t, "validate", dir, "--allow", "everything")
	require.Equal(t, exitUsage, code)
	require.Contains(t, errs, `"everything" is none of provisioners`)
	code, _, errs = do(t, "new", "spoke", "DEU", "Germany", "--dir", dir)
	require.Equal(t, exitDone, code, errs)
}

func TestGraphOfAFolder(t *testing.T) {
	dir := example(t)
	code, out, errs := do(t, "graph", "usa", "--dir", dir)
	require.Equal(t, exitDone, code, errs)
	require.Contains(t, out, "stack/backend\n")
	require.Contains(t, out, "MONGODB_URL of service backend uses ${database.uri}")
	code, out, _ = do(t, "graph", "usa", "--dir", dir, "--format", "mermaid")
	require.Equal(t, exitDone, code)
	require.Regexp(t, `(?s)(n\d+)\["database"\].*(n\d+)\["stack/backend"\].*\n  n\d+ --> n\d+`, out)
	code, out, errs = do(t, "graph", "usa", "--dir", dir, "--output", "svg")
	require.Equal(t, exitDone, code, errs)
	require.NoError(t, xml.Unmarshal([]byte(out), new(struct {
		XMLName xml.Name `xml:"http://www.w3.org/2000/svg svg"`
	})))
	require.Contains(t, out, ">stack/backend</text>")
}

func TestSchemaIsJSON(t *testing.T) {
	code, out, _ := do(t, "schema")
	require.Equal(t, exitDone, code)
	require.True(t, json.Valid([]byte(out)))
	require.Contains(t, out, "MongoReplicaSet")
}

func TestCommandsWithoutAnAgentSayWhatToDo(t *testing.T) {
	config := filepath.Join(t.TempDir(), "agent.yaml")
	code, _, errs := do(t, "--config", config, "status")
	require.Equal(t, exitFailed, code)
	require.Contains(t, errs, "--config")
	require.NoError(t, os.WriteFile(config, []byte("host: deu-01\nsource: {url: /nowhere.git}\nsocket: agent.sock\nstateDir: state\nmachineID: 0123456789abcdef0123456789abcdef\n"), 0o600))
	code, _, errs = do(t, "--config", config, "status")
	require.Equal(t, exitFailed, code)
	require.Contains(t, errs, "systemctl restart dive-agent")
	require.Contains(t, errs, "journalctl -u dive-agent -e")

	code, out, _ := do(t, "--config", config, "enroll")
	require.Equal(t, exitDone, code)
	require.Contains(t, out, "metadata: {name: deu-01}")
	code, out, _ = do(t, "--config", config, "secrets", "list")
	require.Equal(t, exitDone, code)
	require.Empty(t, out)
}

func TestASecretThatWasMadeIsNotReplacedByASlip(t *testing.T) {
	dir := t.TempDir()
	c := filepath.Join(dir, "agent.yaml")
	require.NoError(t, os.WriteFile(c, []byte("host: deu-01\nsource: {url: /nowhere.git}\nstateDir: state\n"), 0o600))
	store, err := secrets.Open(secrets.Options{Instance: "deu", Dir: filepath.Join(dir, "state/instances/deu/secrets"), Random: rand.Reader, Now: time.Now})
	require.NoError(t, err)
	made, err := store.Ensure(t.Context(), []desired.SecretSpec{{Name: "PASSWORD", Generate: &desired.Generate{Length: 24}}}, secrets.EnsureOptions{})
	require.NoError(t, err)
	require.Equal(t, []string{"PASSWORD"}, made.Made)

	set := func(args ...string) (int, string) {
		var out, errs bytes.Buffer
		root := newRoot(streams{&out, &errs})
		root.SetIn(strings.NewReader("another value\n"))
		root.SetArgs(append([]string{"--config", c, "secrets", "set"}, args...))
		if err := root.ExecuteContext(t.Context()); err != nil {
			return exitFailed, err.Error()
		}
		return exitDone, out.String()
	}
	code, said := set("deu", "PASSWORD")
	require.Equal(t, exitFailed, code)
	require.Contains(t, said, "--replace")
	code, said = set("deu", "PASSWORD", "--replace")
	require.Equal(t, exitDone, code, said)
	code, said = set("deu", "CERTIFICATE")
	require.Equal(t, exitDone, code, said)
	code, said = set("deu", "CERTIFICATE")
	require.Equal(t, exitDone, code, "what an operator gave he may replace: %s", said)

	code, _, errs := do(t, "--config", c, "secrets", "list", "due")
	require.Equal(t, exitFailed, code)
	require.Contains(t, errs, `no secrets of instance "due" on this host (has: deu)`)
	require.NoDirExists(t, filepath.Join(dir, "state/instances/due"))
}

func TestOverviewSaysEachThingOnce(t *testing.T) {
	var out bytes.Buffer
	refusal := []string{"5d6e7f8 is refused as a whole, 1a2b3c4 stays in force:", "instances/deu.yaml:7:3: no value"}
	writeOverview(&globals{streams: streams{&out, &out}}, agent.Overview{
		Host: "deu-01", Refused: &agent.Refusal{Revision: agent.Revision{Commit: "5d6e7f8a9b"}, Message: "instances/deu.yaml:7:3: no value", Since: time.Date(2026, 3, 1, 3, 0, 0, 0, time.Local)},
		Instances: []*report.Status{
			{Instance: "deu", Phase: report.Ready, News: "9/9 services", Why: refusal},
			{Instance: "gbr", Phase: report.Blocked, News: "lost", Why: append([]string{"a secret is lost"}, refusal...), Next: []string{"put it back"}},
			{Instance: "fra", Phase: report.Progressing, Nodes: []report.Node{{ID: "stack/web", State: "working", Message: "create web"}}},
		},
	})
	require.Equal(t, `deu-01  no revision yet

  git   5d6e7f8 is refused since 2026-03-01 03:00:00, what was in force stays so:
        instances/deu.yaml:7:3: no value

  deu        Ready                    9/9 services
  gbr        Blocked
    why   a secret is lost
    next  put it back

  fra        Progressing              stack/web: create web
`, out.String())
}

func TestProgressOfSeveralInstances(t *testing.T) {
	var out bytes.Buffer
	view := newProgressView(streams{&out, &out})
	status := func(name, state string) report.Status {
		return report.Status{Instance: name, Nodes: []report.Node{{ID: "stack/web", State: state}}}
	}
	view.draw(status("deu", "done"), status("fra", "done"))
	view.draw(status("deu", "done"), status("fra", "failed"))
	view.draw(status("deu", "working"))
	require.Equal(t, "deu ✓ stack/web\nfra ✓ stack/web\nfra ✗ stack/web\ndeu > stack/web\n", out.String())
}

func preview() []agent.Preview {
	return []agent.Preview{{
		Instance: "deu", Host: "deu-01", From: "1a2b3c4d5e", To: "5d6e7f8a9b", Branch: "main", Subject: "Raise DEU to 2.1",
		Expected: 20e9,
		Nodes: []agent.PreviewNode{
			{ID: "stack/backend", Component: "stack", Part: "backend", Changes: []agent.PreviewChange{{Change: reconcilers.Change{Action: reconcilers.Replace, Address: "backend", Reason: "image 2.0.4 -> 2.1.0 | <b>"}}}},
			{ID: "stack/kas", Component: "stack", Part: "kas"},
			{ID: "database", Component: "database", Summary: "rs0 PRIMARY"},
			{
				ID: "identity", Component: "identity", Digest: "8c1f02b7d9e4a610", Approve: "spec: {approve: {identity: 8c1f02b7d9e4a610}}",
				Changes: []agent.PreviewChange{{Change: reconcilers.Change{Action: reconcilers.Delete, Address: `keycloak_user.test["deu-5"]`, Reason: "no longer declared", Destroys: true}}},
			},
			{ID: "checks", Component: "checks", Waits: "waits for database.uri"},
		},
	}}
}

func TestPlanForATerminal(t *testing.T) {
	require.Equal(t, `deu on deu-01: 1a2b3c4 -> 5d6e7f8  (main, "Raise DEU to 2.1")

  stack            1 change
    ~ backend                        replace   image 2.0.4 -> 2.1.0 | <b>
      1 unchanged
  database         in sync   rs0 PRIMARY
  identity         0 changes, 1 destroy
    - keycloak_user.test["deu-5"]    destroy   no longer declared
    ! waits for approval. To let exactly this plan through, merge into the instance's manifest:
        spec: {approve: {identity: 8c1f02b7d9e4a610}}
  checks           waits for database.uri

Plan: 1 to change, 1 to destroy (waits). Expected time: about 20 s, by earlier runs.

`, planText(preview(), noInstance("deu-01")))
	require.Equal(t, "No instance is bound to host deu-01.\n", planText(nil, noInstance("deu-01")))
}

func TestPlanTellsWhatHoldsIt(t *testing.T) {
	held := preview()
	n := &held[0].Nodes[3]
	n.Changes = []agent.PreviewChange{{Change: reconcilers.Change{Action: reconcilers.Update, Address: "keycloak_realm.this", Reason: "display_name", Asks: "keycloak_realm is protected"}}}
	n.Asks, n.Held, n.Do = []string{"9 changes, and maxChanges is 8"}, "waits for its window, which opens Sun 2026-03-08 02:00 UTC", "To have it applied before, merge that"
	require.Contains(t, planText(held, "deu-01"), `
  identity         1 change
    ~ keycloak_realm.this            update    display_name (keycloak_realm is protected: waits)
    ! waits for approval: 9 changes, and maxChanges is 8. To let exactly this plan through, merge into the instance's manifest:
        spec: {approve: {identity: 8c1f02b7d9e4a610}}
    ! waits for its window, which opens Sun 2026-03-08 02:00 UTC
        To have it applied before, merge that
`)
	require.Contains(t, planText(held, "deu-01"), "Plan: 2 to change (waits).")
	require.Contains(t, planMarkdown(held, "deu-01"), "| ~ | `identity` `keycloak_realm.this` | update | display\\_name (keycloak\\_realm is protected: waits) |")
	require.Contains(t, planMarkdown(held, "deu-01"), "> **`identity`: waits for its window, which opens Sun 2026-03-08 02:00 UTC.** `To have it applied before, merge that`\n")
	require.Contains(t, planMarkdown(held, "deu-01"), "**`identity` waits for approval: 9 changes, and maxChanges is 8.**")
}

func TestPlanOfWhatIsBlockedOrInSync(t *testing.T) {
	blocked := preview()
	blocked[0].Blocked, blocked[0].Do = "secret LICENCE of deu has to be provided", "Put it there with: dive-agent secrets set deu LICENCE"
	require.Contains(t, planText(blocked, noInstance("deu-01")), "\n\n  ! secret LICENCE of deu has to be provided\n    Put it there with: ")
	require.Contains(t, planText(blocked, noInstance("deu-01")), "Nothing of it is done before what is missing is there.")
	require.Contains(t, planMarkdown(blocked, noInstance("deu-01")), "> **secret LICENCE of deu has to be provided.** Put it")
	var exit *exitError
	blocked[0].Nodes = blocked[0].Nodes[:3]
	require.ErrorAs(t, planExit(blocked), &exit)
	require.Equal(t, exitBlocked, exit.code)

	same := preview()
	same[0].From, same[0].Nodes = same[0].To, same[0].Nodes[1:3]
	require.Equal(t, "## dive-agent plan\n\n### `deu` on `deu-01`: 5d6e7f8 (main, \"Raise DEU to 2.1\")\n\n\nPlan: in sync, nothing to change.\n\n",
		planMarkdown(same, noInstance("deu-01")), "no table without rows")
}

func TestWhatOthersSayDoesNotSteerTheTerminal(t *testing.T) {
	var out bytes.Buffer
	writeEvent(&globals{streams: streams{out: &out}}, agent.Event{Message: "its check says \x1b[31mred\x1b]0;title\a \u202etxt.exe"})
	require.Contains(t, out.String(), "its check says [31mred]0;title txt.exe")
	require.NotContains(t, out.String(), "\x1b")
}

func TestPlanForAPullRequestIsSafeMarkdown(t *testing.T) {
	text := planMarkdown(preview(), noInstance("deu-01"))
	require.Contains(t, text, "| ~ | `stack/backend` `backend` | replace | image 2.0.4 -> 2.1.0 \\| \\<b> |")
	require.Contains(t, text, "**`identity` waits for approval.**")
	require.NotContains(t, text, "<details>", "a short plan is not folded")
}

func TestALongPlanIsFoldedAndFitsIntoAComment(t *testing.T) {
	long := preview()
	identity := &long[0].Nodes[3]
	value := []reconcilers.Difference{{Path: "display_name", Before: "Germany", After: "Deutschland | [x](http://evil)"}}
	for i := range 20 {
		change := reconcilers.Change{Action: reconcilers.Update, Address: fmt.Sprintf("keycloak_user.test[%d]", i), Reason: "display_name", Details: []string{"display_name"}}
		identity.Changes = append(identity.Changes, agent.PreviewChange{Change: change, Differences: value})
	}
	text := planMarkdown(long, noInstance("deu-01"))
	require.Contains(t, text, "<details><summary><b>identity</b>: 20 changes, 1 destroy</summary>")
	require.Contains(t, text, "| `keycloak_user.test[19]` | `display_name` | `Germany` | `Deutschland ¦ [x](http://evil)` |")
	require.Equal(t, strings.Count(text, "<details>"), strings.Count(text, "</details>"))
	require.Contains(t, planText(long, noInstance("deu-01")), "        display_name: Germany -> Deutschland | [x](http://evil)\n")

	for range 20 {
		long = append(long, long[0])
	}
	for i := range long {
		for range 6 {
			n := &long[i].Nodes[3]
			n.Changes = append(n.Changes, n.Changes...)[:min(2*len(n.Changes), 1000)]
		}
	}
	text = planMarkdown(long, noInstance("deu-01"))
	require.Less(t, len(text), commentLimit)
	require.Contains(t, text, "more\n")
	require.Equal(t, 21, strings.Count(text, "**`identity` waits for approval.**"), "what people must do is never left out")
	require.Equal(t, strings.Count(text, "<details>"), strings.Count(text, "</details>"))
}

func TestPlanExitCodes(t *testing.T) {
	code := func(previews []agent.Preview) int {
		err := planExit(previews)
		if err == nil {
			return exitDone
		}
		var exit *exitError
		require.ErrorAs(t, err, &exit)
		return exit.code
	}
	all := preview()
	require.Equal(t, exitBlocked, code(all))
	all[0].Nodes[3].Approve = ""
	require.Equal(t, exitPending, code(all))
	all[0].Nodes = all[0].Nodes[2:3]
	require.Equal(t, exitDone, code(all))
	require.Contains(t, planText(all, noInstance("deu-01")), "Plan: in sync, nothing to change.")
	all[0].Nodes[0].Error = "its server does not answer"
	require.Equal(t, exitFailed, code(all))
	require.Contains(t, planText(all, noInstance("deu-01")), "Plan: not known whether it is in sync, for "+all[0].Nodes[0].ID+".")
	all[0].Offline = true
	require.Equal(t, exitDone, code(all), "nobody is asked")
}
