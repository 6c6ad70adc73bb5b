package gitserver

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Repository is a bare repository of a server.
type Repository struct {
	// Path of the bare folder.
	Path string
	// Name on the server.
	Name string
}

// Files by path for Commit: the content, Remove, or a Symlink to a target.
type Files map[string]string

// Remove as the content of a file takes it out of the tree.
const Remove = "\x00remove"

const symlinkMark = "\x00symlink:"

// Symlink is the content that makes a symbolic link.
func Symlink(target string) string { return symlinkMark + target }

func repositoryFolder(name string) string { return strings.TrimSuffix(name, ".git") + ".git" }

// CreateRepository makes an empty bare repository with branch main as its head, or opens the one that is there.
func (s *Server) CreateRepository(name string) (*Repository, error) {
	repo := &Repository{Path: filepath.Join(s.root(), repositoryFolder(name)), Name: name}
	if _, err := os.Stat(filepath.Join(repo.Path, "HEAD")); err == nil {
		return repo, nil
	}
	for _, args := range [][]string{
		{"init", "--quiet", "--bare", "--initial-branch=main", repo.Path},
		{"-C", repo.Path, "config", "http.receivepack", "true"},
		{"-C", repo.Path, "config", "uploadpack.allowFilter", "true"},
	} {
		if _, err := runGit(nil, args...); err != nil {
			return nil, err
		}
	}
	return repo, nil
}

// NewRepository is CreateRepository for a test.
func (s *Server) NewRepository(tb TB, name string) *Repository {
	tb.Helper()
	repo, err := s.CreateRepository(name)
	if err != nil {
		tb.Fatalf("%v", err)
	}
	return repo
}

// Commit puts files on top of a branch, making the branch when it is not there, and returns the commit's id.
// Paths that are not named stay as they are.
func (r *Repository) Commit(tb TB, branch, message string, files Files) string {
	tb.Helper()
	id, err := r.TryCommit(branch, message, files)
	if err != nil {
		tb.Fatalf("commit to %s of %s: %v", branch, r.Name, err)
	}
	return id
}

// TryCommit is Commit with an error, for use outside tests.
func (r *Repository) TryCommit(branch, message string, files Files) (string, error) {
	ref := "refs/heads/" + branch
	var stream bytes.Buffer
	fmt.Fprintf(&stream, "commit %s\ncommitter Test Bed <testbed@example.org> %d +0000\n", ref, time.Now().Unix())
	writeData(&stream, message)
	if _, err := r.Git("rev-parse", "--verify", "--quiet", ref); err == nil {
		fmt.Fprintf(&stream, "from %s^0\n", ref)
	}
	for _, path := range slices.Sorted(maps.Keys(files)) {
		content := files[path]
		if content == Remove {
			fmt.Fprintf(&stream, "D %s\n", path)
			continue
		}
		mode := "100644"
		if target, ok := strings.CutPrefix(content, symlinkMark); ok {
			mode, content = "120000", target
		}
		fmt.Fprintf(&stream, "M %s inline %s\n", mode, path)
		writeData(&stream, content)
	}
	if _, err := runGit(stream.Bytes(), "-C", r.Path, "fast-import", "--quiet", "--date-format=raw"); err != nil {
		return "", err
	}
	return r.Git("rev-parse", ref)
}

func writeData(stream *bytes.Buffer, text string) {
	fmt.Fprintf(stream, "data %d\n%s\n", len(text), text)
}

// Head is the commit a branch points at, or "" when there is no such branch.
func (r *Repository) Head(branch string) string {
	id, err := r.Git("rev-parse", "--verify", "--quiet", "refs/heads/"+branch)
	if err != nil {
		return ""
	}
	return id
}

// Git runs a git command on the bare folder and returns its output without the last newline.
func (r *Repository) Git(args ...string) (string, error) {
	return runGit(nil, append([]string{"-C", r.Path}, args...)...)
}

func runGit(stdin []byte, args ...string) (string, error) {
	cmd := exec.Command("git", args...)
	cmd.Env = gitEnvironment("")
	cmd.Stdin = bytes.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("git %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimRight(stdout.String(), "\n"), nil
}
