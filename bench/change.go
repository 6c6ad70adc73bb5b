package bench

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/docker/cli/cli/command"
	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/flags"
	"github.com/docker/compose/v5/pkg/api"
	sdk "github.com/docker/compose/v5/pkg/compose"

	"dive-agent/testbed/gitserver"
)

const changeService = "change-one-service"

// changed is the service whose environment changes.
const changed = "frontend"

// measureChange merges changes of one service and times each from the order to look (which polls the repository) to the
// start of the new container. In turn with it, while the agent is suspended, the Compose SDK makes the same change in the
// same stack, with the project loaded from the same file and narrowed to the service, as `docker compose up --no-deps` does.
func measureChange(ctx context.Context, r *run) error {
	w := r.world
	if err := w.needSpoke(ctx); err != nil {
		return err
	}
	compose, err := w.composeSDK()
	if err != nil {
		return err
	}
	log := w.listen(ctx)
	var took, direct, healthyRound []time.Duration
	var stages string
	for i := range 5 {
		one, whole, err := w.changeByMerge(ctx, log, fmt.Sprintf("merged-%d", i))
		if err != nil {
			return err
		}
		took, healthyRound = append(took, one), append(healthyRound, whole)
		stages = w.stagesOf(w.spoke)
		one, err = w.changeDirectly(ctx, log, compose, fmt.Sprintf("direct-%d", i))
		if err != nil {
			return err
		}
		direct = append(direct, one)
	}
	r.ratio(changeService, median(took), median(direct), 1.15, "environment of %s, from wake to its container's start, poll included; %s; the Compose SDK: %s; until healthy %s; the last one: %s",
		changed, spread(took), spread(direct), round(median(healthyRound)), stages)
	return nil
}

// changeByMerge gives the time until the container's start and until the round was over.
func (w *world) changeByMerge(ctx context.Context, log *engineLog, value string) (running, over time.Duration, err error) {
	commit, err := w.merge("Change "+changed, gitserver.Files{spokeCompose: w.composeWith(value)})
	if err != nil {
		return 0, 0, err
	}
	begun := time.Now()
	w.woken = begun
	if err := w.spoke.sync(ctx, spoke); err != nil {
		return 0, 0, err
	}
	over = time.Since(begun)
	start, err := log.await(ctx, spokeProject, changed, "start", begun)
	if err != nil {
		return 0, 0, fmt.Errorf("%w\n%s", err, w.spoke.lastWords())
	}
	return start.at.Sub(begun), over, w.spoke.awaitReady(ctx, time.Minute, spoke, commit)
}

// stagesOf tells when an agent came how far with the last change, counted from the wake.
func (w *world) stagesOf(a *agentProcess) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var told []string
	for _, stage := range []struct{ name, kind, state string }{
		{"revision taken", "revision", "taken"}, {"surveyed", "run", "begin"}, {"change begun", "change", "begin"},
	} {
		for _, e := range a.events {
			if e.Kind == stage.kind && e.State == stage.state && e.Time.After(w.woken) {
				told = append(told, fmt.Sprintf("%s after %s", stage.name, round(e.Time.Sub(w.woken))))
				break
			}
		}
	}
	return strings.Join(told, ", ")
}

// composeWith is the spoke's Compose file with another value of the variable that means nothing.
func (w *world) composeWith(value string) string {
	before, rest, _ := strings.Cut(w.files[spokeCompose], frontendMark+"      BENCH:")
	_, after, _ := strings.Cut(rest, "\n")
	return before + frontendMark + changeOf(value) + after
}

// changeDirectly makes a change beside the agent, and lets the agent put the service back afterwards.
func (w *world) changeDirectly(ctx context.Context, log *engineLog, compose api.Compose, value string) (time.Duration, error) {
	if _, err := w.spoke.order(ctx, "/v1/instances/"+spoke+"/suspend"); err != nil {
		return 0, err
	}
	dir, err := w.checkout()
	if err != nil {
		return 0, err
	}
	path := filepath.Join(dir, filepath.FromSlash(spokeCompose))
	if err := writeFile(path, w.composeWith(value)); err != nil {
		return 0, err
	}
	begun := time.Now()
	if err := upOne(ctx, compose, path, w.composeEnvironment()); err != nil {
		return 0, err
	}
	start, err := log.await(ctx, spokeProject, changed, "start", begun)
	if err != nil {
		return 0, err
	}
	if _, err := w.spoke.order(ctx, "/v1/instances/"+spoke+"/resume"); err != nil {
		return 0, err
	}
	commit, err := w.head()
	if err != nil {
		return 0, err
	}
	return start.at.Sub(begun), w.settle(ctx, commit)
}

// composeEnvironment is what the file needs for this one service.
func (w *world) composeEnvironment() []string {
	return []string{
		"PROJECT=" + spokeProject, "INSTANCE_CODE=DEU", "FRONTEND_IMAGE=dive-testbed/services:1", fmt.Sprintf("FRONTEND_PORT=%d", 3000+spokeOffset),
		"MONGO_PASSWORD=", "POSTGRES_PASSWORD=", "KEYCLOAK_ADMIN_PASSWORD=", "REDIS_PASSWORD=", "MONGODB_URL=", "SPOKE_ID=", "SPOKE_TOKEN=",
	}
}

// upOne loads the project and brings the one service up.
func upOne(ctx context.Context, compose api.Compose, path string, environment []string) error {
	project, err := compose.LoadProject(ctx, api.ProjectLoadOptions{
		ProjectName: spokeProject, ConfigPaths: []string{path}, WorkingDir: filepath.Dir(path), Offline: true,
		ProjectOptionsFns: []cli.ProjectOptionsFn{cli.WithEnv(environment)},
	})
	if err != nil {
		return fmt.Errorf("load the project directly: %w", err)
	}
	if project, err = project.WithSelectedServices([]string{changed}, types.IgnoreDependencies); err != nil {
		return err
	}
	err = compose.Up(ctx, project, api.UpOptions{
		Create: api.CreateOptions{
			Services: []string{changed}, Recreate: api.RecreateDiverged, RecreateDependencies: api.RecreateNever,
			Inherit: true, IgnoreOrphans: true, QuietPull: true,
		},
		Start: api.StartOptions{Project: project, Services: []string{changed}},
	})
	if err != nil {
		return fmt.Errorf("change the service directly: %w", err)
	}
	return nil
}

// composeSDK is the SDK without whatever the user has configured for it.
func (w *world) composeSDK() (api.Compose, error) {
	config.SetDir(w.path("no-docker-config"))
	client, err := command.NewDockerCli(
		command.WithAPIClient(w.engine), command.WithInputStream(io.NopCloser(strings.NewReader(""))),
		command.WithOutputStream(io.Discard), command.WithErrorStream(io.Discard),
	)
	if err != nil {
		return nil, err
	}
	if err := client.Initialize(flags.NewClientOptions()); err != nil {
		return nil, err
	}
	return sdk.NewComposeService(client)
}
