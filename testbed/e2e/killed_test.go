package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"dive-agent/report"
	"dive-agent/testbed"
	"dive-agent/testbed/disk"
)

// slowApplies is a realm to which roles are added slowly, so that something can be done to each apply.
type slowApplies struct {
	*withRealm
	door   *before
	folder string // of the component
	names  []string
	usual  map[string]string
}

// adds merges more roles, and comes back when a few of them are begun.
func (s *slowApplies) adds(more int) (merged string) {
	s.t.Helper()
	for range more {
		s.names = append(s.names, fmt.Sprintf("role-%02d", len(s.names)))
	}
	s.door.lets(time.Second)
	merged = s.Merge("More roles", map[string]string{"instances/one.yaml": s.manifest(", roles: ["+strings.Join(s.names, ", ")+"]", "")})
	testbed.Eventually(s.t, soon, "the apply is at work", func() error {
		if begun := s.door.begun(); begun < 4 {
			return fmt.Errorf("%d roles were begun", begun)
		}
		return nil
	})
	return merged
}

// through waits until what was merged is applied: all roles are there, made once, as before where they were there before.
func (s *slowApplies) through(merged string, before map[string]string) {
	t := s.t
	t.Helper()
	s.door.lets(0)
	began := time.Now()
	s.host.AwaitPhase(4*soon, "one", report.Ready, merged)
	t.Logf("through after %.1f s", time.Since(began).Seconds())
	all := s.ownRoles(s.usual)
	require.Len(t, all, len(s.names))
	require.Subset(t, all, before, "what was made stays what it is")
	require.Equal(t, all, rolesOfState(t, filepath.Join(s.folder, "terraform.tfstate")))
	s.door.mu.Lock()
	defer s.door.mu.Unlock()
	for name, times := range s.door.made {
		require.Equal(t, 1, times, name)
	}
	testbed.Eventually(t, soon, "the plan that proves it has ended, and nothing is left over", func() error {
		if left := processesIn(t, filepath.Join(s.folder, "module")); len(left) > 0 {
			return fmt.Errorf("%v", left)
		}
		return nil
	})
}

// kill ends what works in the module's folder with SIGKILL: the provider, or Terraform.
func (s *slowApplies) kill(provider bool) {
	s.t.Helper()
	killed := 0
	for _, one := range processesIn(s.t, filepath.Join(s.folder, "module")) {
		pid, err := strconv.Atoi(strings.Fields(one)[0])
		require.NoError(s.t, err)
		program, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		if errors.Is(err, os.ErrNotExist) {
			continue // it ended meanwhile
		}
		require.NoError(s.t, err)
		name := filepath.Base(program)
		if name == "terraform" && !provider || strings.HasPrefix(name, "terraform-provider-") && provider {
			require.NoError(s.t, syscall.Kill(pid, syscall.SIGKILL))
			killed++
		}
	}
	require.NotZero(s.t, killed)
}

// TestAppliesOfARealmThatAreKilledOrFindNoRoom are brought to their end by the agent: its provider is killed, Terraform is, the
// agent itself; and the disk of Terraform's state gets full, which the status says.
func TestAppliesOfARealmThatAreKilledOrFindNoRoom(t *testing.T) {
	t.Parallel()
	s := &slowApplies{withRealm: newRealm(t), names: []string{"reader", "writer"}}
	door, at := s.newBefore(t)
	s.door = door
	s.begin(s.files(fmt.Sprintf("      url: %s\n      parallelism: 2\n", at)))
	s.folder, s.usual = filepath.Join(s.host.Dir, "state", "instances", "one", "components", "identity"), s.roles()
	for _, victim := range []string{"provider", "terraform", "agent"} {
		merged := s.adds(8)
		before := s.ownRoles(s.usual)
		t.Log(victim)
		if victim == "agent" {
			s.host.Kill()
			s.host.Start()
		} else {
			s.kill(victim == "provider")
		}
		s.through(merged, before)
	}

	s.host.Stop()
	s.onSmallDisk()
	s.host.Start()
	merged := s.adds(12)
	filler := filepath.Join(s.folder, "filler")
	disk.Fill(t, filler)
	s.door.lets(0)
	status := s.host.Await(4*soon, "one", "says that there is no room", func(st *report.Status) bool {
		return strings.Contains(why(st), "room on the disk of "+s.folder+": ")
	})
	t.Log(why(status))
	require.Contains(t, why(status), "Make room on that disk")
	live := s.ownRoles(s.usual)
	require.Equal(t, live, rolesOfState(t, filepath.Join(s.folder, "module", "errored.tfstate")), "the state has what the realm has")
	require.NoError(t, os.Remove(filler))
	s.through(merged, live)
	require.NoFileExists(t, filepath.Join(s.folder, "module", "errored.tfstate"))
	s.host.Do("plan") // exit code 0: in sync
}

// onSmallDisk moves the component's folder to a disk of its own.
func (s *slowApplies) onSmallDisk() {
	t := s.t
	aside := filepath.Join(t.TempDir(), "aside")
	require.NoError(t, os.Rename(s.folder, aside))
	require.NoError(t, os.Mkdir(s.folder, 0o700))
	require.NoError(t, unix.Mount("tmpfs", s.folder, "tmpfs", 0, "size=32m,mode=0700"))
	t.Cleanup(func() { require.NoError(t, unix.Unmount(s.folder, unix.MNT_DETACH)) })
	out, err := exec.Command("cp", "-a", aside+"/.", s.folder).CombinedOutput()
	require.NoError(t, err, "%s", out)
}
