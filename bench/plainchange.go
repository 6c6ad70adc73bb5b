package bench

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/docker/compose/v5/pkg/api"

	"dive-agent/testbed"
	"dive-agent/testbed/gitserver"
)

// Changes of a stack of plain services, against the Compose SDK.
const (
	changeOne  = "change-1-service"
	changeFive = "change-5-services"
)

const (
	directProject = "dive-bench-direct"
	changeStack   = 8 // services, so that some stay as they are
	changeTimes   = 9
)

// twins are two stacks of the same Compose file: one that the agent keeps, and one that only the SDK changes.
type twins struct {
	*world
	agent  *agentProcess
	log    *engineLog
	sdk    api.Compose
	file   string
	values [2]string // of the one service's variable, and of the five's
}

// measurePlainChange merges changes of one service and of five, and times each from the order to look, which polls the
// repository, to the start of the last new container. In turn with it the Compose SDK makes the same change in the other stack, of the
// same file and narrowed to these services, as `docker compose up --no-deps` does.
func measurePlainChange(ctx context.Context, r *run) error {
	t, err := r.world.bringTwins(ctx)
	if err != nil {
		return err
	}
	for _, figure := range []struct {
		name     string
		which    int
		services []string
		bar      float64
	}{{changeOne, 0, []string{"s0"}, 1.10}, {changeFive, 1, []string{"s1", "s2", "s3", "s4", "s5"}, 1.15}} {
		var took, direct []time.Duration
		for i := range changeTimes {
			t.values[figure.which] = fmt.Sprintf("%s-%d", figure.name, i)
			ways := []func() error{
				func() error {
					return t.timed(&took, func() (time.Duration, error) { return t.byMerge(ctx, figure.services) })
				},
				func() error {
					return t.timed(&direct, func() (time.Duration, error) { return t.directly(ctx, figure.services) })
				},
			}
			if i%2 == 1 { // neither always comes after the other
				ways[0], ways[1] = ways[1], ways[0]
			}
			for _, way := range ways {
				if err := way(); err != nil {
					return err
				}
			}
		}
		r.ratio(figure.name, median(took), median(direct), figure.bar, "of %d, from wake to the start of the last container, poll included; %s; the Compose SDK: %s; fastest %.2f x; the last one: %s",
			changeStack, spread(took), spread(direct), fastest(took).Seconds()/fastest(direct).Seconds(), t.stagesOf(t.agent))
	}
	if err := t.agent.stop(ctx); err != nil {
		return err
	}
	if err := testbed.RemoveProject(ctx, t.engine, directProject); err != nil {
		return err
	}
	return testbed.RemoveProject(ctx, t.engine, plainProject)
}

func (w *world) bringTwins(ctx context.Context) (*twins, error) {
	a, err := w.launch(ctx, "plain-02")
	if err != nil {
		return nil, err
	}
	if err := w.bringPlain(ctx, a, "twin", plainProject, changeStack); err != nil {
		return nil, err
	}
	t := &twins{world: w, agent: a, log: w.listen(ctx), file: w.path("direct", "compose.yaml"), values: [2]string{"first", "first"}}
	if t.sdk, err = w.composeSDK(); err != nil {
		return nil, err
	}
	if err := writeFile(t.file, plainCompose(changeStack)); err != nil {
		return nil, err
	}
	return t, t.up(ctx, nil)
}

func (t *twins) timed(all *[]time.Duration, what func() (time.Duration, error)) error {
	took, err := what()
	*all = append(*all, took)
	return err
}

// byMerge gives the time until the agent started the last of the services, and waits until all is well again.
func (t *twins) byMerge(ctx context.Context, services []string) (time.Duration, error) {
	files := gitserver.Files{}
	plainStack(files, "twin", t.agent.name, plainProject, changeStack, t.values[0], t.values[1])
	commit, err := t.merge("Change "+strings.Join(services, ", "), files)
	if err != nil {
		return 0, err
	}
	begun := time.Now()
	t.woken = begun
	if _, err := t.agent.order(ctx, "/v1/poll"); err != nil {
		return 0, err
	}
	took, err := t.lastStart(ctx, plainProject, services, begun)
	if err != nil {
		return 0, fmt.Errorf("%w\n%s", err, t.agent.lastWords())
	}
	return took, t.agent.awaitReady(ctx, time.Minute, "twin", commit)
}

func (t *twins) directly(ctx context.Context, services []string) (time.Duration, error) {
	begun := time.Now()
	if err := t.up(ctx, services); err != nil {
		return 0, err
	}
	return t.lastStart(ctx, directProject, services, begun)
}

func (t *twins) lastStart(ctx context.Context, project string, services []string, begun time.Time) (last time.Duration, err error) {
	for _, service := range services {
		start, err := t.log.await(ctx, project, service, "start", begun)
		if err != nil {
			return 0, err
		}
		last = max(last, start.at.Sub(begun))
	}
	return last, nil
}

// up loads the file and brings services up; nil: all.
func (t *twins) up(ctx context.Context, services []string) error {
	project, err := t.sdk.LoadProject(ctx, api.ProjectLoadOptions{
		ProjectName: directProject, ConfigPaths: []string{t.file}, WorkingDir: filepath.Dir(t.file), Offline: true,
		ProjectOptionsFns: []cli.ProjectOptionsFn{cli.WithEnv([]string{"IMAGE=" + string(testbed.Base), "ONE=" + t.values[0], "FIVE=" + t.values[1]})},
	})
	if err != nil {
		return fmt.Errorf("load the project directly: %w", err)
	}
	if services == nil {
		services = project.ServiceNames()
	}
	if project, err = project.WithSelectedServices(services, types.IgnoreDependencies); err != nil {
		return err
	}
	err = t.sdk.Up(ctx, project, api.UpOptions{
		Create: api.CreateOptions{
			Services: services, Recreate: api.RecreateDiverged, RecreateDependencies: api.RecreateNever, Inherit: true, IgnoreOrphans: true, QuietPull: true,
		},
		Start: api.StartOptions{Project: project, Services: services},
	})
	if err != nil {
		return fmt.Errorf("change the services directly: %w", err)
	}
	return nil
}
