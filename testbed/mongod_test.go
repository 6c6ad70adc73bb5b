package testbed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// mongodBox is one mongod container of a test, with its data in a folder of the host.
type mongodBox struct {
	tb   testing.TB
	cli  *client.Client
	id   string
	data string
}

// newMongod creates the container, not started, with small files for a quick start.
func newMongod(tb testing.TB, image ImageName, env []string, extra ...string) *mongodBox {
	cli := Engine(tb)
	name := Prefix(tb)
	data := tb.TempDir()
	made, err := cli.ContainerCreate(tb.Context(), client.ContainerCreateOptions{
		Name: name, Image: Image(tb, image),
		Config:     &container.Config{Env: env, Cmd: append([]string{"mongod", "--oplogSize", "16"}, extra...)},
		HostConfig: &container.HostConfig{Binds: []string{data + ":/data/db"}},
	})
	require.NoError(tb, err)
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		_, err := cli.ContainerRemove(ctx, made.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
		assert.NoError(tb, err)
	})
	return &mongodBox{tb: tb, cli: cli, id: made.ID, data: data}
}

func (m *mongodBox) start() {
	m.tb.Helper()
	_, err := m.cli.ContainerStart(m.tb.Context(), m.id, client.ContainerStartOptions{})
	require.NoError(m.tb, err)
}

func (m *mongodBox) kill() {
	m.tb.Helper()
	_, err := m.cli.ContainerKill(m.tb.Context(), m.id, client.ContainerKillOptions{Signal: "KILL"})
	require.NoError(m.tb, err)
	Eventually(m.tb, 10*time.Second, "the killed container", func() error {
		info, err := m.cli.ContainerInspect(m.tb.Context(), m.id, client.ContainerInspectOptions{})
		if err == nil && info.Container.State.Running {
			return errors.New("runs")
		}
		return err
	})
}

func (m *mongodBox) address() string {
	m.tb.Helper()
	info, err := m.cli.ContainerInspect(m.tb.Context(), m.id, client.ContainerInspectOptions{})
	require.NoError(m.tb, err)
	return info.Container.NetworkSettings.Networks["bridge"].IPAddress.String() + ":27017"
}

// login waits until the server takes the name and password.
func (m *mongodBox) login(user, password string) {
	m.tb.Helper()
	Eventually(m.tb, 60*time.Second, "login as "+user, func() error { return tryLogin(m.tb.Context(), m.address(), user, password) })
}

func tryLogin(ctx context.Context, address, user, password string) error {
	opts := options.Client().SetHosts([]string{address}).SetDirect(true).SetServerSelectionTimeout(time.Second)
	if user != "" {
		opts.SetAuth(options.Credential{Username: user, Password: password})
	}
	cli, err := mongo.Connect(opts)
	if err != nil {
		return err
	}
	defer func() { _ = cli.Disconnect(context.WithoutCancel(ctx)) }()
	_, err = cli.ListDatabaseNames(ctx, bson.D{})
	return err
}

func TestMongodMakesRootOnceAndKeepsIt(t *testing.T) {
	m := newMongod(t, Mongod605, []string{"MONGO_INITDB_ROOT_USERNAME=admin", "MONGO_INITDB_ROOT_PASSWORD=first"})
	m.start()
	m.login("admin", "first")
	require.Error(t, tryLogin(t.Context(), m.address(), "", ""), "access control is on")

	m.kill()
	m.start()
	m.login("admin", "first")
	assert.NoFileExists(t, filepath.Join(m.data, ".first-boot-unfinished"))
}

func TestMongodReadsRootFromFilesAndHasHealthCheck(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "password"), []byte("of the file\n"), 0o644))
	cli := Engine(t)
	made, err := cli.ContainerCreate(t.Context(), client.ContainerCreateOptions{
		Name: Prefix(t), Image: Image(t, Mongod605),
		Config: &container.Config{
			Env: []string{"MONGO_INITDB_ROOT_USERNAME=admin", "MONGO_INITDB_ROOT_PASSWORD_FILE=/secrets/password"},
			Healthcheck: &container.HealthConfig{
				Test: []string{"CMD", "mongod-entrypoint", "ping"}, Interval: time.Second, Timeout: 5 * time.Second, Retries: 60,
			},
		},
		HostConfig: &container.HostConfig{Binds: []string{dir + ":/secrets:ro"}},
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		_, err := cli.ContainerRemove(context.Background(), made.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
		assert.NoError(t, err)
	})
	m := &mongodBox{tb: t, cli: cli, id: made.ID}
	m.start()
	m.login("admin", "of the file")
	Eventually(t, 30*time.Second, "health", func() error {
		info, err := cli.ContainerInspect(t.Context(), made.ID, client.ContainerInspectOptions{})
		if err == nil && (info.Container.State.Health == nil || info.Container.State.Health.Status != container.Healthy) {
			return fmt.Errorf("%+v", info.Container.State.Health)
		}
		return err
	})
}

// A first boot is killed at several points; the next one leaves nothing of it.
func TestMongodBeginsAnewAfterAKilledFirstBoot(t *testing.T) {
	for _, point := range []string{".first-boot-unfinished", "WiredTiger", "mongod.lock", "storage.bson"} {
		t.Run(point, func(t *testing.T) {
			m := newMongod(t, Mongod605, []string{"MONGO_INITDB_ROOT_USERNAME=admin", "MONGO_INITDB_ROOT_PASSWORD=pw"})
			m.start()
			Eventually(t, 30*time.Second, point, func() error { _, err := os.Stat(filepath.Join(m.data, point)); return err })
			m.kill()
			m.start()
			m.login("admin", "pw")
		})
	}
}

func TestMongodLeavesAVolumeWithDataAlone(t *testing.T) {
	m := newMongod(t, Mongod605, nil)
	m.start()
	Eventually(t, 30*time.Second, "a server without users", func() error { return tryLogin(t.Context(), m.address(), "", "") })
	m.kill()

	again := newMongod(t, Mongod605, []string{"MONGO_INITDB_ROOT_USERNAME=admin", "MONGO_INITDB_ROOT_PASSWORD=pw"})
	info, err := again.cli.ContainerInspect(t.Context(), again.id, client.ContainerInspectOptions{})
	require.NoError(t, err)
	require.NotEmpty(t, info.Container.HostConfig.Binds)
	require.NoError(t, os.CopyFS(again.data, os.DirFS(m.data)))
	again.start()
	Eventually(t, 30*time.Second, "access control", func() error {
		err := tryLogin(t.Context(), again.address(), "", "")
		var refused mongo.CommandError
		if !errors.As(err, &refused) {
			return fmt.Errorf("not refused: %w", err)
		}
		return nil
	})
	require.Error(t, tryLogin(t.Context(), again.address(), "admin", "pw"), "no user is made in data that was there")
}

func TestMongodRefusesHalfALogin(t *testing.T) {
	m := newMongod(t, Mongod605, []string{"MONGO_INITDB_ROOT_USERNAME=admin"})
	m.start()
	wait := m.cli.ContainerWait(t.Context(), m.id, client.ContainerWaitOptions{})
	select {
	case result := <-wait.Result:
		assert.EqualValues(t, 1, result.StatusCode)
	case err := <-wait.Error:
		t.Fatal(err)
	case <-time.After(20 * time.Second):
		t.Fatal("it runs")
	}
}
