package disk

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// Small runs on, which gets the folder of a new, empty filesystem of the size (as tmpfs takes it: 64k, 1m). The calling
// test is run again for that, alone, in a process with mounts of its own, so that nothing is left of it; root is not
// needed. To be called first in a test that is no subtest.
func Small(t *testing.T, size string, on func(dir string)) {
	t.Helper()
	const variable = "SMALL_DISK"
	if dir := os.Getenv(variable); dir != "" {
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
			t.Fatalf("mount a disk of %s: %v", size, err)
		}
		on(dir)
		return
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), variable+"="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatalf("on a disk of %s: %v\n%s", size, err, out)
	}
}
