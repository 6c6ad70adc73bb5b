package systemd

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/client"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"dive-agent/testbed"
)

// buildImage builds from a context of the given files, offline, and removes the image with the test.
func buildImage(t *testing.T, cli *client.Client, tag string, arguments map[string]*string, files map[string]string) {
	t.Helper()
	var body bytes.Buffer
	w := tar.NewWriter(&body)
	for name, path := range files {
		raw, err := os.ReadFile(path)
		require.NoError(t, err)
		require.NoError(t, w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(raw))}))
		_, err = w.Write(raw)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	res, err := cli.ImageBuild(t.Context(), &body, client.ImageBuildOptions{
		Tags: []string{tag}, BuildArgs: arguments, NetworkMode: "none", Version: build.BuilderV1, Remove: true, ForceRemove: true,
	})
	require.NoError(t, err)
	defer res.Body.Close()
	var said strings.Builder
	for dec := json.NewDecoder(res.Body); ; {
		var message jsonstream.Message
		err := dec.Decode(&message)
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		if message.Error != nil {
			t.Fatalf("%v\n%s", message.Error, said.String())
		}
		said.WriteString(message.Stream)
	}
	t.Cleanup(func() {
		_, err := cli.ImageRemove(context.WithoutCancel(t.Context()), tag, client.ImageRemoveOptions{Force: true, PruneChildren: true})
		assert.NoError(t, err)
	})
}

// The Dockerfile with the test bed's images and a program that was built already.
func TestDockerfileBuildsFromOtherBaseImages(t *testing.T) {
	cli := testbed.Engine(t)
	base := testbed.Image(t, testbed.Base)
	program := testbed.GoBinary(t, "./cmd/dive-agent")
	terraform, err := exec.LookPath("terraform")
	require.NoError(t, err)
	name := testbed.Prefix(t)

	dockerfile := filepath.Join(t.TempDir(), "Dockerfile")
	require.NoError(t, os.WriteFile(dockerfile, []byte("FROM scratch\nCOPY terraform /bin/terraform\n"), 0o600))
	buildImage(t, cli, name+"-terraform", nil, map[string]string{"Dockerfile": dockerfile, "terraform": terraform})

	tag, tool, built, version := name+":1", name+"-terraform", "bin/dive-agent", "1.2.3"
	buildImage(t, cli, tag,
		map[string]*string{"BUILD_IMAGE": &base, "RUN_IMAGE": &base, "TERRAFORM_IMAGE": &tool, "PREBUILT": &built, "VERSION": &version},
		map[string]string{"Dockerfile": filepath.Join(testbed.Checkout(t), "Dockerfile"), built: program})

	for _, command := range [][]string{{"dive-agent", "version"}, {"terraform", "version"}} {
		made, err := cli.ContainerCreate(t.Context(), client.ContainerCreateOptions{
			Name: testbed.Prefix(t), Image: tag, Config: &container.Config{Entrypoint: command, Cmd: []string{}},
		})
		require.NoError(t, err)
		t.Cleanup(func() {
			_, err := cli.ContainerRemove(context.WithoutCancel(t.Context()), made.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
			assert.NoError(t, err)
		})
		wait := cli.ContainerWait(t.Context(), made.ID, client.ContainerWaitOptions{Condition: container.WaitConditionNextExit})
		_, err = cli.ContainerStart(t.Context(), made.ID, client.ContainerStartOptions{})
		require.NoError(t, err)
		select {
		case result := <-wait.Result:
			assert.Zero(t, result.StatusCode, "%v", command)
		case err := <-wait.Error:
			t.Fatal(err)
		}
	}
	info, err := cli.ImageInspect(t.Context(), tag)
	require.NoError(t, err)
	assert.Equal(t, []string{"dive-agent"}, info.Config.Entrypoint)
	assert.Equal(t, []string{"run"}, info.Config.Cmd)
}
