package gitserver_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/testbed/gitserver"
)

const lsRefs = "0014command=ls-refs\n0001001bref-prefix refs/heads/\n0000"

func poll(ctx context.Context, server *gitserver.Server) (status int, body []byte, err error) {
	request, err := http.NewRequestWithContext(ctx, "POST", server.URL("fleet")+"/git-upload-pack", strings.NewReader(lsRefs))
	if err != nil {
		return 0, nil, err
	}
	request.Header.Set("Git-Protocol", "version=2")
	request.Header.Set("Content-Type", "application/x-git-upload-pack-request")
	c := client(server)
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	response, err := c.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	body, err = io.ReadAll(response.Body)
	return response.StatusCode, body, err
}

func TestFaultsThatAnswer(t *testing.T) {
	server := gitserver.Start(t, gitserver.Options{Users: []gitserver.User{}})
	server.NewRepository(t, "fleet").Commit(t, "main", "Start", gitserver.Files{"a": "a"})
	_, whole, err := poll(t.Context(), server)
	require.NoError(t, err)

	for name, test := range map[string]struct {
		fault  gitserver.Fault
		status int
		length int
		failed bool
	}{
		"empty":        {gitserver.Fault{Kind: gitserver.Empty}, 200, 0, false},
		"error page":   {gitserver.Fault{Kind: gitserver.Page, Bytes: 3 << 20}, 500, 3 << 20, false},
		"garbage":      {gitserver.Fault{Kind: gitserver.Garbage, Bytes: 1000}, 200, 1000, false},
		"cut":          {gitserver.Fault{Kind: gitserver.Cut, Bytes: 20}, 200, 20, true},
		"clean cut":    {gitserver.Fault{Kind: gitserver.CutClean, Bytes: 20}, 200, 20, false},
		"status":       {gitserver.Fault{Kind: gitserver.Status, Status: 503}, 503, 32, false},
		"redirect":     {gitserver.Fault{Kind: gitserver.Redirect, Location: "https://elsewhere.test/"}, 302, 0, false},
		"other's":      {gitserver.Fault{Kind: gitserver.Empty, Service: "git-receive-pack"}, 200, len(whole), false},
		"used up once": {gitserver.Fault{Kind: gitserver.Empty, Times: 1}, 200, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			server.SetFault(test.fault)
			status, body, err := poll(t.Context(), server)
			require.Equal(t, test.failed, err != nil, "error: %v", err)
			require.Equal(t, test.status, status)
			require.Len(t, body, test.length)
			if test.fault.Times == 1 {
				_, body, err = poll(t.Context(), server)
				require.NoError(t, err)
				require.Equal(t, whole, body)
			}
			server.ClearFault()
			_, body, err = poll(t.Context(), server)
			require.NoError(t, err)
			require.Equal(t, whole, body)
		})
	}
}

func TestFaultsThatHang(t *testing.T) {
	for _, kind := range []gitserver.Kind{gitserver.Silence, gitserver.Hang, gitserver.Trickle} {
		t.Run(string(kind), func(t *testing.T) {
			server := gitserver.Start(t, gitserver.Options{Users: []gitserver.User{}})
			server.NewRepository(t, "fleet").Commit(t, "main", "Start", gitserver.Files{"a": "a"})
			server.SetFault(gitserver.Fault{Kind: kind})
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			_, _, err := poll(ctx, server)
			require.True(t, errors.Is(err, context.DeadlineExceeded), "got %v", err)
			server.ClearFault()
			_, body, err := poll(t.Context(), server)
			require.NoError(t, err)
			require.Contains(t, string(body), "refs/heads/main")
		})
	}
}

func TestSilenceOverSSH(t *testing.T) {
	server := gitserver.Start(t, gitserver.Options{})
	server.SetFault(gitserver.Fault{Kind: gitserver.Silence})
	host, _, _ := strings.Cut(strings.TrimPrefix(server.SSHURL("x"), "ssh://git@"), "/")
	conn, err := net.Dial("tcp", host)
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(200*time.Millisecond)))
	_, err = conn.Read(make([]byte, 1))
	var timeout net.Error
	require.ErrorAs(t, err, &timeout)
	require.True(t, timeout.Timeout())
}
