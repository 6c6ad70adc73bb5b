package keycloak

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"dive-agent/reconcilers"
)

// A manifest that names another place moves the state there: read at the former one, written to the new one under the same
// lineage, read again, and only then is the new place in the record. Until that the former one is the state; after it, what is
// left there is never used again and never removed. Cut off at any point, the next look goes on: what is already at the new
// place is the same state. A move never begins with an empty one.

// move brings the state to where the manifest says.
func (l *look) move(ctx context.Context) error {
	to, r := l.here(), l.record
	if r.Backend == "" {
		if there, err := l.hasFile(); err != nil {
			return err
		} else if !there && r.Serial == 0 {
			return l.moved(nil) // there is nothing to move: a first look
		}
	}
	_, there, err := to.read(ctx)
	if err != nil && !errors.Is(err, errNoState) {
		return err
	}
	if there != nil && r.Serial > 0 && there.Lineage == r.Lineage && there.Serial >= r.Serial {
		return l.moved(there)
	}
	from, err := l.former()
	if err != nil {
		return err
	}
	data, state, err := l.atFormer(ctx, from)
	if err != nil {
		return err
	}
	if state == nil { // a first apply was cut off before it wrote
		return l.moved(nil)
	}
	if to.r == nil && there != nil && there.Lineage != state.Lineage && !there.gives(state) {
		return to.taken(there)
	}
	if _, err := keep(data, state, l.work.copies); err != nil {
		return err
	}
	if err := to.write(ctx, data, state); err != nil {
		return err
	}
	if _, again, err := l.atFormer(ctx, from); err != nil {
		return err
	} else if again.Serial != state.Serial {
		return &reconcilers.WaitError{For: "the move of the Terraform state, which somebody has just changed at " + placeWords(r.Backend), Again: time.Second}
	}
	return l.moved(state)
}

func (l *look) hasFile() (bool, error) {
	_, err := os.Stat(filepath.Join(l.work.dir, stateName))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// moved records the new place; state is nil when nothing was moved.
func (l *look) moved(state *tfState) error {
	before := l.record.Backend
	l.record.Backend = l.in.backend.name()
	if state != nil {
		l.record.Verified = false // the next plan proves it
		l.notes = append(l.notes, fmt.Sprintf("the Terraform state was moved from %s to %s (serial %d). What is left at the former place is not used any more", placeWords(before), placeWords(l.record.Backend), state.Serial))
		l.target.Log.Info("terraform state moved", "from", placeWords(before), "to", placeWords(l.record.Backend), "serial", state.Serial)
	}
	if err := l.work.keep(l.record); err != nil {
		return err
	}
	if l.in.backend == nil {
		return removeIfThere(filepath.Join(l.work.dir, remoteName))
	}
	// The file is no state any more: whoever finds it is to see that.
	for _, name := range []string{stateName, stateName + ".backup"} {
		file := filepath.Join(l.work.dir, name)
		if err := os.Rename(file, file+".moved-"+l.deps.Clock.Now().UTC().Format("20060102T150405.000")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// former is where the state is until it is moved. A remote place has to be in the manifest once more: the agent keeps no
// credentials.
func (l *look) former() (*site, error) {
	s := l.here()
	s.dir = filepath.Join(l.work.dir, "former")
	s.r = nil
	if l.record.Backend == "" {
		return s, nil
	}
	spec := l.spec.FormerBackend
	if spec == nil {
		return nil, &reconcilers.BlockedError{
			Reason: "BackendMoved", Message: fmt.Sprintf("the Terraform state is at %s, and the manifest says %s, where it is not", l.record.Backend, placeWords(l.in.backend.name())),
			Do: fmt.Sprintf("To have it moved, merge the former settings as formerBackend, beside backend, into %s. When that place is gone for good, the last copy on this host (serial %d) is taken by %s. Nothing was changed",
				l.target.Instance.Position.File, l.record.Serial, "merging "+l.mergeText("formerBackend: {kind: local}")),
		}
	}
	if spec.Kind == backendLocal {
		return s, nil
	}
	values, unknown, err := spec.values(l.target.Scope)
	if err == nil && len(unknown) > 0 {
		err = &reconcilers.WaitError{For: strings.Join(unknown, ", ")}
	}
	if err == nil {
		s.r, err = newRemote(spec.Kind, values)
	}
	if err != nil {
		return nil, err
	}
	if s.r.name() != l.record.Backend {
		return nil, &reconcilers.BlockedError{
			Reason: "BackendMoved", Message: fmt.Sprintf("the Terraform state is at %s, and formerBackend of the manifest says %s", l.record.Backend, placeWords(s.r.name())),
			Do: "Correct formerBackend and merge. Nothing was changed",
		}
	}
	return s, nil
}

// atFormer reads the state that is to be moved, nil when there never was one.
func (l *look) atFormer(ctx context.Context, from *site) ([]byte, *tfState, error) {
	var (
		data  []byte
		state *tfState
		err   error
	)
	switch {
	case from.r != nil:
		data, state, err = from.read(ctx)
	default:
		// Of the file on the host, or of a place that is gone: what fits the record, from the copies too.
		w := *l.work
		w.state = from.file
		if data, state, err = from.read(ctx); lost(state, err, l.record) != nil {
			_, data, state, err = newest(&w, l.record)
		}
	}
	if reason := lost(state, err, l.record); reason != nil {
		var wait *reconcilers.WaitError
		var blocked *reconcilers.BlockedError
		if errors.As(err, &wait) || errors.As(err, &blocked) || ctx.Err() != nil {
			return nil, nil, err
		}
		return nil, nil, &reconcilers.BlockedError{
			Reason: "StateLost", Message: fmt.Sprintf("the Terraform state cannot be moved from %s: %v", placeWords(l.record.Backend), reason),
			Do: fmt.Sprintf("Put the former backend back in %s and merge; the status then tells how to come to a state. Nothing was changed", l.target.Instance.Position.File),
		}
	}
	return data, state, nil
}
