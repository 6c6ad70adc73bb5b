package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"dive-agent/testbed/gitserver"
)

const terraformFirst = "terraform-first-apply"

// measureFirstApply has the agent make two more realms in the spoke's Keycloak, and makes two by hand with the same module
// and the same variables: terraform init, then terraform apply.
func measureFirstApply(ctx context.Context, r *run) error {
	w := r.world
	if err := w.needSpoke(ctx); err != nil {
		return err
	}
	var took, byHand []time.Duration
	for i := range 2 {
		one, err := w.realmByAgent(ctx, fmt.Sprintf("realm%d", i), fmt.Sprintf("BA%c", 'A'+i))
		if err != nil {
			return err
		}
		took = append(took, one)
		if one, err = w.realmByHand(ctx, fmt.Sprintf("BH%c", 'A'+i)); err != nil {
			return err
		}
		byHand = append(byHand, one)
	}
	// Two each: their sum, which is kinder to neither than a median of two.
	r.ratio(terraformFirst, (took[0]+took[1])/2, (byHand[0]+byHand[1])/2, 1.1, "from wake to the realm done, against terraform init and apply; means of %s, %s and %s, %s",
		round(took[0]), round(took[1]), round(byHand[0]), round(byHand[1]))
	return nil
}

// realmVariables are the module's, but for the address and the password of the server.
func realmVariables(code string) map[string]string {
	return map[string]string{
		"instance_code": code, "instance_name": "Benchmark", "client_secret": "a-client-secret-of-the-benchmark", "test_user_password": "A-password-of-20-chars",
		"app_url": "http://localhost:3999", "api_url": "http://localhost:4999", "idp_url": "http://localhost:8999",
		"hub_url": "http://localhost:8998", "hub_backchannel_url": "http://localhost:8998", "hub_client_secret": "a-secret-of-the-benchmark-for-the-hub",
	}
}

// realmByAgent merges one more component and times it from the order to look.
func (w *world) realmByAgent(ctx context.Context, name, code string) (time.Duration, error) {
	component := "    " + name + ":\n      kind: Keycloak\n      service: keycloak\n      module: terraform\n      driftSchedule: \"@every 24h\"\n      variables:\n" +
		"        keycloak_admin_password: ${KEYCLOAK_ADMIN_PASSWORD}\n"
	for variable, value := range realmVariables(code) {
		component += fmt.Sprintf("        %s: %q\n", variable, value)
	}
	const mark = "  components:\n"
	files := gitserver.Files{spokeBlueprint: w.files[spokeBlueprint]}
	if err := edit(files, spokeBlueprint, mark, mark+component); err != nil {
		return 0, err
	}
	commit, err := w.merge("Add realm "+code, files)
	if err != nil {
		return 0, err
	}
	begun := time.Now()
	if err := w.spoke.sync(ctx, spoke); err != nil {
		return 0, err
	}
	done, err := w.spoke.await(ctx, name+" is done", func(e event) bool { return e.Node == name && e.Kind == "node" && e.State == "done" })
	if err != nil {
		return 0, err
	}
	return done.Time.Sub(begun), w.spoke.awaitReady(ctx, time.Minute, spoke, commit)
}

// realmByHand runs Terraform as a person would.
func (w *world) realmByHand(ctx context.Context, code string) (time.Duration, error) {
	dir := w.path("by-hand-" + code)
	const module = "blueprints/spoke/terraform/"
	for name, text := range w.files {
		if file, ok := strings.CutPrefix(name, module); ok {
			if err := writeFile(filepath.Join(dir, file), text); err != nil {
				return 0, err
			}
		}
	}
	variables := realmVariables(code)
	variables["keycloak_url"] = fmt.Sprintf("http://localhost:%d", 8080+spokeOffset)
	password, err := w.spoke.secret(spoke, "KEYCLOAK_ADMIN_PASSWORD")
	if err != nil {
		return 0, err
	}
	variables["keycloak_admin_password"] = password
	text, err := json.Marshal(variables)
	if err != nil {
		return 0, err
	}
	if err := os.WriteFile(filepath.Join(dir, "terraform.tfvars.json"), text, 0o600); err != nil {
		return 0, err
	}
	begun := time.Now()
	for _, args := range [][]string{{"init", "-input=false"}, {"apply", "-input=false", "-auto-approve"}} {
		cmd := exec.CommandContext(ctx, "terraform", args...)
		cmd.Dir = dir
		if _, err := w.byHand(cmd); err != nil {
			return 0, err
		}
	}
	return time.Since(begun), nil
}

// byHand runs a command of Terraform with the providers of the mirror.
func (w *world) byHand(cmd *exec.Cmd) (time.Duration, error) {
	cmd.Env = append(os.Environ(), "TF_CLI_CONFIG_FILE="+w.mirror.ConfigFile, "CHECKPOINT_DISABLE=1")
	begun := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		return 0, fmt.Errorf("terraform %s by hand: %w: %s", cmd.Args[1], err, strings.Join(lines[max(0, len(lines)-10):], "\n"))
	}
	return time.Since(begun), nil
}
