package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"dive-agent/agent"
	"dive-agent/config"
	"dive-agent/report"
)

// client talks to the running agent over its socket.
type socketClient struct {
	socket string
	http   *http.Client
}

func newClient(g *globals) (*socketClient, error) {
	c, err := config.Load(g.config)
	if err != nil {
		return nil, err
	}
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	return &socketClient{socket: c.Socket, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", c.Socket)
		},
	}}}, nil
}

func (c *socketClient) do(ctx context.Context, method, path string, query url.Values) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://agent"+path+"?"+query.Encode(), nil)
	if err != nil {
		return nil, err
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, c.explain(err)
	}
	if response.StatusCode == http.StatusOK {
		return response, nil
	}
	defer response.Body.Close()
	var body struct{ Error string }
	if err := json.NewDecoder(io.LimitReader(response.Body, 1<<20)).Decode(&body); err != nil || body.Error == "" {
		return nil, fmt.Errorf("the agent answered %s", response.Status)
	}
	return nil, errors.New(body.Error)
}

// errNoAgent is that no agent runs on this host.
var errNoAgent = errors.New("no agent answers")

func (c *socketClient) explain(err error) error {
	switch {
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("cannot open the agent's socket %s: permission denied. Run as root or as a member of group dive-agent", c.socket)
	case errors.Is(err, os.ErrNotExist), isRefused(err):
		return fmt.Errorf("%w at %s. Start it with: systemctl restart dive-agent (or dive-agent run); why it ended: journalctl -u dive-agent -e", errNoAgent, c.socket)
	}
	return fmt.Errorf("cannot ask the agent at %s: %w", c.socket, err)
}

func isRefused(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

func (c *socketClient) get(ctx context.Context, path string, query url.Values, into any) error {
	response, err := c.do(ctx, http.MethodGet, path, query)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	return json.NewDecoder(response.Body).Decode(into)
}

// order gives the agent an order about an instance: sync, rollback, suspend, resume.
func (c *socketClient) order(ctx context.Context, name, order string, query url.Values) (accepted agent.Accepted, err error) {
	response, err := c.do(ctx, http.MethodPost, "/v1/instances/"+url.PathEscape(name)+"/"+order, query)
	if err != nil {
		return accepted, err
	}
	defer response.Body.Close()
	err = json.NewDecoder(response.Body).Decode(&accepted)
	return accepted, err
}

func (c *socketClient) overview(ctx context.Context) (o agent.Overview, err error) {
	err = c.get(ctx, "/v1/overview", nil, &o)
	return o, err
}

func (c *socketClient) status(ctx context.Context, name string) (s report.Status, err error) {
	err = c.get(ctx, "/v1/instances/"+url.PathEscape(name), nil, &s)
	return s, err
}

// events hands each event to see until it returns false, the stream ends or ctx does.
func (c *socketClient) events(ctx context.Context, query url.Values, see func(agent.Event) bool) error {
	response, err := c.do(ctx, http.MethodGet, "/v1/events", query)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var event agent.Event
		if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
			return fmt.Errorf("the agent sent an event that cannot be read: %w", err)
		}
		if !see(event) {
			return nil
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return lines.Err()
}
