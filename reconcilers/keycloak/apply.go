package keycloak

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/terraform-exec/tfexec"

	"dive-agent/reconcilers"
)

// Apply carries out exactly the saved plan, in one run of Terraform. The safe point is before that run: it is asked for
// every change. When ctx ends the run goes on for a while, and then Terraform is asked to end: it begins nothing more, and
// its state has what was made. An agent that dies does not end it.
func (r *Reconciler) Apply(ctx context.Context, t reconcilers.Target, p reconcilers.Plan, progress reconcilers.Progress) (reconcilers.Applied, error) {
	if err := ctx.Err(); err != nil {
		return reconcilers.Applied{}, err
	}
	if len(p.Unknown) > 0 {
		return reconcilers.Applied{}, &reconcilers.WaitError{For: strings.Join(p.Unknown, ", ")}
	}
	l, err := r.open(t)
	if err != nil {
		return reconcilers.Applied{}, err
	}
	if plan, ok := p.State.(*rotation); ok && len(p.Changes) > 0 {
		l.in = plan.inputs
		return l.rotate(ctx, p, progress)
	}
	if _, ok := p.State.(shown); ok {
		return reconcilers.Applied{}, l.lookAgain()
	}
	if plan, ok := p.State.(*accounting); ok && len(p.Changes) > 0 {
		l.in = plan.inputs
		return l.bringAccount(ctx, plan, p, progress)
	}
	plan, ok := p.State.(*saved)
	if !ok || len(p.Changes) == 0 {
		return l.applied(), nil
	}
	l.in = plan.inputs
	if err := l.fresh(ctx, plan); err != nil {
		return reconcilers.Applied{}, err
	}
	run := newRun(l, plan, progress)
	if err := run.begin(ctx); err != nil {
		return reconcilers.Applied{}, err
	}
	if err = run.export(ctx); err == nil {
		err = run.terraform(ctx)
	}
	run.end(err)
	if err != nil {
		return reconcilers.Applied{}, err
	}
	return l.applied(), nil
}

func (l *look) applied() reconcilers.Applied {
	return reconcilers.Applied{Outputs: l.record.published(l.spec.OutputNames), Holds: l.holds(), Facts: l.facts()}
}

// fresh refuses a plan that was made for another state.
func (l *look) fresh(ctx context.Context, plan *saved) error {
	if _, err := os.Stat(plan.file); err != nil {
		return fmt.Errorf("the saved Terraform plan is no longer there: %w", err)
	}
	if terraformRuns(l.work.module) != 0 {
		return &reconcilers.WaitError{For: "the Terraform run that is under way", Again: time.Second}
	}
	if l.work.remote != nil {
		if err := l.fetch(ctx, l.here()); err != nil {
			return err
		}
	}
	state, err := readState(l.work.state)
	if err != nil && !errors.Is(err, errNoState) {
		return err
	}
	l.state = state
	serial := int64(0)
	if state != nil {
		serial = state.Serial
	}
	if serial != plan.serial {
		return fmt.Errorf("the saved Terraform plan is for serial %d of the state, which is at %d: it is made again", plan.serial, serial)
	}
	return nil
}

// run is one apply.
type run struct {
	*look
	plan     *saved
	progress reconcilers.Progress
	stream   *stream
	journal  *journal
	copied   time.Time

	tally tally // of the goroutine that reads the stream

	mu   sync.Mutex
	open map[string]reconcilers.Change
}

func newRun(l *look, plan *saved, progress reconcilers.Progress) *run {
	r := &run{look: l, plan: plan, progress: progress, open: map[string]reconcilers.Change{}}
	for _, c := range plan.changes {
		if !isOutput(c) {
			r.tally.all++
		}
	}
	r.stream = &stream{heard: r.hear}
	return r
}

// begin asks for the safe point of all changes at once: Terraform makes them in one run.
func (r *run) begin(ctx context.Context) error {
	if err := r.progress.Begin(ctx, r.plan.changes...); err != nil {
		return err
	}
	for _, c := range r.plan.changes {
		r.open[c.Address] = c
	}
	return nil
}

// end closes the changes that are still open.
func (r *run) end(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, address := range sortedKeys(r.open) {
		r.progress.End(r.open[address], err)
		delete(r.open, address)
	}
}

// hear follows the run: what is done, what has its id, and a copy of the state from time to time.
func (r *run) hear(m message) {
	address, closed := m.Hook.Resource.Addr, false
	switch m.Type {
	case "apply_start", "apply_progress":
	case "apply_complete":
		if m.Hook.IDValue != "" {
			if err := r.journal.add(made{Address: address, Key: m.Hook.IDKey, ID: m.Hook.IDValue, At: r.deps.Clock.Now()}); err != nil {
				r.target.Log.Warn("cannot write the journal of ids", "error", err)
			}
		}
		closed = r.close(address, m.Hook.Action, nil)
		r.copyState()
	case "apply_errored":
		closed = r.close(address, "", errors.New("terraform could not apply it"))
	default:
		return
	}
	if r.tally.hear(m, closed) {
		r.progress.Say("%s", r.tally.words(m))
	}
}

// close ends a change; false for the first half of a replacement.
func (r *run) close(address, action string, err error) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	c, ok := r.open[address]
	if !ok || c.Action == reconcilers.Replace && action == "delete" && err == nil {
		return false
	}
	delete(r.open, address)
	r.progress.End(c, err)
	return true
}

// unhurried is how long an apply may go on after it was told to stop: most are through by then.
const unhurried = 20 * time.Second

// lasting gives the context of the run. Its end, at the component's own limit or some time after ctx, interrupts Terraform:
// what is under way is ended, nothing more is begun, the state is written.
func (r *run) lasting(ctx context.Context) (context.Context, context.CancelFunc) {
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.spec.Timeout.Std())
	stop := context.AfterFunc(ctx, func() {
		select {
		case <-r.deps.Clock.After(unhurried):
			cancel()
		case <-limited.Done():
		}
	})
	return limited, func() { stop(); cancel() }
}

// copyState keeps what the state has so far, so that a power cut costs little. A state that is being written cannot be
// read and is left for the next turn. A remote place has what Terraform brings there every 20 seconds.
func (r *run) copyState() {
	if r.work.remote != nil {
		return
	}
	if now := time.Now(); now.Sub(r.copied) > 500*time.Millisecond {
		if _, err := keepCopy(r.work.state, r.work.copies); err == nil {
			r.copied = now
		}
	}
}

// parallelism is the component's, and 1 where a flow, or something in one, is deleted: Keycloak reads all flows of the realm
// for that, and answers 500 when one of them is deleted meanwhile.
func (r *run) parallelism() int {
	for _, c := range r.plan.changes {
		if c.Destroys && strings.Contains(c.Address, "keycloak_authentication_") {
			return 1
		}
	}
	return r.spec.Parallelism
}

// terraform applies the saved plan and records what came of it.
func (r *run) terraform(ctx context.Context) error {
	if r.state != nil {
		if _, err := keepCopy(r.work.state, r.work.copies); err != nil {
			return fmt.Errorf("copy the Terraform state before an apply: %w", err)
		}
	}
	if err := r.work.reserveState(r.tally.all, r.deps.Clock.Now()); err != nil {
		return err
	}
	defer func() {
		if terraformRuns(r.work.module) != 0 {
			return // it was left alone, and may need what is reserved
		}
		if err := r.work.releaseState(); err != nil {
			r.target.Log.Warn("cannot give back the room that was reserved for the Terraform state", "error", err)
		}
	}()
	var err error
	if r.journal, err = r.work.openJournal(); err != nil {
		return err
	}
	defer func() {
		if err := r.journal.close(); err != nil {
			r.target.Log.Warn("cannot write the journal of ids", "error", err)
		}
	}()
	r.cut = r.work.interrupted()
	if err := r.work.keepBegun(r.cut); err != nil {
		return err
	}
	if r.plan.anew { // from here on the state is the one that this run begins
		r.record.Serial, r.record.Lineage = 0, ""
		if err := r.work.forget(r.deps.Clock.Now()); err != nil {
			return err
		}
	}
	r.record.Begun, r.record.Tool = r.in.digest, r.work.toolName // whose state it is from here on
	if err := r.work.keep(r.record); err != nil {
		return err
	}
	tf := r.plan.apply
	limited, cancel := r.lasting(ctx)
	defer cancel()
	failed := tf.ApplyJSON(limited, r.stream, tfexec.DirOrPlan(r.plan.file), tfexec.Parallelism(r.parallelism()))
	tf.SetStdout(nil)
	if err := r.work.tighten(); err != nil {
		r.target.Log.Warn("cannot keep the Terraform state from others", "error", err)
	}
	unread := r.after(ctx)
	if failed != nil && ctx.Err() != nil && terminated(failed) {
		_, err := keepCopy(r.work.state, r.work.copies)
		return errors.Join(fmt.Errorf("%d of %d changes were made: %w", r.tally.done, r.tally.all, context.Cause(ctx)), unread, err)
	}
	if failed != nil {
		r.findConflicts(ctx)
	}
	if unread == nil {
		return r.settle(failed)
	}
	if failed != nil {
		failed = r.failed("apply", r.stream, failed)
	}
	return errors.Join(unread, failed) // the next look reads it
}

// after reads what the run left at a remote place, or could not bring there.
func (r *run) after(ctx context.Context) error {
	if r.work.remote == nil {
		return nil
	}
	ctx = context.WithoutCancel(ctx)
	if err := r.pushErrored(ctx, r.here()); err != nil {
		return err
	}
	return r.fetch(ctx, r.here())
}

// settle records the state after a run, whether it came to its end or not.
func (r *run) settle(failed error) error {
	before := r.plan.serial
	state, err := keepCopy(r.work.state, r.work.copies)
	if failed != nil {
		return r.failed("apply", r.stream, failed)
	}
	if err != nil {
		return fmt.Errorf("the apply came to its end, but its state is not there: %w", err)
	}
	if state.Serial < before {
		return fmt.Errorf("the apply came to its end, but the state's serial went from %d to %d", before, state.Serial)
	}
	r.record.take(state, r.work.toolName)
	if r.record.Inputs != r.in.digest { // else what did not converge before is known already
		r.record.Stuck = nil
	}
	r.record.Inputs, r.record.Verified, r.record.Applied, r.record.Begun = r.in.digest, false, printOf(r.plan.changes), ""
	r.record.Compared, r.record.Adopt = r.deps.Clock.Now(), r.spec.Adopt
	r.record.Last = &lastApply{At: r.record.Compared, Took: r.tally.now.Sub(r.tally.began), Changes: madeOf(r.plan.changes), Slowest: r.tally.slowest}
	if err := r.work.keep(r.record); err != nil {
		return err
	}
	return errors.Join(removeIfThere(r.plan.file), r.work.finished())
}
