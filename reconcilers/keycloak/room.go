package keycloak

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"dive-agent/reconcilers"
)

// Terraform writes its state in place after each resource. On a disk that has become full it cuts the state off, leaves out
// what depends on a resource of which it could not write, and at its end writes the whole state to errored.tfstate in its
// working directory, which is on the same disk. So an apply begins with that file there, empty, holding the blocks that it
// may need: whatever takes the rest of the disk, the state has a place, also when the agent is no longer there. The next
// look puts it back.

// How large a state may get. Resources of Keycloak take 1 to 8 KB each.
const (
	stateLeast = 1 << 20
	stateEach  = 16 << 10
)

// roomWay is the way out of a full disk.
const roomWay = "Make room on that disk. What was applied so far is not lost, and it goes on by itself"

// outputRoom is reserved for what an apply tells, the reason why it failed at its end: some 2 KB for each resource.
const outputRoom = 1 << 20

// reserve takes blocks of the disk for a file that is to be written, whose content stays as it is. Filesystems that cannot
// do that reserve nothing. The error is ENOSPC when there is too little.
func reserve(file *os.File, size int64) error {
	const keepSize = 1 // FALLOC_FL_KEEP_SIZE, see fallocate(2)
	err := syscall.Fallocate(int(file.Fd()), keepSize, 0, size)
	if errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.ENOSYS) {
		return nil
	}
	return err
}

// errored is where Terraform writes a state for which there was no room in its place.
func (w *workspace) errored() string { return filepath.Join(w.module, "errored.tfstate") }

// stateRoom is how large the state may be once so many resources are changed.
func (w *workspace) stateRoom(changes int) int64 {
	size := stateLeast + stateEach*int64(changes)
	if info, err := os.Stat(w.state); err == nil {
		size += info.Size()
	}
	return size
}

// reserveState makes sure before an apply that its state can be written, and once more should the disk fill up meanwhile. A
// state that stands there, and that nobody wanted back, is kept aside. The error is a WaitError when there is no room.
func (w *workspace) reserveState(changes int, now time.Time) error {
	if err := w.releaseState(); err != nil {
		return err
	}
	if err := w.setErroredAside(now); err != nil {
		return err
	}
	if err := w.room(changes); err != nil {
		return err
	}
	file, err := os.OpenFile(w.errored(), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(reserve(file, w.stateRoom(changes)), file.Close()); err != nil {
		return errors.Join(fmt.Errorf("reserve room for the Terraform state: %w", err), w.releaseState())
	}
	return nil
}

// setErroredAside keeps a state that stands there out of Terraform's way, and of the module's folder, which is swept.
func (w *workspace) setErroredAside(now time.Time) error {
	aside := w.state + ".errored"
	if err := os.Rename(w.errored(), aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return setAside(aside, now)
}

// releaseState gives back what was reserved, when it was not needed.
func (w *workspace) releaseState() error {
	info, err := os.Stat(w.errored())
	if err == nil && info.Size() == 0 {
		return removeIfThere(w.errored())
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// room says when the disk has too little of it for a plan, an apply of so many changes, a copy of the state and its reserve.
func (w *workspace) room(changes int) error {
	var disk syscall.Statfs_t
	if err := syscall.Statfs(w.dir, &disk); err != nil {
		return fmt.Errorf("see how full the disk of %s is: %w", w.dir, err)
	}
	free, needed := int64(disk.Bavail)*disk.Bsize, 3*w.stateRoom(changes)+outputRoom
	if free >= needed {
		return nil
	}
	return &reconcilers.WaitError{
		For: fmt.Sprintf("room on the disk of %s: %s are free, and a plan with its apply and the states that are kept takes up to %s", w.dir, megabytes(free), megabytes(needed)),
		Do:  roomWay, Again: 5 * time.Second,
	}
}

func megabytes(bytes int64) string { return fmt.Sprintf("%.1f MB", float64(bytes)/1e6) }

// newer says that the state which Terraform could not write in its place is newer than the one that is there; nil is none.
func (w *workspace) newer(there *tfState) error {
	whole, err := readState(w.errored())
	switch {
	case err != nil || whole.managed() == 0: // what cannot be read is no state to go by
		return nil
	case there == nil:
		return fmt.Errorf("it could not be written; errored.tfstate has serial %d", whole.Serial)
	case whole.Lineage == there.Lineage && whole.Serial > there.Serial:
		return fmt.Errorf("it could not be written from serial %d on; errored.tfstate has serial %d", there.Serial, whole.Serial)
	}
	return nil
}
