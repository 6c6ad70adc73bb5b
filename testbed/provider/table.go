package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/hashicorp/terraform-plugin-framework-validators/listvalidator"
	"github.com/hashicorp/terraform-plugin-framework-validators/setvalidator"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/boolplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/int64planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/mapplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/setplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/types"
)

// A table has one attribute a line: name, type (string, bool, number, set, map), flags, wire, and for some a
// default.
//
// Flags: R required, O optional, C computed, S sensitive, F a change makes a new resource.
//
// Wire says where the value stands in the admin API's JSON, keys separated by "/", and before a colon how:
//
//	text    booleans and numbers are strings there, as in Keycloak's config and attributes maps
//	secs    a duration ("15m0s") here, a number of seconds there
//	hash    a set here, one string with ## between the elements there
//	lists   a map of strings here, a map of lists there, ## between the elements
//	own     of the map there, only the keys that stand here are ours
//	masked  cannot be read back
//	loose   null here means: whatever is there
//
// A wire that begins with @ is not part of the representation: the type's functions read and write it.
// A wire of "-" is not supported, and "." is handled by the type's functions alone.
//
// The default is what null means. It is not written into the state: null stays null for as long as the live
// value is the default ("" where the server would put another on its own), so that the schema is the published provider's to the letter.
type field struct {
	name, kind                              string
	required, optional, computed, sensitive bool
	replace                                 bool
	how                                     map[string]bool
	wire                                    string
	standard                                any // the default, nil for none
}

// block is a nested block: at most one of it (max 1), or as many as one likes, which the type's functions
// handle.
type block struct {
	name   string
	set    bool
	max    int
	flag   field // written true when the block is there, false when it went away; none when its wire is empty
	fields []field
	blocks []block
}

const replaceText = "A change makes a new resource."

// parseFields reads a table with a field a line: name, type, flags (R required, O optional, C computed, S sensitive, F a
// change replaces), wire, default. A table that cannot be read is a mistake of this program, and a panic.
func parseFields(of, table string) []field {
	var fields []field
	for _, line := range strings.Split(strings.TrimSpace(table), "\n") {
		parts := strings.Fields(line)
		if len(parts) < 4 {
			panic(fmt.Sprintf("table %s: %q has fewer than 4 columns", of, line))
		}
		f := field{name: parts[0], kind: parts[1], how: map[string]bool{}}
		for _, flag := range parts[2] {
			switch flag {
			case 'R':
				f.required = true
			case 'O':
				f.optional = true
			case 'C':
				f.computed = true
			case 'S':
				f.sensitive = true
			case 'F':
				f.replace = true
			default:
				panic(fmt.Sprintf("table %s: %q has an unknown flag", of, line))
			}
		}
		f.wire = parts[3]
		if how, at, found := strings.Cut(f.wire, ":"); found {
			f.wire = at
			for _, h := range strings.Split(how, ",") {
				f.how[h] = true
			}
		}
		if f.wire == "-" {
			f.wire = ""
		}
		if len(parts) > 4 {
			f.standard = parseDefault(f.kind, strings.Join(parts[4:], " "))
		}
		fields = append(fields, f)
	}
	return fields
}

func parseDefault(kind, text string) any {
	switch kind {
	case "bool":
		return text == "true"
	case "number":
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			panic(err)
		}
		return n
	case "set":
		var elements []any
		for _, e := range strings.Split(text, ",") {
			elements = append(elements, e)
		}
		return elements
	default:
		return strings.Trim(text, `"`)
	}
}

// schemaOf makes the framework's schema of a resource type.
func schemaOf(k *kind) schema.Schema {
	return schema.Schema{Attributes: attributesOf(k.fields), Blocks: blocksOf(k.blocks)}
}

func attributesOf(fields []field) map[string]schema.Attribute {
	all := map[string]schema.Attribute{}
	for _, f := range fields {
		all[f.name] = attributeOf(f)
	}
	return all
}

func attributeOf(f field) schema.Attribute {
	keep := f.computed
	switch f.kind {
	case "bool":
		a := schema.BoolAttribute{Required: f.required, Optional: f.optional, Computed: f.computed, Sensitive: f.sensitive}
		if keep {
			a.PlanModifiers = append(a.PlanModifiers, boolplanmodifier.UseStateForUnknown())
		}
		if f.replace {
			standard, _ := f.standard.(bool)
			a.PlanModifiers = append(a.PlanModifiers, boolplanmodifier.RequiresReplaceIf(
				func(_ context.Context, req planmodifier.BoolRequest, resp *boolplanmodifier.RequiresReplaceIfFuncResponse) {
					resp.RequiresReplace = !req.ConfigValue.IsNull() && (!req.StateValue.IsNull() || req.PlanValue.ValueBool() != standard)
				}, replaceText, replaceText))
		}
		return a
	case "number":
		a := schema.Int64Attribute{Required: f.required, Optional: f.optional, Computed: f.computed, Sensitive: f.sensitive}
		if keep {
			a.PlanModifiers = append(a.PlanModifiers, int64planmodifier.UseStateForUnknown())
		}
		if f.replace {
			a.PlanModifiers = append(a.PlanModifiers, int64planmodifier.RequiresReplaceIfConfigured())
		}
		return a
	case "set":
		a := schema.SetAttribute{Required: f.required, Optional: f.optional, Computed: f.computed, Sensitive: f.sensitive, ElementType: types.StringType}
		if keep {
			a.PlanModifiers = append(a.PlanModifiers, setplanmodifier.UseStateForUnknown())
		}
		return a
	case "map":
		a := schema.MapAttribute{Required: f.required, Optional: f.optional, Computed: f.computed, Sensitive: f.sensitive, ElementType: types.StringType}
		if keep {
			a.PlanModifiers = append(a.PlanModifiers, mapplanmodifier.UseStateForUnknown())
		}
		return a
	case "string":
		a := schema.StringAttribute{Required: f.required, Optional: f.optional, Computed: f.computed, Sensitive: f.sensitive}
		if keep {
			a.PlanModifiers = append(a.PlanModifiers, stringplanmodifier.UseStateForUnknown())
		}
		if f.replace {
			standard, _ := f.standard.(string)
			a.PlanModifiers = append(a.PlanModifiers, stringplanmodifier.RequiresReplaceIf(
				func(_ context.Context, req planmodifier.StringRequest, resp *stringplanmodifier.RequiresReplaceIfFuncResponse) {
					// A null in the state means the default, so writing the default down changes nothing.
					resp.RequiresReplace = !req.ConfigValue.IsNull() && (!req.StateValue.IsNull() || req.PlanValue.ValueString() != standard)
				}, replaceText, replaceText))
		}
		return a
	default:
		panic(fmt.Sprintf("field %s has an unknown type %s", f.name, f.kind))
	}
}

func blocksOf(blocks []block) map[string]schema.Block {
	all := map[string]schema.Block{}
	for _, b := range blocks {
		object := schema.NestedBlockObject{Attributes: attributesOf(b.fields), Blocks: blocksOf(b.blocks)}
		if b.set {
			nested := schema.SetNestedBlock{NestedObject: object}
			if b.max > 0 {
				nested.Validators = append(nested.Validators, setvalidator.SizeAtMost(b.max))
			}
			all[b.name] = nested
			continue
		}
		nested := schema.ListNestedBlock{NestedObject: object}
		if b.max > 0 {
			nested.Validators = append(nested.Validators, listvalidator.SizeAtMost(b.max))
		}
		all[b.name] = nested
	}
	return all
}
