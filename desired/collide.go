package desired

import (
	"fmt"
	"slices"
	"strings"

	"github.com/zclconf/go-cty/cty"
)

// collisions reports what two instances of one host, or two components of one instance, both take.
func (l *loader) collisions() {
	type taker struct {
		b     *builder
		claim Claim
	}
	taken := map[string]taker{}
	for _, b := range l.builders {
		for _, claim := range b.claims {
			key := b.instance.Host + "\x00" + claim.Name
			first, twice := taken[key]
			switch {
			case !twice:
				taken[key] = taker{b, claim}
			case first.b == b && first.claim.By == claim.By:
			default:
				l.fail(b.claimPosition(claim), "%s is taken on host %s by %s (%s)", claimTitle(claim.Name), b.instance.Host,
					claimer(first.b.name, first.claim), first.b.file)
			}
		}
	}
}

// claimer names who has a claim: est/backend.
func claimer(instance string, c Claim) string {
	component, part, _ := strings.Cut(c.By, "\x00")
	if part == "" {
		part = component
	}
	return instance + "/" + part
}

func claimTitle(name string) string {
	what, which, _ := strings.Cut(name, "/")
	switch what {
	case "tcp":
		return "host port " + which
	case "udp":
		return "host port " + which + "/udp"
	case "container":
		return "container name " + which
	case "project":
		return "Compose project " + which
	}
	return fmt.Sprintf("%s %s", what, which)
}

// claimPosition is where a person changes what collides: the claim's own place in the instance's file, else the
// instance's only number for ports, else its host.
func (b *builder) claimPosition(c Claim) Position {
	if c.Position.File == b.file {
		return c.Position
	}
	if strings.HasPrefix(c.Name, "tcp/") || strings.HasPrefix(c.Name, "udp/") {
		if own := b.spec.Values.n; own != nil {
			i := slices.IndexFunc(own.fields, func(f field) bool { return b.instance.Values[f.name].Cty().Type() == cty.Number })
			if i >= 0 {
				return own.fields[i].at
			}
		}
	}
	if host := b.specNode.get("host"); host != nil {
		return host.at
	}
	return b.instance.Position
}
