package compose

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/reconcilers"
)

// What reaches beyond a stack's own containers is refused at its place, unless the host's words let it through.
func TestWhatAHostMustAllow(t *testing.T) {
	cases := []struct {
		definition, at, want, allow string // allow: words that let it through
	}{
		{"privileged: true", "4:5", "service a is privileged", "privileged"},
		{"cap_add: [NET_ADMIN, ALL]", "4:26", "has the capability ALL", "cap:ALL"},
		{"cap_add: [CAP_SYS_ADMIN]", "4:15", "has the capability SYS_ADMIN", "cap:SYS_ADMIN"},
		{"cap_add: [sys_module]", "4:15", "has the capability SYS_MODULE", "privileged"},
		{"security_opt: [\"no-new-privileges:true\", \"seccomp=unconfined\"]", "4:46", "runs with seccomp=unconfined", "unconfined"},
		{"security_opt: [\"apparmor:unconfined\"]", "4:20", "runs with apparmor:unconfined", "privileged"},
		{"security_opt: [\"label:disable\"]", "4:20", "runs with label:disable", "unconfined"},
		{"security_opt: [\"systempaths=unconfined\"]", "4:20", "runs with systempaths=unconfined", "unconfined"},
		{"devices: [\"/dev/sda:/dev/sda\"]", "4:15", "uses the host's device /dev/sda", "devices"},
		{"device_cgroup_rules: [\"b *:* rwm\"]", "4:27", "may use devices of the host", "devices"},
		{"pid: host", "4:5", "shares the processes of the host", "host-namespaces"},
		{"ipc: host", "4:5", "shares the shared memory of the host", "host-namespaces"},
		{"uts: host", "4:5", "shares the name of the host", "host-namespaces"},
		{"userns_mode: host", "4:5", "shares the users of the host", "host-namespaces"},
		{"cgroup: host", "4:5", "shares the control groups of the host", "host-namespaces"},
		{"cgroup_parent: /system.slice", "4:5", "in the control group /system.slice", "host-namespaces"},
		{"network_mode: host", "4:5", "uses the host's network", "host-network"},
		{"networks: [n]\nnetworks: {n: {external: true, name: host}}", "4:5", "uses the host's network", "host-network"},
		{"network_mode: \"container:other\"", "4:5", "shares the network of container other", "foreign-containers"},
		{"pid: \"container:other\"", "4:5", "shares the pid of container other", "foreign-containers"},
		{"volumes_from: [\"container:other\"]", "4:20", "has the volumes of container other", "foreign-containers"},
		{"use_api_socket: true", "4:5", "is given the engine's socket", "engine-socket"},
		{"volumes: [\"/var/run/docker.sock:/s:ro\"]", "4:15", "the engine's socket", "engine-socket"},
		{"volumes: [\"/run/user/1000/docker.sock:/s\"]", "4:15", "the engine's socket", "engine-socket"},
		{"volumes: [\"//var/../run/docker.sock:/s\"]", "4:15", "the engine's socket", "engine-socket"},
		{"volumes: [{type: bind, source: /, target: /host}]", "4:36", "service a binds / of the host, with the engine's socket in it", "mount:/ engine-socket"},
		{"volumes: [\"/var/run:/r\"]", "4:15", "binds /var/run of the host, with the engine's socket in it", "mount:/var engine-socket"},
		{"volumes: [\"/srv/data:/data:ro\"]", "4:15", "service a binds /srv/data of the host, outside of the repository", "mount:/srv"},
		{"volumes: [\"/etc/localtime:/etc/localtime\"]", "4:15", "binds /etc/localtime of the host", "mount:/etc/localtime"},
		{"volumes: [\"${SECRETS_DIR}/../../other:/o\"]", "4:15", "binds /other of the host", "mount:/other"},
		{"volumes: [\"vol:/v\"]\nvolumes: {vol: {driver_opts: {type: none, o: bind, device: /}}}", "5:60", "volume vol is / of the host", "mount:/ engine-socket"},
		{"volumes: [\"vol:/v\"]\nvolumes: {vol: {driver: local, driver_opts: {type: overlay, o: \"lowerdir=/etc,upperdir=/srv/u,workdir=/srv/w\", device: overlay}}}", "5:64", "volume vol is /etc of the host", "mount:/etc mount:/srv"},
		{"configs: [c]\nconfigs: {c: {file: /etc/shadow}}", "5:21", "config c of service a is /etc/shadow", "mount:/etc/shadow"},
		{"secrets: [s]\nsecrets: {s: {file: /root/.ssh/id}}", "5:21", "secret s of service a is /root/.ssh/id", "mount:/root/.ssh"},
	}
	for _, c := range cases {
		t.Run(c.definition, func(t *testing.T) {
			file := "services:\n  a:\n    image: x:1\n    " + c.definition + "\n"
			_, problems := repository(t, "", file, nil)
			require.Contains(t, problems.Error(), "compose.yaml:"+c.at+": ")
			require.Contains(t, problems.Error(), c.want)
			require.Contains(t, problems.Error(), "let the host allow it, in its agent.yaml: compose: {allow: [")
			_, problems = repositoryOn(t, strings.Fields(c.allow), "", file, nil)
			require.Empty(t, problems)
			words := strings.Fields(c.allow)
			_, problems = repositoryOn(t, append(words[1:], "mount:/srv/dat", "cap:SYS_NICE", "provisioners", "files"), "", file, nil)
			require.NotEmpty(t, problems, "other words do not")
		})
	}
}

func TestWhatNobodyMustAllow(t *testing.T) {
	for _, definition := range []string{
		"cap_add: [NET_ADMIN, NET_BIND_SERVICE]",
		"security_opt: [\"no-new-privileges:true\"]",
		"volumes: [\"./conf:/conf\", \"${SECRETS_DIR}/x:/x:ro\", \"/etc/localtime:/etc/localtime:ro\", \"/etc/ssl/certs:/etc/ssl/certs:ro\", \"/anonymous\"]",
		"network_mode: \"service:b\"\n  b: {image: \"x:1\", ipc: shareable}",
		"volumes: [\"vol:/v\"]\nvolumes: {vol: {driver_opts: {type: nfs, o: \"addr=10.0.0.1,rw\", device: \":/export\"}}}",
		"volumes: [\"vol:/v\"]\nvolumes: {vol: {driver_opts: {type: tmpfs, device: tmpfs, o: \"size=10m\"}}}",
		"profiles: [off]\n    privileged: true\n  b: {image: \"x:1\"}",
	} {
		_, problems := repository(t, "", "services:\n  a:\n    image: x:1\n    "+definition+"\n", nil)
		require.Empty(t, problems, definition)
	}
}

// A path that validation cannot know, and a link on the host, are judged where the container would be made.
func TestTheHostJudgesWhatIsKnownThereAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `
services:
  web: {image: "${IMAGE}", init: true, command: [bash, -c, "${RUN}"], volumes: ["./data:/data", "./data/link:/link", "${DIR}:/dir"]}
`)
	w.set("DIR", filepath.Join(w.dirs, "project", "made"))
	refused := func(want string) {
		t.Helper()
		_, err := w.r.Observe(t.Context(), w.target("web"))
		var blocked *reconcilers.BlockedError
		require.ErrorAs(t, err, &blocked)
		require.Equal(t, "ServiceRefused", blocked.Reason)
		require.Contains(t, blocked.Message, want)
	}
	w.up("web")
	link := filepath.Join(w.dirs, "project", "data", "link")
	require.NoError(t, os.Remove(link))
	require.NoError(t, os.Symlink("/etc", link)) // as the container could
	refused("service web binds /etc of the host")
	require.NoError(t, os.Remove(link))
	w.inSync("web")
	socket, ok := strings.CutPrefix(w.engine.DaemonHost(), "unix://")
	if !ok {
		t.Skip("the engine has no socket")
	}
	w.set("DIR", socket)
	refused("the engine's socket")
	w.set("DIR", filepath.Dir(socket))
	refused("with the engine's socket in it")
	w.set("DIR", "/srv")
	refused(`compose: {allow: ["mount:/srv"]}`)
	w.r.allow = allowance{"mount:/srv"}
	require.Equal(t, reconcilers.Replace, w.change("web").Action)
}

// A container that turns a folder of its files into a link does not lead the agent elsewhere.
func TestFilesAreNotPlacedBehindLinks(t *testing.T) {
	project, elsewhere := t.TempDir(), t.TempDir()
	write(t, filepath.Join(project, "conf", "keep"), "x")
	require.NoError(t, os.Symlink(elsewhere, filepath.Join(project, "conf", "sub")))
	source := t.TempDir()
	write(t, filepath.Join(source, "sub", "deeper", "a"), "a")
	err := placeTree(filepath.Join(source), filepath.Join(project, "conf"), project)
	require.ErrorContains(t, err, "leads out of the project's folder")
	require.NoDirExists(t, filepath.Join(elsewhere, "deeper"))
	require.NoError(t, os.Remove(filepath.Join(project, "conf", "sub")))
	require.NoError(t, placeTree(filepath.Join(source), filepath.Join(project, "conf"), project))
	require.FileExists(t, filepath.Join(project, "conf", "sub", "deeper", "a"))
}
