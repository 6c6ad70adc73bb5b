// Package sourcebench measures what following a branch costs: CPU of this process by getrusage, with the Git server in a
// process of its own. The benchmarks of package source and `make bench` both call it. It decides nothing about bars.
package sourcebench

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"golang.org/x/sys/unix"

	"dive-agent/gitremote"
	"dive-agent/source"
	"dive-agent/testbed/gitserver"
)

// Bed is a repository behind HTTPS and a source that follows it.
type Bed struct {
	Remote *gitremote.Remote
	Source *source.Source

	dir    string
	repo   *gitserver.Repository
	server *exec.Cmd
	rounds int
	status plumbing.Hash
}

// serverPackage is built by the go command, so the working directory has to be inside the module.
const serverPackage = "dive-agent/testbed/gitserver/cmd/gitserver"

// New starts a server in dir with a repository of so many files (a third of a kilobyte to one each, in 20 folders), and a source
// that accepted its first commit. Close ends it.
func New(ctx context.Context, dir string, files int) (*Bed, error) {
	b := &Bed{dir: dir}
	program := filepath.Join(dir, "gitserver")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", program, serverPackage).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building the Git server: %w: %s", err, out)
	}
	if err := b.start(program); err != nil {
		b.Close()
		return nil, err
	}
	content := gitserver.Files{}
	for i := range files {
		content[fmt.Sprintf("instances/group%d/i%03d.yaml", i%20, i)] = strings.Repeat(fmt.Sprintf("key%d: value\n", i), 50)
	}
	if _, err := b.repo.TryCommit("main", "Start", content); err != nil {
		b.Close()
		return nil, err
	}
	if err := b.follow(ctx); err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

// start runs the server and reads where it listens.
func (b *Bed) start(program string) error {
	b.server = exec.Command(program, "-dir", b.dir, "-listen-ssh", "off", "-create", "fleet")
	b.server.Stderr = os.Stderr
	out, err := b.server.StdoutPipe()
	if err != nil {
		return err
	}
	if err := b.server.Start(); err != nil {
		b.server = nil
		return err
	}
	var at struct{ HTTPS, CAFile string }
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("the Git server did not say where it listens: %w", err)
	}
	if err := json.Unmarshal(line, &at); err != nil {
		return err
	}
	b.repo = &gitserver.Repository{Path: filepath.Join(b.dir, "repos", "fleet.git"), Name: "fleet"}
	writer := gitserver.DefaultUsers()[1]
	b.Remote, err = gitremote.New(gitremote.Config{
		URL: strings.Replace(at.HTTPS, "NAME", "fleet", 1), CAFile: at.CAFile, Username: writer.Name, Password: writer.Password,
	})
	return err
}

func (b *Bed) follow(ctx context.Context) error {
	var err error
	b.Source, err = source.New(source.Options{Remote: b.Remote, Dir: filepath.Join(b.dir, "state")})
	if err != nil {
		return err
	}
	rev, _, err := b.Source.Poll(ctx)
	if err != nil {
		return err
	}
	return b.Source.Accept(rev)
}

// Close ends the server and its connections. The folder is the caller's.
func (b *Bed) Close() {
	if b.Remote != nil {
		b.Remote.Close()
	}
	if b.server != nil {
		_ = b.server.Process.Signal(unix.SIGTERM)
		_ = b.server.Wait()
	}
}

// Branches makes so many other branches, packed as a server's housekeeping leaves them.
func (b *Bed) Branches(n int) error {
	head := b.repo.Head("main")
	var in strings.Builder
	for i := range n {
		fmt.Fprintf(&in, "create refs/heads/other/%d %s\n", i, head)
	}
	cmd := exec.Command("git", "-C", b.repo.Path, "update-ref", "--stdin")
	cmd.Stdin = strings.NewReader(in.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("making branches: %w: %s", err, out)
	}
	_, err := b.repo.Git("pack-refs", "--all")
	return err
}

// Polls polls n times while nothing changes and gives the CPU of one poll.
func (b *Bed) Polls(ctx context.Context, n int) (time.Duration, error) {
	start := cpu()
	for range n {
		_, changed, err := b.Source.Poll(ctx)
		if err != nil {
			return 0, err
		}
		if changed {
			return 0, fmt.Errorf("the branch moved while its polls were measured")
		}
	}
	return (cpu() - start) / time.Duration(n), nil
}

// Rounds commits n times and follows each: poll, fetch, proof, snapshot, acceptance, removal of the last snapshot, push of
// a status commit. It gives the median CPU of a round, without the making of the commit.
func (b *Bed) Rounds(ctx context.Context, n int) (time.Duration, error) {
	var all []time.Duration
	for range n {
		i := b.rounds
		b.rounds++
		change := gitserver.Files{fmt.Sprintf("instances/group%d/i%03d.yaml", i%20, i%200): fmt.Sprintf("round: %d\n", i)}
		if _, err := b.repo.TryCommit("main", "Change", change); err != nil {
			return 0, err
		}
		start := cpu()
		if err := b.round(ctx, i); err != nil {
			return 0, fmt.Errorf("round %d: %w", i, err)
		}
		all = append(all, cpu()-start)
	}
	slices.Sort(all)
	return all[len(all)/2], nil
}

func (b *Bed) round(ctx context.Context, i int) error {
	rev, changed, err := b.Source.Poll(ctx)
	if err != nil {
		return err
	}
	if !changed {
		return fmt.Errorf("the commit was not seen")
	}
	if err := b.Source.Accept(rev); err != nil {
		return err
	}
	if err := b.Source.Keep(); err != nil {
		return err
	}
	b.status, err = b.Remote.Commit(ctx, gitremote.CommitRequest{
		Ref: "refs/heads/status/deu", Old: b.status, Parent: b.status, Message: "deu: Ready", When: time.Unix(1_700_000_000+int64(i), 0),
		Files: map[string][]byte{"README.md": []byte("# deu\n"), "status.yaml": fmt.Appendf(nil, "round: %d\n", i)},
	})
	return err
}

// cpu is what this process has used, in user and system mode.
func cpu() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u) // cannot fail for one's own process
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
