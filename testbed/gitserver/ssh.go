package gitserver

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// sshKeys are the server's host key and the one client key that may log in, with the right to push.
type sshKeys struct {
	host, client ssh.Signer
	clientFile   string
}

func loadSSHKeys(dir string) (sshKeys, error) {
	keys := sshKeys{clientFile: filepath.Join(dir, "id_ed25519")}
	var err error
	if keys.host, err = loadSSHKey(filepath.Join(dir, "ssh_host_ed25519_key")); err != nil {
		return keys, err
	}
	keys.client, err = loadSSHKey(keys.clientFile)
	return keys, err
}

func loadSSHKey(file string) (ssh.Signer, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		data, err = makeSSHKey(file)
	}
	if err != nil {
		return nil, fmt.Errorf("SSH key %s: %w", file, err)
	}
	signer, err := ssh.ParsePrivateKey(data)
	if err != nil {
		return nil, fmt.Errorf("SSH key %s: %w", file, err)
	}
	return signer, nil
}

func makeSSHKey(file string) ([]byte, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	block, err := ssh.MarshalPrivateKey(private, "dive-agent test bed")
	if err != nil {
		return nil, err
	}
	data := pem.EncodeToMemory(block)
	return data, os.WriteFile(file, data, 0o600)
}

func (k sshKeys) serverConfig() *ssh.ServerConfig {
	authorized := string(k.client.PublicKey().Marshal())
	config := &ssh.ServerConfig{
		PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			if string(key.Marshal()) != authorized {
				return nil, errors.New("this key is not among the authorized keys")
			}
			return nil, nil
		},
	}
	config.AddHostKey(k.host)
	return config
}

// SSHKeyFile is the private key that may log in as git, mode 0600.
func (s *Server) SSHKeyFile() string { return s.keys.clientFile }

// KnownHosts is the line that names this server's host key, for a known_hosts file.
func (s *Server) KnownHosts() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return knownhosts.Line([]string{knownhosts.Normalize(s.sshAddr)}, s.keys.host.PublicKey()) + "\n"
}

type sshListener struct {
	inner net.Listener
	mu    sync.Mutex
	open  map[net.Conn]struct{}
}

func (s *Server) listenSSH(address string) (*sshListener, error) {
	inner, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for SSH on %s: %w", address, err)
	}
	listener := &sshListener{inner: s.faults.listener(inner), open: map[net.Conn]struct{}{}}
	go listener.accept(s)
	return listener, nil
}

func (l *sshListener) addr() string { return l.inner.Addr().String() }

func (l *sshListener) close() {
	l.inner.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	for conn := range l.open {
		conn.Close()
	}
}

func (l *sshListener) accept(s *Server) {
	for {
		conn, err := l.inner.Accept()
		if err != nil {
			return // closed
		}
		l.mu.Lock()
		l.open[conn] = struct{}{}
		l.mu.Unlock()
		go func() {
			s.serveSSH(conn)
			conn.Close()
			l.mu.Lock()
			delete(l.open, conn)
			l.mu.Unlock()
		}()
	}
}

func (s *Server) serveSSH(conn net.Conn) {
	_, channels, requests, err := ssh.NewServerConn(conn, s.ssh)
	if err != nil {
		s.complain(fmt.Sprintf("SSH login: %v", err))
		return
	}
	go ssh.DiscardRequests(requests)
	for channel := range channels {
		if channel.ChannelType() != "session" {
			_ = channel.Reject(ssh.UnknownChannelType, "only sessions")
			continue
		}
		session, requests, err := channel.Accept()
		if err != nil {
			return
		}
		go s.serveSession(session, requests)
	}
}

// serveSession takes GIT_PROTOCOL from the client's environment, runs one git command, and reports its end.
func (s *Server) serveSession(session ssh.Channel, requests <-chan *ssh.Request) {
	defer func() { _ = session.Close() }()
	protocol := ""
	for request := range requests {
		switch request.Type {
		case "env":
			var variable struct{ Name, Value string }
			if ssh.Unmarshal(request.Payload, &variable) == nil && variable.Name == "GIT_PROTOCOL" {
				protocol = variable.Value
			}
			_ = request.Reply(true, nil)
		case "exec":
			var command struct{ Line string }
			if err := ssh.Unmarshal(request.Payload, &command); err != nil {
				_ = request.Reply(false, nil)
				return
			}
			_ = request.Reply(true, nil)
			status := s.runSSHCommand(session, command.Line, protocol)
			_, _ = session.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{status}))
			return
		default:
			_ = request.Reply(false, nil)
		}
	}
}

// runSSHCommand gives the exit code for the client; 128 is git's own for what could not start.
func (s *Server) runSSHCommand(session ssh.Channel, line, protocol string) uint32 {
	verb, argument, _ := strings.Cut(line, " ")
	folder := filepath.Join(s.root(), filepath.Clean("/"+strings.Trim(argument, "' ")))
	if verb != "git-upload-pack" && verb != "git-receive-pack" {
		fmt.Fprintf(session.Stderr(), "only git-upload-pack and git-receive-pack are served here\n")
		return 128
	}
	cmd := exec.Command("git", strings.TrimPrefix(verb, "git-"), folder)
	cmd.Env = gitEnvironment(protocol)
	cmd.Stdout, cmd.Stderr = session, session.Stderr()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return 128
	}
	if err := cmd.Start(); err != nil {
		fmt.Fprintf(session.Stderr(), "%v\n", err)
		return 128
	}
	go func() { // ends with the session
		_, _ = io.Copy(stdin, session)
		stdin.Close()
	}()
	if err := cmd.Wait(); err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.ExitCode() > 0 {
			return uint32(exit.ExitCode())
		}
		return 128
	}
	return 0
}
