package compose

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/client"
)

// preStopLabel holds the commands that a container's definition wants to be run in it before it is stopped, as JSON. It is
// with the container, not with the definition: the one that goes may be of another one, or of none any more.
const preStopLabel = "dive.pre_stop"

// withHooks adds the label to a service that is to be made.
func withHooks(service *types.ServiceConfig) error {
	if len(service.PreStop) == 0 {
		return nil
	}
	text, err := json.Marshal(service.PreStop)
	if err != nil {
		return err
	}
	service.CustomLabels = service.CustomLabels.Add(preStopLabel, string(text))
	return nil
}

// postStart runs the commands that the service wants right after its start. One that fails is a fault of the new version.
// The record says from before the start until they are done that they are not, so that they are run after a crash.
func (r *Reconciler) postStart(ctx context.Context, st *serviceState, id string) error {
	if st.record.Starting != id {
		return nil
	}
	if err := r.runHooks(ctx, id, st.service.PostStart); err != nil {
		if client.IsErrConnectionFailed(err) || ctx.Err() != nil {
			return fmt.Errorf("post_start of service %s: %w", st.name, err)
		}
		return &fault{message: "post_start of service " + st.name, err: err}
	}
	st.record.Starting = ""
	return st.record.write(st.recordPath(st.name))
}

// starts notes that a container is to be started, whose commands are to be run then.
func (st *serviceState) starts(id string) error {
	if len(st.service.PostStart) == 0 {
		return nil
	}
	st.record.Starting = id
	return st.record.write(st.recordPath(st.name))
}

// preStop runs the commands that a container wants before it is stopped.
func (r *Reconciler) preStop(ctx context.Context, id string) error {
	c, err := r.engine.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if err != nil || !c.Container.State.Running || c.Container.State.Paused || c.Container.State.Restarting {
		return nil // nothing can be run in it
	}
	text, ok := c.Container.Config.Labels[preStopLabel]
	if !ok {
		return nil
	}
	var hooks []types.ServiceHook
	if err := json.Unmarshal([]byte(text), &hooks); err != nil {
		return nil // not of our making
	}
	if err := r.runHooks(ctx, id, hooks); err != nil {
		return fmt.Errorf("pre_stop of container %s, which goes on: %w", strings.TrimPrefix(c.Container.Name, "/"), err)
	}
	return nil
}

// runHooks runs commands in a container one after the other, up to the first that fails. A container that does not run any
// more is none of their business.
func (r *Reconciler) runHooks(ctx context.Context, id string, hooks []types.ServiceHook) error {
	for _, hook := range hooks {
		err := r.runHook(ctx, id, hook)
		if errdefs.IsNotFound(err) || errdefs.IsConflict(err) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *Reconciler) runHook(ctx context.Context, id string, hook types.ServiceHook) error {
	var env []string
	for _, name := range sortedKeys(hook.Environment) {
		if value := hook.Environment[name]; value != nil {
			env = append(env, name+"="+*value)
		}
	}
	created, err := r.engine.ExecCreate(ctx, id, client.ExecCreateOptions{
		Cmd: hook.Command, User: hook.User, Privileged: hook.Privileged, WorkingDir: hook.WorkingDir, Env: env,
		AttachStdout: true, AttachStderr: true,
	})
	if err != nil {
		return err
	}
	attached, err := r.engine.ExecAttach(ctx, created.ID, client.ExecAttachOptions{})
	if err != nil {
		return err
	}
	defer attached.Close()
	stop := context.AfterFunc(ctx, attached.Close)
	defer stop()
	var said lastBytes
	if _, err := stdcopy.StdCopy(&said, &said, attached.Reader); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return fmt.Errorf("%s: %w", hookName(hook), err)
	}
	done, err := r.engine.ExecInspect(ctx, created.ID, client.ExecInspectOptions{})
	if err != nil {
		return err
	}
	if done.ExitCode != 0 {
		words := strings.Join(strings.Fields(r.redact(string(said))), " ")
		return fmt.Errorf("%s exits with %d: %s", hookName(hook), done.ExitCode, words[max(0, len(words)-200):])
	}
	return nil
}

// hookName is the command's program: its arguments may hold what nobody is to see.
func hookName(hook types.ServiceHook) string {
	if len(hook.Command) == 0 {
		return "its command"
	}
	return hook.Command[0]
}

// lastBytes keeps the end of what is written to it.
type lastBytes []byte

func (l *lastBytes) Write(p []byte) (int, error) {
	*l = append(*l, p...)
	if len(*l) > 8<<10 {
		*l = append((*l)[:0], (*l)[len(*l)-4<<10:]...)
	}
	return len(p), nil
}
