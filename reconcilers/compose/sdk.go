package compose

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/docker/cli/cli/command"
	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/flags"
	"github.com/docker/compose/v5/pkg/api"
	sdk "github.com/docker/compose/v5/pkg/compose"
	"github.com/sirupsen/logrus"
)

// sdkHolder makes the Compose SDK when it is first needed.
type sdkHolder struct {
	once    sync.Once
	compose api.Compose
	err     error
}

// noConfig is a folder that does not exist: credentials, contexts and proxies of whoever runs the agent stay out.
const noConfig = "/nonexistent/dive-agent"

var processWide sync.Once

func (r *Reconciler) compose() (api.Compose, error) {
	r.sdk.once.Do(func() {
		processWide.Do(func() {
			config.SetDir(noConfig)
			logrus.SetOutput(io.Discard)
			logrus.AddHook(&warnings{log: r.log, redact: r.redact})
		})
		r.sdk.compose, r.sdk.err = r.newSDK()
	})
	return r.sdk.compose, r.sdk.err
}

func (r *Reconciler) newSDK() (api.Compose, error) {
	cli, err := command.NewDockerCli(
		command.WithAPIClient(narrowing{r.engine}),
		command.WithInputStream(io.NopCloser(strings.NewReader(""))),
		command.WithOutputStream(io.Discard),
		command.WithErrorStream(io.Discard),
	)
	if err != nil {
		return nil, fmt.Errorf("set up the Compose SDK: %w", err)
	}
	if err := cli.Initialize(flags.NewClientOptions()); err != nil {
		return nil, fmt.Errorf("set up the Compose SDK: %w", err)
	}
	// The prompt is asked whether a volume may be deleted with its data.
	never := func(string, bool) (bool, error) { return false, nil }
	return sdk.NewComposeService(cli, sdk.WithPrompt(never))
}

// create makes what a narrowed project lacks. With force, containers that are there are made anew.
func (r *Reconciler) create(ctx context.Context, project *types.Project, force bool) error {
	compose, err := r.compose()
	if err != nil {
		return err
	}
	recreate := api.RecreateDiverged
	if force {
		recreate = api.RecreateForce
	}
	return compose.Create(ctx, project, api.CreateOptions{
		Services:             project.ServiceNames(),
		Recreate:             recreate,
		RecreateDependencies: api.RecreateNever,
		Inherit:              true,
		IgnoreOrphans:        true,
		QuietPull:            true,
	})
}

// warnings hands on what the SDK and compose-go tell the process-wide logger.
type warnings struct {
	log    *slog.Logger
	redact func(string) string
}

func (*warnings) Levels() []logrus.Level {
	return []logrus.Level{logrus.PanicLevel, logrus.FatalLevel, logrus.ErrorLevel, logrus.WarnLevel}
}

func (w *warnings) Fire(entry *logrus.Entry) error {
	w.log.Debug("compose: " + w.redact(entry.Message))
	return nil
}
