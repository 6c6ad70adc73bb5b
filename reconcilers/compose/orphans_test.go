package compose

import (
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"
)

// What holds nothing that a service of the stack needs may go last; all else goes before the services are looked at.
func TestFormerServicesThatAreInTheWay(t *testing.T) {
	t.Parallel()
	st := &sharedState{stack: &stack{model: &model{project: &types.Project{
		Volumes: types.Volumes{"data": {Name: "deu_data"}},
		Services: types.Services{"web": {
			ContainerName: "web",
			Ports:         []types.ServicePortConfig{{Published: "8080"}, {Published: "9000-9002"}, {Target: 81}},
			Volumes: []types.ServiceVolumeConfig{
				{Type: types.VolumeTypeVolume, Source: "data"},
				{Type: types.VolumeTypeBind, Source: "/srv/key", ReadOnly: true},
				{Type: types.VolumeTypeBind, Source: "/srv/files"},
				{Type: types.VolumeTypeTmpfs},
			},
		}},
	}}}}
	for name, c := range map[string]struct {
		former container.Summary
		is     bool
	}{
		"nothing":                        {},
		"its name":                       {container.Summary{Names: []string{"/web"}}, true},
		"another name":                   {container.Summary{Names: []string{"/old"}}, false},
		"its port":                       {container.Summary{Ports: []container.PortSummary{{PublicPort: 8080}}}, true},
		"a port of its range":            {container.Summary{Ports: []container.PortSummary{{PublicPort: 9001}}}, true},
		"another port":                   {container.Summary{Ports: []container.PortSummary{{PublicPort: 27020}, {PrivatePort: 8080}}}, false},
		"its volume":                     {container.Summary{Mounts: []container.MountPoint{{Name: "deu_data", RW: true}}}, true},
		"its volume, to read":            {container.Summary{Mounts: []container.MountPoint{{Name: "deu_data"}}}, false},
		"its folder":                     {container.Summary{Mounts: []container.MountPoint{{Source: "/srv/files", RW: true}}}, true},
		"a folder that it only reads":    {container.Summary{Mounts: []container.MountPoint{{Source: "/srv/key", RW: true}}}, false},
		"a volume of nobody in the file": {container.Summary{Mounts: []container.MountPoint{{Name: "deu_data-4", RW: true}}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if c.former.Names == nil {
				c.former.Names = []string{"/old"}
			}
			require.Equal(t, c.is, st.inTheWay(c.former))
		})
	}
}

// A network that went from the file goes when nothing is on it any more, stopped or not. One that somebody made stays.
func TestFormerNetworkGoes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, strings.Replace(driftingNetworks, "[back]", "[back, default]", 1))
	w.up("web")
	by := w.project + "_mine"
	_, err := w.engine.NetworkCreate(t.Context(), by, client.NetworkCreateOptions{Labels: map[string]string{"com.docker.compose.project": w.project}})
	require.NoError(t, err)
	w.write(map[string]string{"compose.yaml": `services: {web: {image: "${IMAGE}", init: true, command: [bash, -c, "${RUN}"], volumes: [data:/data]}}
volumes: {data: {}}
`})
	_, err = w.engine.ContainerStop(t.Context(), w.inspect("web").ID, client.ContainerStopOptions{})
	require.NoError(t, err)
	w.inSync(SharedPart) // a stopped one could not be started without it
	require.NoError(t, w.try("web"))
	change := w.change(SharedPart)
	require.Equal(t, "delete network "+w.project+"_back", string(change.Action)+" "+change.Address)
	require.Equal(t, "it is not in the Compose file any more, and no container is on it", change.Reason)
	require.False(t, change.Destroys)
	w.up("web")
	networks, err := w.engine.NetworkList(t.Context(), client.NetworkListOptions{Filters: projectFilter(w.project)})
	require.NoError(t, err)
	require.Len(t, networks.Items, 2, "the default one, and what somebody made")
}
