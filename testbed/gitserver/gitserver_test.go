package gitserver_test

import (
	"crypto/tls"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/testbed/gitserver"
)

// git runs the real client, which trusts the server's authority and host key alone.
func git(t *testing.T, server *gitserver.Server, dir string, args ...string) (string, error) {
	t.Helper()
	known := filepath.Join(t.TempDir(), "known_hosts")
	require.NoError(t, os.WriteFile(known, []byte(server.KnownHosts()), 0o600))
	// Chunked bodies are of HTTP/1.1; over HTTP/2 Debian 12's curl (7.88.1) stalls now and then in the middle of an upload.
	cmd := exec.Command("git", append([]string{"-c", "http.version=HTTP/1.1"}, args...)...)
	cmd.Dir = dir
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "GIT_TERMINAL_PROMPT=0",
		"GIT_SSL_CAINFO=" + server.CAFile(),
		"GIT_SSH_COMMAND=ssh -F none -o UserKnownHostsFile=" + known + " -o StrictHostKeyChecking=yes -o IdentitiesOnly=yes -i " + server.SSHKeyFile(),
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.org", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.org",
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func withUser(url string, user gitserver.User) string {
	return strings.Replace(url, "https://", "https://"+user.Name+":"+user.Password+"@", 1)
}

func client(server *gitserver.Server) *http.Client {
	return &http.Client{
		Timeout:   10 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: server.CA().Pool()}, ForceAttemptHTTP2: true},
	}
}

func TestCloneAndPushOverHTTPS(t *testing.T) {
	server := gitserver.Start(t, gitserver.Options{})
	repo := server.NewRepository(t, "fleet")
	first := repo.Commit(t, "main", "Start", gitserver.Files{"fleet.yaml": "a: 1\n", "link": gitserver.Symlink("fleet.yaml")})

	dir := t.TempDir()
	out, err := git(t, server, dir, "clone", withUser(server.URL("fleet"), server.Reader()), "work")
	require.NoError(t, err, out)
	work := filepath.Join(dir, "work")
	target, err := os.Readlink(filepath.Join(work, "link"))
	require.NoError(t, err)
	require.Equal(t, "fleet.yaml", target)

	out, err = git(t, server, work, "push", withUser(server.URL("fleet"), server.Reader()), "HEAD:status/deu")
	require.Error(t, err, "a reader must not push: %s", out)
	require.Empty(t, repo.Head("status/deu"))
	out, err = git(t, server, work, "push", withUser(server.URL("fleet"), server.Writer()), "HEAD:status/deu")
	require.NoError(t, err, out)
	require.Equal(t, first, repo.Head("status/deu"))
}

func TestPushOfThreeMegabytesComesChunked(t *testing.T) {
	server := gitserver.Start(t, gitserver.Options{})
	repo := server.NewRepository(t, "fleet")
	repo.Commit(t, "main", "Start", gitserver.Files{"a": "a"})
	dir := t.TempDir()
	out, err := git(t, server, dir, "clone", withUser(server.URL("fleet"), server.Writer()), "work")
	require.NoError(t, err, out)
	work := filepath.Join(dir, "work")
	random := make([]byte, 3<<20)
	source, err := os.Open("/dev/urandom")
	require.NoError(t, err)
	defer source.Close()
	_, err = io.ReadFull(source, random)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(work, "big"), random, 0o600))
	for _, args := range [][]string{{"add", "big"}, {"commit", "-m", "Big"}, {"push", "origin", "HEAD:main"}} {
		out, err := git(t, server, work, args...)
		require.NoError(t, err, out)
	}
	size, err := repo.Git("cat-file", "-s", "main:big")
	require.NoError(t, err)
	require.Equal(t, "3145728", size)
}

func TestLogin(t *testing.T) {
	server := gitserver.Start(t, gitserver.Options{})
	server.NewRepository(t, "fleet")
	url := server.URL("fleet") + "/info/refs?service=git-upload-pack"
	for name, test := range map[string]struct {
		header string
		status int
	}{
		"none":     {"", 401},
		"basic":    {"Basic " + base64.StdEncoding.EncodeToString([]byte("reader:reader-password")), 200},
		"wrong":    {"Basic " + base64.StdEncoding.EncodeToString([]byte("reader:other")), 401},
		"bearer":   {"Bearer writer-password", 200},
		"no token": {"Bearer nothing", 401},
	} {
		t.Run(name, func(t *testing.T) {
			request, err := http.NewRequest("GET", url, nil)
			require.NoError(t, err)
			request.Header.Set("Authorization", test.header)
			response, err := client(server).Do(request)
			require.NoError(t, err)
			defer response.Body.Close()
			require.Equal(t, test.status, response.StatusCode)
		})
	}
	require.Len(t, server.Requests(), 5)
}

func TestProtocolVersion2IsAnswered(t *testing.T) {
	server := gitserver.Start(t, gitserver.Options{Users: []gitserver.User{}})
	repo := server.NewRepository(t, "fleet")
	head := repo.Commit(t, "main", "Start", gitserver.Files{"a": "a"})
	request, err := http.NewRequest("POST", server.URL("fleet")+"/git-upload-pack",
		strings.NewReader("0014command=ls-refs\n0001001bref-prefix refs/heads/\n0000"))
	require.NoError(t, err)
	request.Header.Set("Git-Protocol", "version=2")
	request.Header.Set("Content-Type", "application/x-git-upload-pack-request")
	response, err := client(server).Do(request)
	require.NoError(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.Equal(t, "003d"+head+" refs/heads/main\n0000", string(body))
}

func TestCloneAndPushOverSSH(t *testing.T) {
	if _, err := exec.LookPath("ssh"); err != nil {
		t.Fatalf("the client ssh (package openssh-client) is needed: %v", err)
	}
	server := gitserver.Start(t, gitserver.Options{})
	repo := server.NewRepository(t, "fleet")
	first := repo.Commit(t, "main", "Start", gitserver.Files{"fleet.yaml": "a: 1\n"})
	dir := t.TempDir()
	out, err := git(t, server, dir, "clone", server.SSHURL("fleet"), "work")
	require.NoError(t, err, out)
	out, err = git(t, server, filepath.Join(dir, "work"), "push", "origin", "HEAD:status/deu")
	require.NoError(t, err, out)
	require.Equal(t, first, repo.Head("status/deu"))
	out, err = git(t, server, dir, "ls-remote", strings.Replace(server.SSHURL("fleet"), "fleet", "../../etc", 1))
	require.Error(t, err, out)
}

func TestStopAndUpKeepThePortsAndKeys(t *testing.T) {
	server := gitserver.Start(t, gitserver.Options{Users: []gitserver.User{}})
	server.NewRepository(t, "fleet").Commit(t, "main", "Start", gitserver.Files{"a": "a"})
	url, known := server.URL("fleet"), server.KnownHosts()
	host := strings.TrimPrefix(strings.TrimSuffix(url, "/fleet.git"), "https://")

	server.Stop()
	_, err := net.DialTimeout("tcp", host, time.Second)
	require.ErrorContains(t, err, "refused")

	require.NoError(t, server.Up())
	require.Equal(t, url, server.URL("fleet"))
	require.Equal(t, known, server.KnownHosts())
	out, err := git(t, server, t.TempDir(), "ls-remote", url)
	require.NoError(t, err, out)
}

func TestCommit(t *testing.T) {
	server := gitserver.Start(t, gitserver.Options{})
	repo := server.NewRepository(t, "fleet")
	first := repo.Commit(t, "main", "One", gitserver.Files{"a": "1", "b/c": "2"})
	second := repo.Commit(t, "main", "Two", gitserver.Files{"a": gitserver.Remove})
	names, err := repo.Git("ls-tree", "-r", "--name-only", "main")
	require.NoError(t, err)
	require.Equal(t, "b/c", names)
	parent, err := repo.Git("rev-parse", second+"^")
	require.NoError(t, err)
	require.Equal(t, first, parent)
}
