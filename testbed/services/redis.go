package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"
)

// redisCheck sends PING, after AUTH when the URL has a password: redis://[user[:password]@]host[:port].
func redisCheck(address string) check {
	return check{name: "redis", run: func(ctx context.Context) (map[string]any, error) { return nil, pingRedis(ctx, address) }}
}

// pingRedis logs in and pings within the context's deadline, or 10 seconds where it has none.
func pingRedis(ctx context.Context, address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Hostname() == "" {
		return errors.New("config: REDIS_URL is no URL such as redis://redis:6379") // err may hold the password
	}
	port := u.Port()
	if port == "" {
		port = "6379"
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return err
	}
	defer conn.Close()
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(10 * time.Second)
	}
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	replies := bufio.NewReader(conn)
	if password, ok := u.User.Password(); ok {
		words := []string{"AUTH", password}
		if name := u.User.Username(); name != "" {
			words = []string{"AUTH", name, password}
		}
		if err := redisCommand(conn, replies, "+OK", words...); err != nil {
			return fmt.Errorf("log in to Redis: %w", err)
		}
	}
	return redisCommand(conn, replies, "+PONG", "PING")
}

// redisCommand sends one command in RESP and expects a simple reply.
func redisCommand(conn net.Conn, replies *bufio.Reader, expected string, words ...string) error {
	var request strings.Builder
	fmt.Fprintf(&request, "*%d\r\n", len(words))
	for _, word := range words {
		fmt.Fprintf(&request, "$%d\r\n%s\r\n", len(word), word)
	}
	if _, err := conn.Write([]byte(request.String())); err != nil {
		return err
	}
	reply, err := replies.ReadString('\n')
	if err != nil {
		return err
	}
	if reply = strings.TrimSpace(reply); reply != expected {
		return fmt.Errorf("Redis answered %s", strings.TrimPrefix(reply, "-")) //nolint:staticcheck // a name
	}
	return nil
}
