package gitremote_test

import (
	"bufio"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"dive-agent/gitremote"
	"dive-agent/testbed"
	"dive-agent/testbed/gitserver"
	"dive-agent/testbed/heap"
	"dive-agent/testbed/pki"
)

func write(t *testing.T, name string, content []byte) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(p, content, 0o600))
	return p
}

func TestClientCertificate(t *testing.T) {
	server := gitserver.Start(t, gitserver.Options{Users: []gitserver.User{}})
	tip := server.NewRepository(t, "fleet").Commit(t, "main", "First", gitserver.Files{"a": "1"})
	target, err := url.Parse(server.URL("fleet"))
	require.NoError(t, err)
	ca, err := pki.New("clients")
	require.NoError(t, err)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: server.CA().Pool()}}
	t.Cleanup(transport.CloseIdleConnections)
	front := httptest.NewUnstartedServer(&httputil.ReverseProxy{Transport: testbed.Whole(transport), Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: "https", Host: target.Host})
	}})
	front.TLS, err = ca.Server("127.0.0.1")
	require.NoError(t, err)
	front.TLS.ClientCAs, front.TLS.ClientAuth = ca.Pool(), tls.RequireAndVerifyClientCert
	front.StartTLS()
	t.Cleanup(front.Close)

	cert, key, err := ca.Issue("deu-01")
	require.NoError(t, err)
	cfg := gitremote.Config{URL: front.URL + target.Path, CAFile: write(t, "ca.pem", ca.PEM())}
	_, err = open(t, cfg).Ref(t.Context(), mainRef)
	require.Error(t, err, "without a certificate")
	cfg.ClientCertFile, cfg.ClientKeyFile = write(t, "cert.pem", cert), write(t, "key.pem", key)
	h, err := open(t, cfg).Ref(t.Context(), mainRef)
	require.NoError(t, err)
	require.Equal(t, tip, h.String())
}

// connectProxy is an HTTP proxy for HTTPS that counts what it lets through.
func connectProxy(t *testing.T) (string, *atomic.Int64) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { listener.Close() })
	used := &atomic.Int64{}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go tunnel(conn, used)
		}
	}()
	return "http://proxy-user:proxy-secret@" + listener.Addr().String(), used
}

func tunnel(conn net.Conn, used *atomic.Int64) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	req, err := http.ReadRequest(in)
	if err != nil || req.Method != http.MethodConnect {
		return
	}
	if req.Header.Get("Proxy-Authorization") == "" {
		_, _ = io.WriteString(conn, "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
		return
	}
	to, err := net.Dial("tcp", req.Host)
	if err != nil {
		return
	}
	defer to.Close()
	used.Add(1)
	_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(to, in)
		to.Close()
	}()
	_, _ = io.Copy(conn, to)
	conn.Close()
	<-done
}

func TestProxyComesFromTheConfigurationAlone(t *testing.T) {
	server := gitserver.Start(t, gitserver.Options{})
	repo := server.NewRepository(t, "fleet")
	repo.Commit(t, "main", "First", gitserver.Files{"a": "1"})
	proxy, used := connectProxy(t)
	t.Setenv("HTTPS_PROXY", proxy)
	t.Setenv("ALL_PROXY", "socks5://127.0.0.1:1")
	cfg := transports["https"](t, server, repo)
	_, err := open(t, cfg).Ref(t.Context(), mainRef)
	require.NoError(t, err)
	require.Zero(t, used.Load(), "the environment is not asked")

	cfg.Proxy = proxy
	_, err = open(t, cfg).Ref(t.Context(), mainRef)
	require.NoError(t, err)
	require.EqualValues(t, 1, used.Load())

	cfg.Proxy = "http://proxy-user:proxy-secret@127.0.0.1:1"
	_, err = open(t, cfg).Ref(t.Context(), mainRef)
	kind, _ := gitremote.KindOf(err)
	require.Equal(t, gitremote.Unreachable, kind)
	require.NotContains(t, err.Error(), "proxy-secret")
}

func TestEncryptedIdentity(t *testing.T) {
	server := gitserver.Start(t, gitserver.Options{})
	repo := server.NewRepository(t, "fleet")
	tip := repo.Commit(t, "main", "First", gitserver.Files{"a": "1"})
	raw, err := os.ReadFile(server.SSHKeyFile())
	require.NoError(t, err)
	cfg := transports["ssh"](t, server, repo)
	cfg.IdentityFile = write(t, "id", raw)
	// One round of its key derivation; the 16 that are usual take seconds under the race detector.
	out, err := exec.Command("ssh-keygen", "-q", "-p", "-a", "1", "-P", "", "-N", "open sesame", "-f", cfg.IdentityFile).CombinedOutput()
	require.NoError(t, err, "%s", out)
	_, err = gitremote.New(cfg)
	require.ErrorContains(t, err, "passphraseFile")
	cfg.PassphraseFile = write(t, "wrong", []byte("wrong words"))
	_, err = gitremote.New(cfg)
	require.ErrorContains(t, err, "cannot be opened")
	require.NotContains(t, err.Error(), "wrong words")
	cfg.PassphraseFile = write(t, "right", []byte("open sesame\n"))
	h, err := open(t, cfg).Ref(t.Context(), mainRef)
	require.NoError(t, err)
	require.Equal(t, tip, h.String())
}

// TestGitVerifiesSignedCommits: git itself accepts what the signer makes.
func TestGitVerifiesSignedCommits(t *testing.T) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	block, err := ssh.MarshalPrivateKey(private, "")
	require.NoError(t, err)
	signer, err := gitremote.NewSSHSigner(pem.EncodeToMemory(block))
	require.NoError(t, err)
	key, err := ssh.NewPublicKey(public)
	require.NoError(t, err)
	allowed := write(t, "allowed", []byte("deu-01 "+string(ssh.MarshalAuthorizedKey(key))))
	server := gitserver.Start(t, gitserver.Options{})
	repo := server.NewRepository(t, "fleet")
	h, err := open(t, transports["https"](t, server, repo)).Commit(t.Context(), gitremote.CommitRequest{
		Ref: "refs/heads/status/deu", Message: "deu: Ready", Author: gitremote.Person{Name: "deu-01 <x>\n", Email: "deu-01@example.org"},
		When: time.Unix(1_700_000_000, 0).In(time.FixedZone("", 3600)), Files: map[string][]byte{"README.md": []byte("x")}, Signer: signer,
	})
	require.NoError(t, err)
	cmd := exec.Command("git", "-C", repo.Path, "-c", "gpg.format=ssh", "-c", "gpg.ssh.allowedSignersFile="+allowed, "verify-commit", h.String())
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "GIT_CONFIG_NOSYSTEM=1"}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), `Good "git" signature for deu-01`)
}

func TestPathsThatACommitCannotHave(t *testing.T) {
	for _, name := range []string{"", "/abs", "../x", "a/../b", "a//b", "a/", "./a", `a\b`, ".git/config", "a/.GIT/x", "a\x00"} {
		_, _, err := gitremote.BuildCommit(gitremote.CommitRequest{Files: map[string][]byte{name: nil}})
		require.Error(t, err, "%q", name)
	}
	_, _, err := gitremote.BuildCommit(gitremote.CommitRequest{Files: map[string][]byte{"a": nil, "a/b": nil}})
	require.ErrorContains(t, err, "a file and a folder")
}

// TestPushThatIsAnsweredWithNothing is never a success, whatever nothing looks like.
func TestPushThatIsAnsweredWithNothing(t *testing.T) {
	for name, body := range map[string]string{
		"no bytes": "", "flush": "0000", "two flushes": "00000000", "empty report": "0009\x0100000000", "only words": "000a\x02hello0000",
		"another ref": "0030\x01000eunpack ok\n0019ok refs/heads/other\n00000000",
	} {
		t.Run(name, func(t *testing.T) {
			url := answering(t, func(w io.Writer) { _, _ = io.WriteString(w, body) })
			r := open(t, gitremote.Config{URL: url, AllowLoopbackHTTP: true, Timeout: 5 * time.Second})
			err := operations["push"](t.Context(), r, plumbing.ZeroHash)
			require.Error(t, err)
			_, err = r.Fetch(t.Context(), plumbing.NewHash(strings.Repeat("1", 40)), nil, 1)
			require.Error(t, err)
		})
	}
}

// TestEndlessAnswers: an answer without an end is cut at the limit, whatever it is an answer to.
func TestEndlessAnswers(t *testing.T) {
	for name, chunk := range map[string]string{"refs": "003e" + strings.Repeat("1", 40) + " refs/heads/other\n", "pack": "0009\x01AAAA", "words": "0009\x02AAAA"} {
		t.Run(name, func(t *testing.T) {
			url := answering(t, func(w io.Writer) {
				if name != "refs" {
					_, _ = io.WriteString(w, "000dpackfile\n")
				}
				block := strings.Repeat(chunk, 1000)
				for {
					if _, err := io.WriteString(w, block); err != nil {
						return
					}
				}
			})
			r := open(t, gitremote.Config{URL: url, AllowLoopbackHTTP: true, Limits: gitremote.Limits{Refs: 1 << 20, Wire: 2 << 20}})
			var err error
			grew, took := heap.Peak(func() {
				if name == "refs" {
					_, err = r.Ref(t.Context(), mainRef)
				} else {
					_, err = r.Fetch(t.Context(), plumbing.NewHash(strings.Repeat("1", 40)), nil, 1)
				}
			})
			var limit *gitremote.LimitError
			require.True(t, errors.As(err, &limit), "%v", err)
			kind, _ := gitremote.KindOf(err)
			require.Equal(t, gitremote.TooLarge, kind)
			require.Less(t, grew, uint64(16<<20))
			require.Less(t, took, 10*time.Second)
		})
	}
}
