package compose

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/moby/client"
	"github.com/moby/moby/client/pkg/versions"

	"dive-agent/reconcilers"
)

// ignored is a field that an engine takes without a word and does nothing for.
type ignored struct {
	what  string
	api   string // first API version that knows it; empty: none of an engine without Swarm
	old   bool   // it is for hosts with control groups of version 1
	mild  bool   // nothing breaks without it
	since string // what else is to be said of it
}

// ignoredFields lists the fields of a stack that engines before some API version silently ignore.
func ignoredFields(project *types.Project) []ignored {
	var found []ignored
	add := func(apiVersion string, mild bool, format string, args ...any) {
		found = append(found, ignored{what: fmt.Sprintf(format, args...), api: apiVersion, mild: mild})
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
	found = append(found, ignoredAnywhere(project)...)
	for _, key := range sortedKeys(project.Networks) {
		if v4 := project.Networks[key].EnableIPv4; v4 != nil && !*v4 {
			add("1.47", false, "enable_ipv4 of network %s", key)
		}
	}
	return found
}

// ignoredAnywhere lists the fields that need Swarm or older control groups, or that a mounted file cannot have.
func ignoredAnywhere(project *types.Project) []ignored {
	var found []ignored
	for _, name := range sortedKeys(project.Services) {
		service := project.Services[name]
		if d := service.Deploy; d != nil {
			for _, key := range []struct {
				name string
				set  bool
			}{
				{"mode", d.Mode == "global"},
				{"endpoint_mode", d.EndpointMode != ""},
				{"labels", len(d.Labels) > 0},
				{"placement", len(d.Placement.Constraints)+len(d.Placement.Preferences) > 0},
				{"rollback_config", d.RollbackConfig != nil},
			} {
				if key.set {
					found = append(found, ignored{what: "deploy." + key.name + " of service " + name, mild: true, since: "it is for Swarm"})
				}
			}
		}
		for _, used := range service.Configs {
			if project.Configs[used.Source].File != "" && (used.UID != "" || used.GID != "" || used.Mode != nil) {
				found = append(found, ownedFile("config", used.Source, name))
			}
		}
		for _, used := range service.Secrets {
			if project.Secrets[used.Source].File != "" && (used.UID != "" || used.GID != "" || used.Mode != nil) {
				found = append(found, ownedFile("secret", used.Source, name))
			}
		}
		if service.MemSwappiness != 0 {
			found = append(found, ignored{what: "mem_swappiness of service " + name, old: true})
		}
		if service.OomKillDisable {
			found = append(found, ignored{what: "oom_kill_disable of service " + name, old: true})
		}
	}
	return found
}

func ownedFile(kind, source, service string) ignored {
	return ignored{
		what: fmt.Sprintf("uid, gid and mode of %s %s in service %s", kind, source, service), mild: true,
		since: "a file is mounted with the owner and mode that it has: give the instance's secret a file with mode and owner",
	}
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
	groups := ""
	if slices.ContainsFunc(fields, func(f ignored) bool { return f.old }) {
		info, err := r.engine.Info(ctx, client.InfoOptions{})
		if err != nil {
			return fmt.Errorf("ask the engine for its control groups: %w", err)
		}
		groups = info.Info.CgroupVersion
	}
	var refused []string
	for _, field := range fields {
		switch {
		case field.old:
			if groups == "2" {
				refused = append(refused, field.what+" works with control groups of version 1, and this host has version 2")
			}
		case field.api != "" && !versions.LessThan(ping.APIVersion, field.api):
		case field.mild:
			note := fmt.Sprintf("this engine (API %s) ignores %s", ping.APIVersion, field.what)
			if field.since != "" {
				note = "the engine ignores " + field.what + ": " + field.since
			}
			st.notes = append(st.notes, note)
		default:
			refused = append(refused, fmt.Sprintf("%s needs API %s, this engine has %s", field.what, field.api, ping.APIVersion))
		}
	}
	if len(refused) > 0 {
		st.blocked = &reconcilers.BlockedError{
			Reason: "UnsupportedByEngine", Message: strings.Join(refused, "; "),
			Err: errUnsupported, Do: "Remove it from the Compose file or update the engine",
		}
	}
	return nil
}
