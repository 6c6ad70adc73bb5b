package gitserver

import (
	"crypto/subtle"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/cgi"
	"os"
	"path"
	"strings"
	"sync"
)

var quietLog = log.New(io.Discard, "", 0)

// Request is one HTTPS request that the server has answered, for tests that count what a poll costs.
type Request struct {
	Method  string
	Path    string
	Service string // git-upload-pack or git-receive-pack
	User    string
	Status  int
	Bytes   int64 // body of the answer
}

type requestLog struct {
	mu   sync.Mutex
	list []Request
}

func (l *requestLog) add(request Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, request)
}

// Requests answered over HTTPS since the last call of ResetRequests.
func (s *Server) Requests() []Request {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	return append([]Request(nil), s.log.list...)
}

// ResetRequests forgets the requests so far.
func (s *Server) ResetRequests() {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	s.log.list = nil
}

// serveHTTP records each request, refused and cut ones too. A fault comes before the log in, as that of a proxy would.
func (s *Server) serveHTTP(w http.ResponseWriter, r *http.Request) {
	counted := &countingWriter{ResponseWriter: w, limit: -1}
	request := Request{Method: r.Method, Path: r.URL.Path, Service: service(r)}
	defer func() {
		request.Status, request.Bytes = counted.status, counted.written
		s.log.add(request)
	}()
	if s.faults.before(counted, r, request.Service) {
		return
	}
	user, ok := s.login(r)
	if !ok {
		counted.Header().Set("WWW-Authenticate", `Basic realm="git"`)
		http.Error(counted, "log in to read this repository", http.StatusUnauthorized)
		return
	}
	request.User = user.Name
	if request.Service == "git-receive-pack" && !user.Write {
		http.Error(counted, "this user may not push", http.StatusForbidden)
		return
	}
	limit, clean := s.faults.cut(request.Service)
	counted.limit = limit
	s.runBackend(counted, r, user)
	if counted.cut && !clean {
		panic(http.ErrAbortHandler) // closes the connection, or resets the stream
	}
}

// login finds the user of a request. With no users configured anyone may do everything.
func (s *Server) login(r *http.Request) (User, bool) {
	if len(s.options.Users) == 0 {
		return User{Name: "anonymous", Write: true}, true
	}
	name, password, basic := r.BasicAuth()
	token, bearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	for _, user := range s.options.Users {
		if basic && user.Name == name && equal(user.Password, password) || bearer && equal(user.Password, token) {
			return user, true
		}
	}
	return User{}, false
}

func equal(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// service is the last part of the path of a POST, or the service that a GET of info/refs asks for.
func service(r *http.Request) string {
	if path.Base(r.URL.Path) == "refs" {
		return r.URL.Query().Get("service")
	}
	return path.Base(r.URL.Path)
}

func (s *Server) runBackend(w http.ResponseWriter, r *http.Request, user User) {
	done, err := spool(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer done()
	handler := &cgi.Handler{
		Path:   s.backend,
		Env:    append(gitEnvironment(r.Header.Get("Git-Protocol")), "GIT_PROJECT_ROOT="+s.root(), "GIT_HTTP_EXPORT_ALL=1", "REMOTE_USER="+user.Name),
		Stderr: lineWriter(s.complain),
		Logger: quietLog,
	}
	handler.ServeHTTP(w, r)
}

// spool makes a file of the body. A CGI program cannot be given a chunked one; and git's own turns for ever when the body
// ends before its announced length, as it does when this server is killed.
func spool(r *http.Request) (done func(), err error) {
	if r.ContentLength == 0 {
		return func() {}, nil
	}
	file, err := os.CreateTemp("", "git-push-*")
	if err != nil {
		return nil, fmt.Errorf("spool a push: %w", err)
	}
	done = func() {
		file.Close()
		_ = os.Remove(file.Name())
	}
	size, err := io.Copy(file, r.Body)
	if err == nil {
		_, err = file.Seek(0, io.SeekStart)
	}
	if err != nil {
		done()
		return nil, fmt.Errorf("spool a push: %w", err)
	}
	r.Body, r.ContentLength, r.TransferEncoding = file, size, nil
	return done, nil
}

// gitEnvironment keeps the machine's own git configuration out, and lets git serve folders of any owner.
func gitEnvironment(protocol string) []string {
	env := []string{
		"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "GIT_CONFIG_NOSYSTEM=1",
		"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*",
	}
	if protocol != "" {
		env = append(env, "GIT_PROTOCOL="+protocol)
	}
	return env
}

// countingWriter counts the body and can cut it off after a number of bytes.
type countingWriter struct {
	http.ResponseWriter
	status  int
	written int64
	limit   int64 // -1: none
	cut     bool
}

func (w *countingWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	if w.limit >= 0 {
		w.Header().Del("Content-Length")
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *countingWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if w.limit >= 0 && w.written+int64(len(p)) > w.limit {
		p, w.cut = p[:w.limit-w.written], true
	}
	n, err := w.ResponseWriter.Write(p)
	w.written += int64(n)
	if w.cut {
		w.Flush()
		return n, io.ErrClosedPipe
	}
	return n, err
}

func (w *countingWriter) Flush() {
	if flusher, ok := w.ResponseWriter.(http.Flusher); ok {
		flusher.Flush()
	}
}

// lineWriter hands over what is written, a write at a time.
type lineWriter func(string)

func (w lineWriter) Write(p []byte) (int, error) {
	w(strings.TrimRight(string(p), "\n"))
	return len(p), nil
}
