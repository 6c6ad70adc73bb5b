package main

import (
	"context"
	"maps"
	"net/http"
)

func flowKinds() []*kind {
	return []*kind{flow(), subflow(), execution(), executionConfig(), bindings()}
}

func inFlows(s object, parts ...string) string {
	return inRealm(text(s, "realm_id"), append([]string{"authentication"}, parts...)...)
}

func flow() *kind {
	return &kind{
		name: "authentication_flow",
		fields: parseFields("authentication_flow", `
id          string OC .
realm_id    string RF .
alias       string R  alias
description string O  description
provider_id string O  providerId basic-flow
`),
		fixed:  object{"topLevel": true, "builtIn": false},
		parent: func(s object) string { return inFlows(s, "flows") },
		item:   func(s object) string { return inFlows(s, "flows", text(s, "id")) },
		adopt:  realmAndID,
	}
}

// steps lists what stands in a flow; what stands in its subflows is in the list too.
func steps(ctx context.Context, c *client, s object) ([]object, error) {
	var live []any
	err := c.get(ctx, inFlows(s, "flows", text(s, "parent_flow_alias"), "executions"), &live)
	return objects(live), err
}

func step(ctx context.Context, c *client, s object, is func(object) bool) (object, error) {
	all, err := steps(ctx, c, s)
	if err != nil {
		return nil, err
	}
	for _, one := range all {
		if is(one) {
			return one, nil
		}
	}
	return nil, &apiError{method: http.MethodGet, path: text(s, "parent_flow_alias"), status: http.StatusNotFound, message: "no such step in the flow"}
}

// set writes requirement and priority of a step, which the admin API takes at the flow, not at the step.
func set(ctx context.Context, c *client, k *kind, plan, prior object, is func(object) bool) error {
	one, err := step(ctx, c, plan, is)
	if err != nil {
		return err
	}
	rep := object{}
	maps.Copy(rep, one)
	if err := overlay(k.fields, nil, rep, plan, prior); err != nil {
		return err
	}
	return c.put(ctx, inFlows(plan, "flows", text(plan, "parent_flow_alias"), "executions"), rep)
}

func adoptStep(id string) (object, error) {
	parts, err := split(id, 3, "{realm}/{parent flow alias}/{id}")
	if err != nil {
		return nil, err
	}
	return object{"id": parts[2], "realm_id": parts[0], "parent_flow_alias": parts[1]}, nil
}

// execution: Keycloak makes it bare, so that what is set on it follows in after.
func execution() *kind {
	k := &kind{name: "authentication_execution", fields: parseFields("authentication_execution", `
id                string OC .
realm_id          string RF .
parent_flow_alias string RF .
authenticator     string RF providerId
requirement       string O  requirement DISABLED
priority          number O  loose:priority
`), adopt: adoptStep}
	mine := func(s object) func(object) bool {
		return func(one object) bool { return one["id"] == s["id"] }
	}
	k.create = func(ctx context.Context, c *client, plan object) (string, error) {
		rep := object{"provider": plan["authenticator"]}
		if plan["priority"] != nil {
			rep["priority"] = plan["priority"]
		}
		return c.post(ctx, inFlows(plan, "flows", text(plan, "parent_flow_alias"), "executions", "execution"), rep)
	}
	k.after = func(ctx context.Context, c *client, plan, prior object) error {
		return set(ctx, c, k, plan, prior, mine(plan))
	}
	k.update = func(context.Context, *client, object, object) error { return nil }
	k.read = func(ctx context.Context, c *client, s object) (object, error) { return step(ctx, c, s, mine(s)) }
	k.remove = func(ctx context.Context, c *client, s object) error {
		return c.remove(ctx, inFlows(s, "executions", text(s, "id")), nil)
	}
	return k
}

// subflow: its id is the flow's, while Keycloak removes it, and sets its requirement, by that of its execution.
func subflow() *kind {
	k := &kind{name: "authentication_subflow", fields: parseFields("authentication_subflow", `
id                string OC .
realm_id          string RF .
parent_flow_alias string RF .
alias             string R  displayName
description       string O  description
provider_id       string OF . basic-flow
authenticator     string OF .
requirement       string O  requirement DISABLED
priority          number O  loose:priority
`), adopt: adoptStep}
	mine := func(s object) func(object) bool {
		return func(one object) bool { return one["flowId"] == s["id"] }
	}
	k.create = func(ctx context.Context, c *client, plan object) (string, error) {
		rep := object{"alias": plan["alias"], "type": "basic-flow", "provider": "registration-page-form", "description": text(plan, "description")}
		if kind := text(plan, "provider_id"); kind != "" {
			rep["type"] = kind
		}
		if provider := text(plan, "authenticator"); provider != "" {
			rep["provider"] = provider
		}
		if plan["priority"] != nil {
			rep["priority"] = plan["priority"]
		}
		return c.post(ctx, inFlows(plan, "flows", text(plan, "parent_flow_alias"), "executions", "flow"), rep)
	}
	k.after = func(ctx context.Context, c *client, plan, prior object) error {
		return set(ctx, c, k, plan, prior, mine(plan))
	}
	k.update = func(context.Context, *client, object, object) error { return nil }
	k.read = func(ctx context.Context, c *client, s object) (object, error) { return step(ctx, c, s, mine(s)) }
	k.remove = func(ctx context.Context, c *client, s object) error {
		one, err := step(ctx, c, s, mine(s))
		if err != nil {
			return err
		}
		return c.remove(ctx, inFlows(s, "executions", text(one, "id")), nil)
	}
	return k
}

func executionConfig() *kind {
	return &kind{
		name: "authentication_execution_config",
		fields: parseFields("authentication_execution_config", `
id           string OC .
realm_id     string RF .
execution_id string RF .
alias        string RF alias
config       map    R  config
`),
		parent: func(s object) string { return inFlows(s, "executions", text(s, "execution_id"), "config") },
		item:   func(s object) string { return inFlows(s, "config", text(s, "id")) },
		adopt: func(id string) (object, error) {
			parts, err := split(id, 3, "{realm}/{execution id}/{config id}")
			if err != nil {
				return nil, err
			}
			return object{"id": parts[2], "realm_id": parts[0], "execution_id": parts[1]}, nil
		},
	}
}

// bindings says which flow is for what in a realm. Taken away, the server's own flows are bound again.
func bindings() *kind {
	k := &kind{name: "authentication_bindings", fields: parseFields("authentication_bindings", `
id                         string OC .
realm_id                   string RF .
browser_flow               string OC browserFlow
registration_flow          string OC registrationFlow
direct_grant_flow          string OC directGrantFlow
reset_credentials_flow     string OC resetCredentialsFlow
client_authentication_flow string OC clientAuthenticationFlow
docker_authentication_flow string OC dockerAuthenticationFlow
first_broker_login_flow    string OC firstBrokerLoginFlow
`)}
	k.item = func(s object) string { return inRealm(text(s, "realm_id")) }
	put := func(ctx context.Context, c *client, plan, prior object) error {
		// Only these keys are sent: others write to the realm at the same time.
		rep := object{}
		if err := overlay(k.fields, nil, rep, plan, prior); err != nil {
			return err
		}
		return c.put(ctx, k.item(plan), rep)
	}
	k.create = func(ctx context.Context, c *client, plan object) (string, error) {
		return text(plan, "realm_id"), put(ctx, c, plan, nil)
	}
	k.update = put
	k.remove = func(ctx context.Context, c *client, s object) error {
		return c.put(ctx, k.item(s), object{
			"browserFlow": "browser", "registrationFlow": "registration", "directGrantFlow": "direct grant",
			"resetCredentialsFlow": "reset credentials", "clientAuthenticationFlow": "clients",
			"dockerAuthenticationFlow": "docker auth", "firstBrokerLoginFlow": "first broker login",
		})
	}
	return k
}
