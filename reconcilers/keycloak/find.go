package keycloak

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"dive-agent/reconcilers"
)

// findState reads the state, or puts it back from a copy when it was lost.
func (l *look) findState(ctx context.Context) error {
	if err := l.work.tighten(); err != nil {
		return err
	}
	if err := l.reach(ctx); err != nil {
		return err
	}
	state, err := l.memory.readState(l.work.state)
	reason := lost(state, err, l.record)
	if reason == nil {
		reason = l.work.newer(state)
	}
	if reason == nil && state == nil && l.cut != nil && len(l.cut.begun) > 0 {
		// A first apply was cut off before it wrote: nothing is lost that the interruption does not tell.
		return nil
	}
	if reason == nil {
		l.state = state
		if state != nil && l.record.Serial == 0 && l.work.remote != nil && l.cut == nil {
			if maker := state.tool(); maker != "" && maker != l.spec.tool() {
				return l.toolChanged(maker)
			}
			l.notes = append(l.notes, fmt.Sprintf("the Terraform state that is at %s is taken up: %d resources", l.in.backend.name(), state.managed()))
		}
		if state != nil && l.record.Serial > 0 && state.Serial > l.record.Serial && l.record.Begun == "" {
			l.notes = append(l.notes, fmt.Sprintf("the Terraform state was written by something else: its serial went from %d to %d. It is compared with the realm, and taken as it is", l.record.Serial, state.Serial))
		}
		return nil
	}
	if err := l.underWay(); err != nil { // what looks lost may be what is being written
		return err
	}
	if l.in.backend != nil && state != nil && l.record.Lineage != "" && state.Lineage != l.record.Lineage {
		// Somebody else's, who has no copy of it here: nothing is put over it. What holds the same is ours, put back halfway.
		if _, _, ours, problem := newest(l.work, l.record); problem != nil || !state.gives(ours) {
			return l.here().taken(state)
		}
	}
	problem, from := errors.New("the copies of it are another tool's"), ""
	if l.record.tool() == l.spec.tool() {
		if from, problem, err = l.putBack(ctx); err != nil {
			return err
		}
	}
	switch {
	case problem == nil:
	case l.record.Serial == 0 && l.cut != nil:
		// Nothing was ever applied to an end, and what was begun is known.
		return setAside(l.work.state, l.deps.Clock.Now())
	case l.spec.Adopt || l.asked:
		l.lost = reason
		l.notes = append(l.notes, fmt.Sprintf("the Terraform state was lost (%v, and %v): what is in the realm is taken over", reason, problem))
		if l.work.remote != nil { // an older one of this realm, or none, is gone on with
			l.state = state
			return nil
		}
		return setAside(l.work.state, l.deps.Clock.Now())
	default:
		return &reconcilers.BlockedError{
			Reason: "StateLost", Message: "the Terraform state of this realm is lost: " + reason.Error() + ", and " + problem.Error(),
			Do: fmt.Sprintf("Put a copy of the state to %s (journal.jsonl in %s has the ids of all that was made), or take over the realm as it is. %s. Nothing was changed", l.statePlace(), l.work.dir, l.adoptLine()),
		}
	}
	l.notes = append(l.notes, fmt.Sprintf("the Terraform state was lost (%v) and put back from copy %s", reason, from))
	l.target.Log.Warn("terraform state put back", "reason", reason.Error(), "copy", from)
	l.state, err = readState(l.work.state)
	l.record.Verified = false
	return errors.Join(err, l.work.keep(l.record))
}

// putBack puts the newest copy that fits in the place of a state that was lost, and gives the copy's name, or the problem that
// there is none for sure. An error says that the place could not be written to: then there may well be one.
func (l *look) putBack(ctx context.Context) (from string, problem, err error) {
	if l.work.remote == nil {
		from, problem = restore(l.work, l.record, l.deps.Clock.Now())
		return from, problem, nil
	}
	name, data, state, problem := newest(l.work, l.record)
	if problem != nil {
		return "", problem, nil
	}
	if err := l.here().write(ctx, data, state); err != nil {
		return "", nil, err
	}
	return copyName(name), nil, l.fetch(ctx, l.here())
}

// statePlace is where the state is, for who brings one.
func (l *look) statePlace() string {
	if l.work.remote != nil {
		return l.work.remote.place
	}
	return l.work.state
}

// reach brings a state that is not on this host into the file that is read of it, when there is a reason to read it; and to
// another place first, when the manifest says so.
func (l *look) reach(ctx context.Context) error {
	if l.in.backend == nil && l.record.Backend == "" {
		return nil
	}
	if l.work.beside {
		return l.peek(ctx)
	}
	moves := l.record.Backend != l.in.backend.name()
	if !moves && (l.in.backend == nil || l.read || !l.gone && !l.mustRead()) {
		return nil
	}
	if err := l.underWay(); err != nil { // it brings the state there by itself
		return err
	}
	if moves {
		if err := l.move(ctx); err != nil {
			return err
		}
	}
	if l.in.backend == nil {
		return nil
	}
	l.read = true
	if err := l.pushErrored(ctx, l.here()); err != nil {
		return err
	}
	return l.fetch(ctx, l.here())
}

// stale says whether the state is one of an earlier look.
func (l *look) stale() bool { return l.work.remote != nil && !l.read }

// mustRead tells whether the remote state is read, which takes a process: whenever Terraform is asked, as reason says. Between
// these the one that was read last is looked at.
func (l *look) mustRead() bool {
	if info, err := os.Stat(l.work.errored()); err == nil && info.Size() > 0 {
		return true
	}
	state, err := l.memory.readState(l.work.state)
	if err != nil {
		return true
	}
	l.state = state
	return l.reason(nil)
}

// peek gives a copy of the component's folder a copy of the state: at its place nothing is changed, made or locked.
func (l *look) peek(ctx context.Context) error {
	if l.read {
		return nil
	}
	l.read = true
	if l.record.Backend == l.in.backend.name() {
		return l.fetch(ctx, l.here())
	}
	has, err := l.hasFile()
	if err != nil {
		return err
	}
	if has && l.record.Backend == "" {
		l.notes = append(l.notes, "the Terraform state is going to be moved to "+l.in.backend.name())
		return nil
	}
	data, state, err := l.here().read(ctx)
	if err != nil && !errors.Is(err, errNoState) {
		return err
	}
	if l.record.Serial > 0 && lost(state, err, l.record) != nil {
		from, err := l.former()
		if err != nil {
			return err
		}
		if data, state, err = l.atFormer(ctx, from); err != nil {
			return err
		}
		l.notes = append(l.notes, fmt.Sprintf("the Terraform state is going to be moved from %s to %s", placeWords(l.record.Backend), placeWords(l.in.backend.name())))
	}
	if state == nil {
		return nil
	}
	return write(l.work.state, data)
}

// fetch brings the state from its place into the file that is read of it.
func (l *look) fetch(ctx context.Context, from *site) error {
	data, _, err := from.read(ctx)
	if errors.Is(err, errNoState) {
		return removeIfThere(l.work.state)
	}
	if err != nil {
		return err
	}
	return write(l.work.state, data)
}

// pushErrored brings a state that Terraform could not write to its place, where it is newer than what is there.
func (l *look) pushErrored(ctx context.Context, to *site) error {
	file := l.work.errored()
	if info, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() == 0 {
		return nil // or the room for one, which is given back by who took it
	}
	state, err := readUnwritten(file)
	if err != nil {
		l.notes = append(l.notes, fmt.Sprintf("%s cannot be used (%v) and is set aside: the state is taken as it is at %s", file, err, to.place()))
		return l.work.setErroredAside(l.deps.Clock.Now())
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if l.record.Lineage == "" || state.Lineage == "" || state.Lineage == l.record.Lineage {
		if err := to.write(ctx, data, state); err != nil {
			return err
		}
		l.notes = append(l.notes, fmt.Sprintf("a Terraform state that could not be written was brought to %s (serial %d)", to.place(), state.Serial))
	}
	if state.Lineage != "" {
		if _, err := keep(data, state, l.work.copies); err != nil {
			return err
		}
	}
	return os.Remove(file)
}
