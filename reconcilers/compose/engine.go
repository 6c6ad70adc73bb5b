package compose

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/moby/client"
	"github.com/moby/moby/client/pkg/versions"

	"dive-agent/reconcilers"
)

// away tells an engine that does not answer from whatever was asked of it.
func away(engine *client.Client, err error) error {
	if err == nil || !client.IsErrConnectionFailed(err) {
		return err
	}
	do := "Start it: systemctl start docker. Why it ended: journalctl -u docker -e. The agent goes on by itself"
	if strings.Contains(err.Error(), "permission denied") {
		do = "Let the agent's account open the socket: add it to group docker, and restart the agent"
	}
	return &reconcilers.AwayError{What: "the Docker Engine at " + engine.DaemonHost(), Do: do, Err: err}
}

var errUnsupported = errors.New("the engine would silently ignore it")

// ignored is a field that older engines take without a word and do nothing for.
type ignored struct {
	what string
	api  string // first API version that knows it
	mild bool   // nothing breaks without it
}

// ignoredFields lists the fields of a stack that engines before some API version silently ignore.
func ignoredFields(project *types.Project) []ignored {
	var found []ignored
	add := func(apiVersion string, mild bool, format string, args ...any) {
		found = append(found, ignored{fmt.Sprintf(format, args...), apiVersion, mild})
	}
	for _, name := range sortedKeys(project.Services) {
		service := project.Services[name]
		if check := service.HealthCheck; check != nil && check.StartInterval != nil {
			add("1.44", true, "healthcheck.start_interval of service %s", name)
		}
		if service.MacAddress != "" {
			add("1.44", false, "mac_address of service %s", name)
		}
		if len(service.Annotations) > 0 {
			add("1.43", false, "annotations of service %s", name)
		}
		for key, network := range service.Networks {
			if network == nil {
				continue
			}
			if network.MacAddress != "" {
				add("1.44", false, "mac_address of service %s in network %s", name, key)
			}
			if network.GatewayPriority != 0 {
				add("1.48", false, "gw_priority of service %s in network %s", name, key)
			}
		}
		for _, volume := range service.Volumes {
			if volume.Volume != nil && volume.Volume.Subpath != "" {
				add("1.45", false, "volume.subpath of service %s at %s (the whole volume would be mounted)", name, volume.Target)
			}
			if volume.Bind != nil && volume.Bind.Recursive != "" {
				add("1.44", false, "bind.recursive of service %s at %s", name, volume.Target)
			}
		}
	}
	for _, key := range sortedKeys(project.Networks) {
		if v4 := project.Networks[key].EnableIPv4; v4 != nil && !*v4 {
			add("1.47", false, "enable_ipv4 of network %s", key)
		}
	}
	return found
}

// checkEngine blocks a stack that the engine would run differently than it is written, and notes what it leaves out.
func (r *Reconciler) checkEngine(ctx context.Context, st *sharedState) error {
	fields := ignoredFields(st.model.project)
	if len(fields) == 0 {
		return nil
	}
	ping, err := r.engine.Ping(ctx, client.PingOptions{NegotiateAPIVersion: true})
	if err != nil {
		return fmt.Errorf("ask the engine for its version: %w", err)
	}
	for _, field := range fields {
		if !versions.LessThan(ping.APIVersion, field.api) {
			continue
		}
		if field.mild {
			st.notes = append(st.notes, fmt.Sprintf("this engine (API %s) ignores %s", ping.APIVersion, field.what))
			continue
		}
		st.blocked = &reconcilers.BlockedError{
			Reason: "UnsupportedByEngine", Message: fmt.Sprintf("%s needs API %s, this engine has %s", field.what, field.api, ping.APIVersion),
			Err: errUnsupported, Do: "Remove it from the Compose file or update the engine",
		}
		return nil
	}
	return nil
}
