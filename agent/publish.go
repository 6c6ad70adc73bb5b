package agent

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"time"

	"dive-agent/report"
	"dive-agent/state"
)

// heartbeat is how often a status is written though nothing changed.
const heartbeat = 15 * time.Minute

// publish computes the status, keeps it with the instance in one transaction, and hands it to the reporter when there
// is news. It never fails a round: what cannot be kept now is published by the next round.
func (r *round) publish(ctx context.Context, p *pass, trouble error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeLimit)
	defer cancel()
	exports := r.exported(p)
	s := r.situation(r.known, r.next, trouble)
	if p != nil {
		s.nodes = p.views()
	}
	status := statusOf(s)
	var last *report.Status
	var news, exported bool
	err := r.payOwed(ctx, func(tx state.Tx) (err error) {
		if p != nil && !s.running { // before, no plan has met the gate
			if _, err := report.KeepPlans(tx, r.name, r.waitingPlans(p), status.Updated); err != nil {
				return err
			}
			if exported, err = r.export(tx, exports); err != nil {
				return err
			}
		}
		last, news, err = r.keep(ctx, tx, r.known, status, exported)
		return err
	})
	r.see(func(v *view) { v.Unkept = err })
	switch {
	case err != nil:
		if s.unkept == nil || s.unkept.Error() != err.Error() { // it is tried each second
			r.log.Error("cannot keep the status", "error", err)
		}
		r.rouseLater()
	case news:
		r.tell(last, status)
	}
}

func (w *worker) situation(known state.Instance, next *assignment, trouble error) situation {
	var rejected rejectionDetail
	if known.Rejected != nil {
		rejected = w.rejectionDetail()
	}
	w.Agent.mu.Lock()
	refused, source := w.refused, w.source
	w.Agent.mu.Unlock()
	w.identity.mu.Lock()
	keys := w.identity.trouble
	w.identity.mu.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	nodes, left := slices.Clone(w.view.Nodes), removal{}
	if w.removed && w.movedTo == "" {
		if left, _ = readRemoval(w.Dir, w.name); !left.Done.IsZero() { // what cannot be read is the round's trouble
			nodes = nil
		}
	}
	var imports importsHealth
	if next != nil {
		imports = w.importsHealth(next.instance, w.Clock.Now())
	}
	return situation{
		imports: imports, exports: slices.Clone(w.view.Exports), revisions: w.revisions(),
		removal: left, archive: archiveOf(w.Dir, w.name, left),
		instance: w.name, host: w.Host, known: known, rejected: rejected, next: next, running: w.view.Running, removed: w.removed, movedTo: w.movedTo, err: trouble,
		refused: refused, source: source, keys: keys, now: w.Clock.Now().UTC(), redact: w.Redactor.String, nodes: nodes,
		unkept: w.view.Unkept, secrets: slices.Clone(w.view.Sources), seen: w.view.Seen.UTC(), left: leftOf(w.Dir, next),
	}
}

// keep writes instance, nodes and status, and enqueues the report, all in one transaction: also of the same status, when it is to
// carry other outputs. It gives the status that was kept last, and says whether this one differs from it.
func (w *worker) keep(ctx context.Context, tx state.Tx, known state.Instance, status *report.Status, exported bool) (last *report.Status, news bool, err error) {
	stored, err := w.recallIn(tx)
	if err != nil {
		return nil, false, err
	}
	known.Suspended = stored.Suspended // a person may have changed it during the round
	if last, err = lastStatus(tx, w.name); err != nil {
		return nil, false, err
	}
	if err := errors.Join(tellReports(tx, status), tellPlans(tx, status)); err != nil {
		return nil, false, err
	}
	changed, err := carry(status, last, !w.takenAway())
	if err != nil {
		return nil, false, err
	}
	beats := status.Phase != report.Removed && last != nil && status.Updated.Sub(last.Updated).Abs() >= heartbeat // the clock may have gone back
	if !changed && !exported && last != nil && !beats {
		return last, false, tx.PutInstance(known)
	}
	known.Phase, known.Generation, known.Updated = string(status.Phase), status.Generation, status.Updated
	if err := tx.PutInstance(known); err != nil {
		return nil, false, err
	}
	if err := w.fillRuns(tx, status); err != nil {
		return nil, false, err
	}
	if err := w.keepNodes(tx, status.Updated); err != nil {
		return nil, false, err
	}
	encoded, err := json.Marshal(status)
	if err != nil {
		return nil, false, err
	}
	if err := tx.PutValue(statusKey(w.name), encoded); err != nil {
		return nil, false, err
	}
	event := state.Event{Time: status.Updated, Instance: w.name, Kind: "phase", Message: string(status.Phase) + " " + status.News}
	if changed {
		if event.Seq, err = tx.AddEvent(event); err != nil {
			return nil, false, err
		}
	}
	if w.Reporter == nil || w.isElsewhere() {
		return last, changed, nil
	}
	return last, changed, w.Reporter.Publish(ctx, tx, status, event)
}

// tellReports adds whether what is told of the instance gets through.
func tellReports(r state.Reader, status *report.Status) error {
	delivered, err := report.Delivered(r, status.Instance, status.Updated)
	status.Conditions = append(status.Conditions, delivered)
	status.Why = add(status.Why, delivered.Message)
	return err
}

// tellPlans adds the plans that wait, and the last ones that did.
func tellPlans(r state.Reader, status *report.Status) error {
	plans, err := report.Plans(r, status.Instance)
	status.Plans = nil
	for _, p := range plans {
		status.Plans = append(status.Plans, p.Link())
	}
	return err
}

// waitingPlans are the plans of a pass that wait for approval, as they are reviewed.
func (r *round) waitingPlans(p *pass) (waiting []report.Plan) {
	for _, view := range p.views() {
		if view.State != NodeBlocked || view.Reason != reasonApproval {
			continue
		}
		told := report.Plan{Node: view.ID, Digest: view.Digest, Manifest: r.work.instance.Position.File, Revision: r.work.revision.Commit}
		for _, c := range previewChanges(p.nodes[view.ID].plan, p.redact) {
			change := report.PlanChange{Action: string(c.Action), Address: c.Address, Reason: c.Reason, Destroys: c.Destroys}
			for _, d := range c.Differences {
				change.Sets = append(change.Sets, report.PlanSet(d))
			}
			told.Changes = append(told.Changes, change)
		}
		waiting = append(waiting, told)
	}
	return waiting
}

// isElsewhere says whether the agent of another host, or of the machine that this host is bound to, tells of the instance: its
// branch has one writer.
func (w *worker) isElsewhere() bool {
	if w.foreignTo(w.declaredHost()) != nil {
		return true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.movedTo != ""
}

// tell emits and logs a phase, or news of it, with the causes and the ways out: who has only the log needs no other command.
func (w *worker) tell(last, status *report.Status) {
	if last != nil && last.Phase == status.Phase && last.News == status.News {
		return
	}
	w.emit(Event{Kind: "phase", State: string(status.Phase), Message: status.News})
	level, words := slog.LevelInfo, []any{"revision", Revision{Commit: status.Attempted}.Short()}
	if status.Phase.Failing() {
		level = slog.LevelWarn
	}
	if status.Phase == report.Ready {
		words = append(words, "news", status.News)
	}
	if len(status.Why) > 0 {
		words = append(words, "why", status.Why, "next", status.Next)
	}
	w.log.Log(context.Background(), level, "the instance is "+string(status.Phase), words...)
}

// keepNodes writes what the nodes look like; how long a changed one took is the estimate of later plans.
func (w *worker) keepNodes(tx state.Tx, now time.Time) error {
	w.mu.Lock()
	nodes := append([]Node(nil), w.view.Nodes...)
	w.mu.Unlock()
	for _, n := range nodes {
		facts, err := json.Marshal(n.Facts)
		if err != nil {
			return err
		}
		kept := state.Node{Instance: w.name, ID: n.ID, State: string(n.State), Message: n.Message, Facts: facts, Updated: now}
		if n.Changed > 0 && n.State.Ended() {
			kept.LastDuration = n.Duration
		}
		if err := tx.PutNode(kept); err != nil {
			return err
		}
	}
	return nil
}

// fillRuns adds the last ten runs.
func (w *worker) fillRuns(r state.Reader, status *report.Status) error {
	runs, err := r.Runs(w.name, 10)
	if err != nil {
		return err
	}
	for _, run := range runs {
		steps, err := r.Steps(run.ID)
		if err != nil {
			return err
		}
		status.Runs = append(status.Runs, ReportRun(run, steps, status.Updated))
	}
	return nil
}

// ReportRun tells a recorded run as the status does. A run or step without an end lasts until now.
func ReportRun(run state.Run, steps []state.Step, now time.Time) report.Run {
	until := func(finished time.Time) time.Time {
		if finished.IsZero() {
			return now
		}
		return finished
	}
	told := report.Run{
		ID: run.ID, Revision: run.Revision, Trigger: run.Trigger, Started: run.Started,
		Duration: until(run.Finished).Sub(run.Started), Outcome: string(run.Outcome), Message: run.Message,
	}
	for _, step := range steps {
		told.Steps = append(told.Steps, report.Step{
			Node: step.Node, Change: step.Action + " " + step.Address, Started: step.Started,
			Duration: until(step.Finished).Sub(step.Started), Outcome: string(step.Outcome),
		})
	}
	return told
}

func statusKey(instance string) string { return state.Key(instance, "status") }

// lastStatus reads the status that was kept last, nil when there is none.
func lastStatus(r state.Reader, instance string) (*report.Status, error) {
	value, err := r.Value(statusKey(instance))
	if errors.Is(err, state.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	status := &report.Status{}
	if err := json.Unmarshal(value, status); err != nil {
		return nil, nil //nolint:nilerr // what an older agent wrote is no reason to stop; it is written anew
	}
	return status, nil
}

// Status gives the status of an instance as it is this moment, also in the middle of a run.
func (a *Agent) Status(ctx context.Context, name string) (*report.Status, error) {
	w, err := a.find(name)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	known, next, trouble, looks := w.view.State, w.view.Assignment, w.view.Err, w.view.Looks
	w.mu.Unlock()
	if next == nil {
		if known, err = w.recall(ctx); err != nil {
			return nil, err
		}
	}
	live := w.situation(known, next, trouble)
	status := statusOf(live)
	unseen := !live.rests() && (next == nil || (len(live.nodes) == 0 && trouble == nil)) // no round has got far enough yet
	err = a.Store.View(ctx, func(r state.Reader) error {
		last, err := lastStatus(r, name)
		if err != nil {
			return err
		}
		if (unseen || looks) && last != nil {
			status = last
			return nil
		}
		if err := errors.Join(tellReports(r, status), tellPlans(r, status)); err != nil {
			return err
		}
		if _, err := carry(status, last, !w.takenAway()); err != nil {
			return err
		}
		return w.fillRuns(r, status)
	})
	return status, err
}

// rouseLater makes another round due soon.
func (w *worker) rouseLater() {
	pause := w.Clock.After(backoffFirst)
	w.all.Go(func() {
		select {
		case <-pause:
			w.rouse("retry")
		case <-w.lifetime.Done():
		}
	})
}
