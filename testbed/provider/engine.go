package main

import (
	"context"
	"fmt"
	"maps"

	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/tfsdk"
)

// kind describes a resource type. The functions that are nil are the usual ones: post to parent, get, put
// and delete at item.
type kind struct {
	name   string // without the provider's prefix
	fields []field
	blocks []block
	fixed  object // constant parts of the representation

	parent func(state object) string // where a new one is posted
	item   func(state object) string // where one is

	// identify gives the id of one just posted; location is the last segment of the answer's Location.
	identify func(ctx context.Context, c *client, state object, location string) (string, error)
	// derive completes a representation that is about to be sent.
	derive func(rep, plan object)
	// extend puts what is read elsewhere into the representation, under keys that begin with @.
	extend func(ctx context.Context, c *client, rep, state object) error
	// after runs when one was created or updated; prior is nil on create.
	after func(ctx context.Context, c *client, plan, prior object) error
	// adopt gives the part of the state that an import id says.
	adopt func(id string) (object, error)

	create func(ctx context.Context, c *client, plan object) (string, error)
	read   func(ctx context.Context, c *client, state object) (object, error) // the representation
	update func(ctx context.Context, c *client, plan, prior object) error
	remove func(ctx context.Context, c *client, state object) error
	// settle takes over making the state from the representation.
	settle func(rep, prior object) object
}

func (k *kind) doCreate(ctx context.Context, c *client, plan object) (string, error) {
	if k.create != nil {
		return k.create(ctx, c, plan)
	}
	rep := object{}
	maps.Copy(rep, k.fixed)
	if err := overlay(k.fields, k.blocks, rep, plan, nil); err != nil {
		return "", err
	}
	if k.derive != nil {
		k.derive(rep, plan)
	}
	location, err := c.post(ctx, k.parent(plan), rep)
	if err != nil || k.identify == nil {
		return location, err
	}
	return k.identify(ctx, c, plan, location)
}

func (k *kind) doRead(ctx context.Context, c *client, state object) (object, error) {
	rep := object{}
	var err error
	if k.read != nil {
		rep, err = k.read(ctx, c, state)
	} else {
		err = c.get(ctx, k.item(state), &rep)
	}
	if err == nil && k.extend != nil {
		err = k.extend(ctx, c, rep, state)
	}
	return rep, err
}

func (k *kind) doUpdate(ctx context.Context, c *client, plan, prior object) error {
	if k.update != nil {
		return k.update(ctx, c, plan, prior)
	}
	rep := object{}
	if err := c.get(ctx, k.item(prior), &rep); err != nil {
		return err
	}
	if err := overlay(k.fields, k.blocks, rep, plan, prior); err != nil {
		return err
	}
	if k.derive != nil {
		k.derive(rep, plan)
	}
	return c.put(ctx, k.item(prior), rep)
}

func (k *kind) doRemove(ctx context.Context, c *client, state object) error {
	if k.remove != nil {
		return k.remove(ctx, c, state)
	}
	return c.remove(ctx, k.item(state), nil)
}

func (k *kind) doSettle(rep, prior object) object {
	if k.settle != nil {
		return k.settle(rep, prior)
	}
	return observe(k.fields, k.blocks, rep, prior)
}

// engine is a resource of any kind.
type engine struct {
	kind   *kind
	client *client
}

var (
	_ resource.ResourceWithConfigure   = (*engine)(nil)
	_ resource.ResourceWithImportState = (*engine)(nil)
)

func (e *engine) Metadata(_ context.Context, req resource.MetadataRequest, resp *resource.MetadataResponse) {
	resp.TypeName = req.ProviderTypeName + "_" + e.kind.name
}

func (e *engine) Schema(_ context.Context, _ resource.SchemaRequest, resp *resource.SchemaResponse) {
	resp.Schema = schemaOf(e.kind)
}

func (e *engine) Configure(_ context.Context, req resource.ConfigureRequest, _ *resource.ConfigureResponse) {
	e.client, _ = req.ProviderData.(*client)
}

func (e *engine) Create(ctx context.Context, req resource.CreateRequest, resp *resource.CreateResponse) {
	plan, err := toObject(req.Plan.Raw)
	if err == nil {
		err = e.made(ctx, plan, &resp.State)
	}
	e.report(&resp.Diagnostics, err)
}

// made creates and records. Once the thing is there its id is in the state, whatever fails after that, so
// that nothing is lost and Terraform marks it as tainted.
func (e *engine) made(ctx context.Context, plan object, state *tfsdk.State) error {
	id, err := e.kind.doCreate(ctx, e.client, plan)
	if err != nil {
		return err
	}
	plan["id"] = id
	if err := e.record(state, e.kind.doSettle(object{}, plan), plan); err != nil {
		return err
	}
	if e.kind.after != nil {
		if err := e.kind.after(ctx, e.client, plan, nil); err != nil {
			return err
		}
	}
	return e.complete(ctx, plan, state)
}

// complete fills in what only the server knows. What the plan says stays as the plan says it.
func (e *engine) complete(ctx context.Context, plan object, state *tfsdk.State) error {
	rep, err := e.kind.doRead(ctx, e.client, plan)
	if err != nil {
		return err
	}
	return e.record(state, e.kind.doSettle(rep, plan), plan)
}

// record writes a state: what the plan knows, and of the rest what was seen.
func (e *engine) record(state *tfsdk.State, seen, plan object) error {
	all := object{}
	for name, v := range plan {
		all[name] = known(v, seen[name])
	}
	raw, err := fromGo(state.Raw.Type(), all)
	if err == nil {
		state.Raw = raw
	}
	return err
}

// known puts what was seen in the place of what was not known.
func known(v, seen any) any {
	switch planned := v.(type) {
	case unknownValue:
		return seen
	case object:
		there, _ := seen.(object)
		all := object{}
		for name, m := range planned {
			all[name] = known(m, there[name])
		}
		return all
	case []any:
		there, _ := seen.([]any)
		all := make([]any, len(planned))
		for i, m := range planned {
			var s any
			if i < len(there) {
				s = there[i]
			}
			all[i] = known(m, s)
		}
		return all
	}
	return v
}

func (e *engine) Read(ctx context.Context, req resource.ReadRequest, resp *resource.ReadResponse) {
	prior, err := toObject(req.State.Raw)
	if err != nil {
		e.report(&resp.Diagnostics, err)
		return
	}
	rep, err := e.kind.doRead(ctx, e.client, prior)
	if notFound(err) {
		resp.State.RemoveResource(ctx)
		return
	}
	if err == nil {
		state := e.kind.doSettle(rep, prior)
		state["id"] = prior["id"]
		resp.State.Raw, err = fromGo(req.State.Raw.Type(), state)
	}
	e.report(&resp.Diagnostics, err)
}

func (e *engine) Update(ctx context.Context, req resource.UpdateRequest, resp *resource.UpdateResponse) {
	plan, err := toObject(req.Plan.Raw)
	if err != nil {
		e.report(&resp.Diagnostics, err)
		return
	}
	prior, err := toObject(req.State.Raw)
	if err == nil {
		plan["id"] = prior["id"]
		err = e.kind.doUpdate(ctx, e.client, plan, prior)
	}
	if err == nil && e.kind.after != nil {
		err = e.kind.after(ctx, e.client, plan, prior)
	}
	if err == nil {
		err = e.complete(ctx, plan, &resp.State)
	}
	e.report(&resp.Diagnostics, err)
}

func (e *engine) Delete(ctx context.Context, req resource.DeleteRequest, resp *resource.DeleteResponse) {
	state, err := toObject(req.State.Raw)
	if err == nil {
		err = e.kind.doRemove(ctx, e.client, state)
	}
	if notFound(err) {
		err = nil
	}
	e.report(&resp.Diagnostics, err)
}

func (e *engine) ImportState(ctx context.Context, req resource.ImportStateRequest, resp *resource.ImportStateResponse) {
	if e.kind.adopt == nil {
		e.report(&resp.Diagnostics, fmt.Errorf("resource keycloak_%s doesn't support import", e.kind.name))
		return
	}
	state, err := e.kind.adopt(req.ID)
	if err == nil {
		resp.State.Raw, err = fromGo(resp.State.Raw.Type(), state)
	}
	e.report(&resp.Diagnostics, err)
}

func (e *engine) report(diagnostics *diag.Diagnostics, err error) {
	if err != nil {
		diagnostics.AddError(err.Error(), "keycloak_"+e.kind.name)
	}
}
