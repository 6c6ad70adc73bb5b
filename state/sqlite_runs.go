package state

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

const runColumns = "id, instance, revision, trigger, started, finished, outcome, message"

func scanRun(row scanner) (Run, error) {
	var (
		r                 Run
		started, finished int64
	)
	err := row.Scan(&r.ID, &r.Instance, &r.Revision, &r.Trigger, &started, &finished, &r.Outcome, &r.Message)
	r.Started, r.Finished = fromNanos(started), fromNanos(finished)
	return r, err
}

const stepColumns = "run, seq, node, action, address, started, finished, outcome, message"

func scanStep(row scanner) (Step, error) {
	var (
		s                 Step
		started, finished int64
	)
	err := row.Scan(&s.Run, &s.Seq, &s.Node, &s.Action, &s.Address, &started, &finished, &s.Outcome, &s.Message)
	s.Started, s.Finished = fromNanos(started), fromNanos(finished)
	return s, err
}

func (r *reader) run(id string) (Run, error) {
	return one(r, fmt.Sprintf("read run %q", id), scanRun, "SELECT "+runColumns+" FROM runs WHERE id = ?", id)
}

func (r *reader) Runs(instance string, limit int) ([]Run, error) {
	return list(r, "read the runs", scanRun,
		"SELECT "+runColumns+" FROM runs WHERE ?1 = '' OR instance = ?1 ORDER BY rowid DESC LIMIT ?2", instance, limited(limit))
}

func (r *reader) Steps(run string) ([]Step, error) {
	return list(r, fmt.Sprintf("read the steps of run %q", run), scanStep,
		"SELECT "+stepColumns+" FROM steps WHERE run = ? ORDER BY seq", run)
}

func (w *writer) StartRun(r Run) error {
	what := fmt.Sprintf("record run %q of %q", r.ID, r.Instance)
	if err := w.change(what, "INSERT INTO runs ("+runColumns+") VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
		r.ID, r.Instance, r.Revision, r.Trigger, nanos(r.Started), nanos(r.Finished), r.Outcome, r.Message); err != nil {
		return err
	}
	// Which run is older is told by the order in which they were recorded, not by their times: the clock may have gone back since.
	const old = "SELECT id FROM runs WHERE instance = ? ORDER BY rowid DESC LIMIT -1 OFFSET ?"
	if err := w.change(what, "DELETE FROM steps WHERE run IN ("+old+")", r.Instance, w.store.keepRuns); err != nil {
		return err
	}
	return w.change(what, "DELETE FROM runs WHERE id IN ("+old+")", r.Instance, w.store.keepRuns)
}

func (w *writer) FinishRun(id string, at time.Time, outcome Outcome, message string) error {
	what := fmt.Sprintf("record the end of run %q", id)
	if _, err := w.run(id); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return w.change(what, "UPDATE runs SET finished = ?, outcome = ?, message = ? WHERE id = ? AND finished = 0",
		nanos(at), outcome, message, id)
}

func (w *writer) StartStep(s Step) (int64, error) {
	what := fmt.Sprintf("record a step of run %q", s.Run)
	if _, err := w.run(s.Run); err != nil {
		return 0, fmt.Errorf("%s: %w", what, err)
	}
	var seq int64
	err := w.tx.QueryRowContext(w.ctx, "SELECT coalesce(max(seq), 0) + 1 FROM steps WHERE run = ?", s.Run).Scan(&seq)
	if err != nil {
		return 0, w.fail(what, err)
	}
	return seq, w.change(what, "INSERT INTO steps ("+stepColumns+") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
		s.Run, seq, s.Node, s.Action, s.Address, nanos(s.Started), nanos(s.Finished), s.Outcome, s.Message)
}

func (w *writer) FinishStep(run string, seq int64, at time.Time, outcome Outcome, message string) error {
	what := fmt.Sprintf("record the end of step %d of run %q", seq, run)
	res, err := w.exec(what, "UPDATE steps SET finished = ?, outcome = ?, message = ? WHERE run = ? AND seq = ?",
		nanos(at), outcome, message, run, seq)
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return w.fail(what, sql.ErrNoRows)
	}
	return nil
}

// Recover implements Store.
func (s *SQLite) Recover(ctx context.Context) ([]Run, error) {
	var crashed []Run
	err := s.Update(ctx, func(tx Tx) error {
		w := tx.(*writer)
		open, err := list(&w.reader, "find runs without an end", scanRun,
			"SELECT "+runColumns+" FROM runs WHERE finished = 0 ORDER BY id")
		if err != nil {
			return err
		}
		for _, r := range open {
			if r, err = w.crash(r); err != nil {
				return err
			}
			crashed = append(crashed, r)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return crashed, nil
}

// crash ends a run, and its steps without an end, at the last sign of life.
func (w *writer) crash(r Run) (Run, error) {
	steps, err := w.Steps(r.ID)
	if err != nil {
		return r, err
	}
	end, during := r.Started, ""
	for _, s := range steps {
		for _, t := range []time.Time{s.Started, s.Finished} {
			if t.After(end) {
				end = t
			}
		}
		if s.Finished.IsZero() {
			during = s.Node
			if s.Action != "" {
				during += ": " + s.Action + " " + s.Address
			}
		}
	}
	if end.IsZero() {
		end = time.Unix(0, 1).UTC() // a run must not stay open for want of a clock
	}
	r.Finished, r.Outcome, r.Message = end, Crashed, "the agent stopped"
	if during != "" {
		r.Message = "the agent stopped during " + during
	}
	what := fmt.Sprintf("mark run %q as crashed", r.ID)
	if err := w.change(what, "UPDATE steps SET finished = ?, outcome = ?, message = ? WHERE run = ? AND finished = 0",
		nanos(end), Crashed, "the agent stopped", r.ID); err != nil {
		return r, err
	}
	return r, w.FinishRun(r.ID, r.Finished, r.Outcome, r.Message)
}
