package testbed

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// runServer starts a container of the image with data at the given path, and returns it as a box.
func runServer(t *testing.T, image ImageName, dataPath string, config *container.Config) *mongodBox {
	t.Helper()
	cli := Engine(t)
	data := t.TempDir()
	made, err := cli.ContainerCreate(t.Context(), client.ContainerCreateOptions{
		Name: Prefix(t), Image: Image(t, image), Config: config,
		HostConfig: &container.HostConfig{Binds: []string{data + ":" + dataPath}},
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		_, err := cli.ContainerRemove(context.WithoutCancel(t.Context()), made.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
		assert.NoError(t, err)
	})
	m := &mongodBox{tb: t, cli: cli, id: made.ID, data: data}
	m.start()
	return m
}

func TestPostgresBeginsAnewAfterAKilledFirstBoot(t *testing.T) {
	m := runServer(t, Postgres15, "/var/lib/postgresql/data", &container.Config{
		Env: []string{"POSTGRES_USER=kc", "POSTGRES_PASSWORD=p w'd", "POSTGRES_DB=realm"},
	})
	Eventually(t, 30*time.Second, "the beginning of the first boot", func() error {
		_, err := os.Stat(filepath.Join(m.data, ".new", "PG_VERSION"))
		return err
	})
	m.kill()
	require.NoFileExists(t, filepath.Join(m.data, "PG_VERSION"))
	m.start()
	query := func() error {
		host, _, _ := strings.Cut(m.address(), ":")
		c, err := pgx.ParseConfig(fmt.Sprintf("host=%s port=5432 user=kc dbname=realm sslmode=disable connect_timeout=2", host))
		if err != nil {
			return err
		}
		c.Password = "p w'd"
		conn, err := pgx.ConnectConfig(t.Context(), c)
		if err != nil {
			return err
		}
		defer conn.Close(context.WithoutCancel(t.Context()))
		_, err = conn.Exec(t.Context(), "CREATE TABLE IF NOT EXISTS kept (n int)")
		return err
	}
	Eventually(t, 60*time.Second, "a login over the network", query)
	m.kill()
	m.start()
	Eventually(t, 60*time.Second, "a login after a crash", query)
}

func TestRedisAsksForItsPassword(t *testing.T) {
	m := runServer(t, Redis7, "/data", &container.Config{Cmd: []string{"redis-server", "--requirepass", "s3cret"}})
	say := func(lines ...string) (string, error) {
		host, _, _ := strings.Cut(m.address(), ":")
		conn, err := (&net.Dialer{Timeout: 2 * time.Second}).DialContext(t.Context(), "tcp", net.JoinHostPort(host, "6379"))
		if err != nil {
			return "", err
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
			return "", err
		}
		r, last := bufio.NewReader(conn), ""
		for _, line := range lines {
			if _, err := fmt.Fprintf(conn, "%s\r\n", line); err != nil {
				return "", err
			}
			if last, err = r.ReadString('\n'); err != nil {
				return "", err
			}
		}
		return strings.TrimSpace(last), nil
	}
	Eventually(t, 30*time.Second, "redis", func() error {
		answer, err := say("AUTH s3cret", "PING")
		if err == nil && answer != "+PONG" {
			return errors.New(answer)
		}
		return err
	})
	answer, err := say("PING")
	require.NoError(t, err)
	assert.Contains(t, answer, "NOAUTH")
}
