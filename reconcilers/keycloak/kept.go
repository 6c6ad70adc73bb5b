package keycloak

import (
	"crypto/sha256"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/terraform-exec/tfexec"
)

// What is kept in memory between looks only saves time: each of it is compared with what it was made of before it is used, and all of
// it may be forgotten at any time.

// manyKept is how many components' worth is kept, by far more than a host has.
const manyKept = 128

// kept holds values by a key, and forgets all of them when there are too many. It is for several goroutines.
type kept[K comparable, V any] struct {
	mu  sync.Mutex
	all map[K]V
}

func (k *kept[K, V]) get(key K) (v V, there bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	v, there = k.all[key]
	return v, there
}

func (k *kept[K, V]) put(key K, v V) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.all == nil || len(k.all) >= manyKept {
		k.all = map[K]V{}
	}
	k.all[key] = v
}

func (k *kept[K, V]) forget(key K) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.all, key)
}

// memory is what a reconciler keeps.
type memory struct {
	tools  kept[toolKey, *tfexec.Terraform]
	states kept[string, knownState]
	doors  kept[string, door]
}

// toolKey is all that a value of the library depends on, as a digest: the environment may have secrets.
type toolKey [sha256.Size]byte

// keyOfTool tells by the program's stamp one that was replaced at its path.
func keyOfTool(dir, path, stamp string, env map[string]string) toolKey {
	sum := sha256.New()
	addFile(sum, dir+"\x00"+path, []byte(stamp))
	for _, name := range sortedKeys(env) {
		addFile(sum, name, []byte(env[name]))
	}
	return toolKey(sum.Sum(nil))
}

// knownState is a state as it was read of a file.
type knownState struct {
	file  fileStamp
	state *tfState
}

// fileStamp changes with each writing of a file, whatever the time of its content is set to.
type fileStamp struct {
	device, inode uint64
	size          int64
	changed       syscall.Timespec
}

func stampOf(name string) (s fileStamp, err error) {
	info, err := os.Stat(name)
	if err != nil {
		return s, err
	}
	raw, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return s, fmt.Errorf("%s: the system tells nothing of it", name)
	}
	return fileStamp{device: raw.Dev, inode: raw.Ino, size: raw.Size, changed: raw.Ctim}, nil
}

// atRest is how long a file was not written before what is read of it is kept: within one tick of the kernel's clock it may be
// written twice and look the same.
const atRest = time.Second

// readState reads a state file as the function of that name does, unless it is as it was at an earlier look. What it gives is not to
// be changed.
func (m *memory) readState(name string) (*tfState, error) {
	is, err := stampOf(name)
	if err != nil {
		return readState(name)
	}
	if known, there := m.states.get(name); there && known.file == is {
		return known.state, nil
	}
	quiet := time.Since(time.Unix(is.changed.Unix())) > atRest
	state, err := readState(name)
	if err == nil && quiet {
		m.states.put(name, knownState{is, state})
	} else {
		m.states.forget(name)
	}
	return state, err
}
