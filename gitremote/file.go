package gitremote

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
)

// fileWire reaches a repository on this machine. Refs are read from its files; objects come from
// the git program over pipes, with the limits and the proofs that hold for every other remote.
type fileWire struct {
	streamWire
	dir string
}

func newFileWire(r *Remote, u *url.URL) *fileWire {
	f := &fileWire{dir: u.Path}
	f.streamWire = streamWire{r: r, open: f.open}
	return f
}

// localRef reads a branch from the repository's files. It says false for everything else than a plain hash that
// it found: a missing ref, a tag (which may have to be peeled), a repository of another format.
func (f *fileWire) localRef(name string) (string, bool) {
	if !strings.HasPrefix(name, "refs/heads/") {
		return "", false
	}
	for _, dir := range []string{filepath.Join(f.dir, ".git"), f.dir} {
		if st, err := os.Stat(filepath.Join(dir, "objects")); err != nil || !st.IsDir() {
			continue
		}
		root, err := os.OpenRoot(dir)
		if err != nil {
			return "", false
		}
		defer root.Close()
		if h, err := looseRef(root, name); err == nil {
			return h, isHash(h)
		} else if !errors.Is(err, os.ErrNotExist) {
			return "", false
		}
		h := packedRef(root, name)
		return h, isHash(h)
	}
	return "", false
}

func isHash(h string) bool { return len(h) == 40 && plumbing.IsHash(h) }

// looseRef reads a ref that has a file of its own, gitrepository-layout(5).
func looseRef(root *os.Root, name string) (string, error) {
	f, err := root.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, 256))
	return strings.TrimSpace(string(raw)), err
}

// packedRef looks into the file that git pack-refs writes: a hash and a name on each line.
func packedRef(root *os.Root, name string) string {
	f, err := root.Open("packed-refs")
	if err != nil {
		return ""
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if h, n, ok := strings.Cut(lines.Text(), " "); ok && n == name {
			return h
		}
	}
	return ""
}

// open runs git's service on the repository in a process group of its own, which ends with the operation.
func (f *fileWire) open(ctx context.Context, svc service, v2 bool) (*stream, error) {
	if st, err := os.Stat(f.dir); err != nil || !st.IsDir() {
		return nil, ofKind(NotFound, "there is no repository in %s", f.dir)
	}
	cmd := exec.CommandContext(ctx, "git", strings.TrimPrefix(string(svc), "git-"), f.dir)
	cmd.Dir = "/"
	cmd.Env = gitEnvironment(v2)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	st := &stream{said: &tail{}}
	cmd.Stderr = st.said
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	// A pipe of our own: Wait would close cmd's while it is still read.
	out, outW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Stdout = outW
	if err := cmd.Start(); err != nil {
		out.Close()
		outW.Close()
		if errors.Is(err, exec.ErrNotFound) {
			return nil, ofKind(Misconfigured, "a remote that is a file path needs the git program: install git")
		}
		return nil, err
	}
	outW.Close()
	stopReading := context.AfterFunc(ctx, func() { out.Close() })
	done := make(chan struct{})
	var waitErr error
	go func() {
		defer close(done)
		waitErr = cmd.Wait()
	}()
	st.in, st.out = in, out
	st.wait = func() error {
		<-done
		return waitErr
	}
	st.stop = func() {
		stopReading()
		in.Close()
		out.Close()
		select {
		case <-done:
		case <-time.After(stopGrace):
			_ = cmd.Cancel()
			<-done
		}
	}
	return st, nil
}

// stopGrace is how long a service may take to end after its input was closed.
const stopGrace = 500 * time.Millisecond

// gitEnvironment is what the git program gets to see: where programs and the user's configuration are, and nothing
// of what could point it to another repository.
func gitEnvironment(v2 bool) []string {
	env := []string{"LC_ALL=C", "GIT_TERMINAL_PROMPT=0"}
	for _, name := range []string{"PATH", "HOME", "TMPDIR"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	if v2 {
		env = append(env, "GIT_PROTOCOL=version=2")
	}
	return env
}
