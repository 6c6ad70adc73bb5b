package main

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"

	"dive-agent/testbed"
)

// startPeer runs an image until the end of the test and returns its address once the port answers.
func startPeer(t *testing.T, name testbed.ImageName, port string, env ...string) string {
	t.Helper()
	engine, image := testbed.Engine(t), testbed.Image(t, name)
	created, err := engine.ContainerCreate(t.Context(), client.ContainerCreateOptions{
		Name: testbed.Prefix(t), Config: &container.Config{Image: image, Env: env},
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_, err := engine.ContainerRemove(ctx, created.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
		require.NoError(t, err)
	})
	_, err = engine.ContainerStart(t.Context(), created.ID, client.ContainerStartOptions{})
	require.NoError(t, err)
	shown, err := engine.ContainerInspect(t.Context(), created.ID, client.ContainerInspectOptions{})
	require.NoError(t, err)
	address := ""
	for _, network := range shown.Container.NetworkSettings.Networks {
		address = net.JoinHostPort(network.IPAddress.String(), port)
	}
	testbed.Eventually(t, time.Minute, address, func() error {
		conn, err := net.DialTimeout("tcp", address, time.Second)
		if err == nil {
			err = conn.Close()
		}
		return err
	})
	return address
}

func tables(t *testing.T, url string) (count int) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.Background()) }()
	require.NoError(t, conn.QueryRow(t.Context(), `SELECT count(*) FROM information_schema.tables
		WHERE table_name IN ('audit_log', 'authorization_log', 'federation_log')`).Scan(&count))
	return count
}
