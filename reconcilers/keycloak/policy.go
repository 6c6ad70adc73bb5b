package keycloak

import (
	"path"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

// What a module may do beyond talking to Keycloak is for each host to say, in its own configuration and not in the fleet
// repository: who may merge must not by that be able to run commands on the hosts. The words of terraform.allow:
//
//	provisioners ........... local-exec, remote-exec, file
//	external ............... data sources that run a program, or read the state of another module
//	files .................. reading files of the host outside of the module's folder
//	provider:NAMESPACE/NAME  a provider besides keycloak/keycloak
//	module:PREFIX .......... modules whose source begins so; what is in them is not looked at
const (
	allowProvisioners = "provisioners"
	allowExternal     = "external"
	allowFiles        = "files"
	allowProvider     = "provider:"
	allowModule       = "module:"
)

// usual are the providers that every host allows. The second one is part of Terraform itself.
var usual = []string{"keycloak/keycloak", builtin}

const builtin = "terraform.io/builtin/terraform"

// allowance is what a host allows: words as above, or desired.AllowAll.
type allowance []string

func (a allowance) passes(f finding) bool {
	if f.need == "" {
		return false
	}
	return slices.ContainsFunc(a, func(word string) bool {
		source, isModule := strings.CutPrefix(word, allowModule)
		return word == desired.AllowAll || word == f.need || isModule && strings.HasPrefix(f.need, allowModule+source) ||
			word == allowExternal && f.need == allowProvider+"hashicorp/external"
	})
}

// told is a finding with the way out.
func (f finding) told() string {
	if f.need == "" {
		return f.text
	}
	return f.text + `. Take it out, or let the host allow it, in its agent.yaml: terraform: {allow: ["` + f.need + `"]}`
}

// lawful gives a BlockedError when the module has something that this host does not allow. A revision with such a module is
// refused before; this holds whatever way it came.
func (r *Reconciler) lawful(s *Spec, module moduleFiles) error {
	var told []string
	for _, f := range module.findings {
		if !allowance(r.deps.Terraform.Allow).passes(f) {
			told = append(told, f.at.String()+": "+f.told())
		}
	}
	if len(told) == 0 {
		return nil
	}
	return &reconcilers.BlockedError{
		Reason: "ModuleRefused", Message: "the Terraform module " + s.Module + " is not run: " + strings.Join(told[:min(5, len(told))], "; "),
		Do: "Correct it in the fleet repository and merge; dive-agent validate lists all of it",
	}
}

// requiredProviders reads where the module's providers come from.
func (r *moduleReader) requiredProviders(s *scope, body hcl.Body) {
	content, _, _ := body.PartialContent(&hcl.BodySchema{Blocks: []hcl.BlockHeaderSchema{{Type: "required_providers"}}})
	for _, block := range content.Blocks {
		attributes, diags := block.Body.JustAttributes()
		r.diagnostics("", diags)
		for _, name := range sortedKeys(attributes) {
			source := normal(sourceOf(attributes[name].Expr, name))
			s.providers[name] = source
			if !slices.Contains(usual, source) {
				r.find(attributes[name].Range, allowProvider+source, "provider %s is none that modules may use (they may use keycloak/keycloak)", source)
			}
		}
	}
}

// sourceOf reads the source of one entry of required_providers; without one it is of that name by hashicorp.
func sourceOf(entry hcl.Expression, name string) string {
	pairs, _ := hcl.ExprMap(entry)
	for _, pair := range pairs {
		if plainText(pair.Key) == "source" {
			return plainText(pair.Value)
		}
	}
	return "hashicorp/" + name
}

// plainText gives a text that is written as one, or a bare word; else "".
func plainText(expr hcl.Expression) string {
	if word := hcl.ExprAsKeyword(expr); word != "" {
		return word
	}
	v, diags := expr.Value(nil)
	if diags.HasErrors() || v.IsNull() || !v.IsKnown() || v.Type() != cty.String {
		return ""
	}
	return v.AsString()
}

// normal is a provider's source without the registry that Terraform, or OpenTofu, takes by itself.
func normal(source string) string {
	source = strings.ToLower(source)
	for _, registry := range []string{"registry.terraform.io/", "registry.opentofu.org/"} {
		source = strings.TrimPrefix(source, registry)
	}
	return source
}

// judge looks for what a block of the module may not do.
func (r *moduleReader) judge(s *scope, block *hcl.Block) {
	switch block.Type {
	case "terraform":
		content, _, _ := block.Body.PartialContent(&hcl.BodySchema{Blocks: []hcl.BlockHeaderSchema{{Type: "encryption"}}})
		for _, encryption := range content.Blocks {
			r.find(encryption.DefRange, "", "the module encrypts its state, which the agent keeps, copies and reads itself; what encrypts it may also be a program")
		}
	case "provider":
		r.implied(s, block, block.Labels[0])
	case "resource", "removed":
		r.provisioners(block)
	case "check":
		content, _, _ := block.Body.PartialContent(&hcl.BodySchema{Blocks: []hcl.BlockHeaderSchema{{Type: "data", LabelNames: []string{"type", "name"}}}})
		for _, data := range content.Blocks {
			r.judge(s, data)
		}
	case "module":
		r.called(s, block)
	case "data":
		switch block.Labels[0] {
		case "external":
			r.find(block.DefRange, allowExternal, "data source external.%s runs a program on the host", block.Labels[1])
			return
		case "terraform_remote_state":
			r.find(block.DefRange, allowExternal, "data source terraform_remote_state.%s reads the state of another module", block.Labels[1])
		}
	}
	switch block.Type {
	case "resource", "data", "ephemeral", "action":
		name, _, _ := strings.Cut(block.Labels[0], "_")
		r.implied(s, block, name)
	}
}

// implied looks at a provider that is used and that required_providers may not name: then it is hashicorp's of that name.
func (r *moduleReader) implied(s *scope, block *hcl.Block, name string) {
	if _, told := s.providers[name]; told || name == "terraform" {
		return
	}
	source := "hashicorp/" + name
	if name == "keycloak" {
		r.find(block.DefRange, allowProvider+source, `%s needs a provider that the module does not name: without terraform { required_providers { keycloak = { source = "keycloak/keycloak" } } } it would be hashicorp/keycloak, which does not exist`, strings.Join(block.Labels, "."))
	} else {
		r.find(block.DefRange, allowProvider+source, "%s is of provider %s, which is none that modules may use (they may use keycloak/keycloak)", strings.Join(block.Labels, "."), source)
	}
	s.providers[name] = source // told once
}

func (r *moduleReader) provisioners(block *hcl.Block) {
	content, _, _ := block.Body.PartialContent(&hcl.BodySchema{Blocks: []hcl.BlockHeaderSchema{{Type: "provisioner", LabelNames: []string{"type"}}}})
	for _, p := range content.Blocks {
		owner := block.Type
		if len(block.Labels) == 2 {
			owner = strings.Join(block.Labels, ".")
		}
		r.find(p.DefRange, allowProvisioners, "%s has a provisioner %q: modules run no commands", owner, p.Labels[0])
	}
}

// called follows the call of another module.
func (r *moduleReader) called(s *scope, block *hcl.Block) {
	content, _, _ := block.Body.PartialContent(&hcl.BodySchema{Attributes: []hcl.AttributeSchema{{Name: "source"}}})
	attribute := content.Attributes["source"]
	if attribute == nil {
		r.find(block.DefRange, "", "module %s has no source", block.Labels[0])
		return
	}
	source := plainText(attribute.Expr)
	switch {
	case source == "":
		r.find(attribute.Range, "", "source of module %s must be a plain text", block.Labels[0])
	case !strings.HasPrefix(source, "./") && !strings.HasPrefix(source, "../"):
		r.find(attribute.Range, allowModule+source, "module %s comes from %q, outside of the repository", block.Labels[0], source)
	default:
		folder := path.Join(s.folder, source)
		switch {
		case folder != r.root && !strings.HasPrefix(folder, r.root+"/") && r.root != ".":
			r.find(attribute.Range, "", "module %s comes from %q, outside of the module's folder %s: only what is below it is taken along", block.Labels[0], source, r.root)
		case !r.read[folder] && !r.folder(folder):
			r.find(attribute.Range, "", "module %s: there is no .tf file in %s", block.Labels[0], folder)
		}
	}
}
