package compose

import (
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/moby/api/types/container"
)

// inTheWay says whether a service of the stack needs what the container of a former one holds: its name, a port of the
// host, or a folder or volume that both write to. Such a container goes before the services are looked at.
func (st *sharedState) inTheWay(former container.Summary) bool {
	for _, service := range st.model.project.Services {
		if service.ContainerName != "" && service.ContainerName == containerName(former) {
			return true
		}
		for _, port := range service.Ports {
			if publishes(former, port) {
				return true
			}
		}
		for _, volume := range service.Volumes {
			if !volume.ReadOnly && st.mounts(former, volume) {
				return true
			}
		}
	}
	return false
}

func publishes(c container.Summary, port types.ServicePortConfig) bool {
	first, last, isRange := strings.Cut(port.Published, "-")
	from, err := strconv.ParseUint(first, 10, 16)
	if err != nil {
		return false // the engine picks one
	}
	to := from
	if isRange {
		if to, err = strconv.ParseUint(last, 10, 16); err != nil {
			return true
		}
	}
	for _, have := range c.Ports {
		if public := uint64(have.PublicPort); public != 0 && public >= from && public <= to {
			return true
		}
	}
	return false
}

func (st *sharedState) mounts(c container.Summary, volume types.ServiceVolumeConfig) bool {
	source := volume.Source
	if volume.Type == types.VolumeTypeVolume {
		source = st.model.project.Volumes[volume.Source].Name
	}
	for _, have := range c.Mounts {
		if source != "" && have.RW && (have.Name == source || have.Source == source) {
			return true
		}
	}
	return false
}
