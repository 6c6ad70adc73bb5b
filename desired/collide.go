package desired

import (
	"fmt"
	"slices"
	"strings"

	"github.com/zclconf/go-cty/cty"
)

// collisions reports what two instances of one host, or two components of one instance, both take, and what two of the whole
// fleet do.
func (l *loader) collisions() {
	taken := map[string][]taker{}
	for _, b := range l.builders {
		for _, claim := range b.claims {
			name, address := splitAddress(claim.Name)
			key, where := b.instance.Host+"\x00"+name, " on host "+b.instance.Host
			if claim.Everywhere {
				key, where = "\x00"+name, ""
			}
			i := slices.IndexFunc(taken[key], func(t taker) bool { return overlap(t.address, address) })
			if i < 0 {
				taken[key] = append(taken[key], taker{b, claim, address})
				continue
			}
			if first := taken[key][i]; first.b != b || first.claim.By != claim.By {
				l.fail(b.claimPosition(claim), "%s is taken%s by %s (%s)", claimTitle(name), where,
					claimer(first.b.name, first.claim), first.b.file)
			}
		}
	}
}

type taker struct {
	b       *builder
	claim   Claim
	address string
}

// splitAddress takes the address out of a port's claim: tcp/127.0.0.1:4011 is tcp/4011 at 127.0.0.1.
func splitAddress(claim string) (name, address string) {
	protocol, rest, _ := strings.Cut(claim, "/")
	if protocol != "tcp" && protocol != "udp" {
		return claim, ""
	}
	i := strings.LastIndexByte(rest, ':')
	if i < 0 {
		return claim, ""
	}
	return protocol + "/" + rest[i+1:], strings.Trim(rest[:i], "[]")
}

// overlap says whether two addresses of one port exclude each other.
func overlap(a, b string) bool {
	everywhere := func(address string) bool { return address == "" || address == "0.0.0.0" || address == "::" }
	return a == b || everywhere(a) || everywhere(b)
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
	case "state":
		return "the place of a Terraform state, " + which + ","
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
