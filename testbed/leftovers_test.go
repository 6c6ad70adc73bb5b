package testbed

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// killedEngine is run where no other engine, network or process is seen: the engine that the test bed starts is killed
// with what belongs to it, and has to come up again on what that left; then it goes for good.
const killedEngine = `set -eu
mount -t tmpfs tmpfs /run
ip link set lo up
unset DOCKER_HOST
testbed="$1"

host="$("$testbed" engine)"
DOCKER_HOST="$host" docker network create left >/dev/null
ip -br link | grep -q '^br-'
iptables-save | grep -q ' br-'

kill -9 "$(pgrep -x dockerd)"
"$testbed" status | grep -q 'none runs'
test "$("$testbed" engine)" = "$host"
DOCKER_HOST="$host" docker network ls --format '{{.Name}}' | sort | tr '\n' ' ' | grep -qx 'bridge host none '
if ip -br link | grep '^br-'; then echo "a bridge is left"; exit 1; fi
if iptables-save | grep ' br-'; then echo "a firewall rule is left"; exit 1; fi

# Everything is killed, and another process has the number in the pid file.
kill -9 $(pgrep -x dockerd) $(pgrep -x containerd)
echo 1 >/run/dive-testbed/docker.pid
test "$("$testbed" engine)" = "$host"

"$testbed" down
if ip -br link | grep -e '^br-' -e '^docker0'; then echo "a bridge is left"; exit 1; fi
if iptables-save | grep DOCKER; then echo "a firewall rule is left"; exit 1; fi
if pgrep -x dockerd; then echo "the engine is left"; exit 1; fi
`

func TestSharedEngineSurvivesItsDeath(t *testing.T) {
	Host(t) // installs what an engine needs
	program, err := goBinary(t.Context(), "./testbed/cmd/testbed")
	require.NoError(t, err)
	dir := t.TempDir()
	script := filepath.Join(dir, "killed-engine.sh")
	require.NoError(t, os.WriteFile(script, []byte(killedEngine), 0o600))
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	out, err := command{
		name: "unshare", env: []string{"TESTBED_CACHE=" + filepath.Join(dir, "cache")},
		args: []string{"--pid", "--fork", "--kill-child", "--mount-proc", "--net", "--mount", "bash", script, program},
	}.run(ctx)
	require.NoError(t, err)
	t.Log(out)
}
