package desired

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// grapher makes the graph of one instance.
type grapher struct {
	b        *builder
	nodes    []*Node // in the order of the manifest
	index    map[string]*Node
	parts    map[string][]*Node // component -> its nodes
	services map[string][]*Node // part -> its nodes
	setters  map[string][]*Node // secret -> the nodes that set it
	sharers  map[string][]*Node // secret -> the nodes whose servers share it as their key
	blind    bool               // a component's parts are not known (Light)
	pending  []pending
	imports  map[*Node][]Expr // expressions with values of other instances that a node uses
	reported map[string]bool
}

type pending struct {
	from *Node
	need Need
}

// add makes the nodes of a component and collects their needs.
func (g *grapher) add(c *Component, check *Check) {
	if g.index == nil {
		g.index, g.parts, g.services = map[string]*Node{}, map[string][]*Node{}, map[string][]*Node{}
		g.imports = map[*Node][]Expr{}
		g.setters, g.sharers = map[string][]*Node{}, map[string][]*Node{}
	}
	defer g.sets(c, check)
	defer g.shares(c)
	parter, ok := c.Spec.(Parter)
	if !ok {
		n := g.node(c, Part{Needs: referenced(c)})
		g.common(c, check, n)
		return
	}
	parts := parter.Parts(check)
	if len(parts) == 0 {
		g.blind = true
		g.node(c, Part{Needs: importing(c)})
		return
	}
	for _, part := range parts {
		if part.Name == "" || g.index[NodeID(c.Name, part.Name)] != nil {
			continue // the kind's own check reports parts that stand twice
		}
		g.common(c, check, g.node(c, part))
	}
}

// sets remembers which secrets the component sets.
func (g *grapher) sets(c *Component, check *Check) {
	setter, ok := c.Spec.(Setter)
	if !ok {
		return
	}
	for _, secret := range setter.Sets(check) {
		if g.b.secret[secret] {
			g.setters[secret] = append(g.setters[secret], g.parts[c.Name]...)
		}
	}
}

// shares remembers which secrets are the key of the component's servers.
func (g *grapher) shares(c *Component) {
	sharer, ok := c.Spec.(KeySharer)
	if !ok {
		return
	}
	for _, name := range sharer.SharedKeys() {
		if secret := g.b.instance.Secret(name); secret != nil {
			secret.Keyfile = true
			g.sharers[name] = append(g.sharers[name], g.parts[c.Name]...)
		}
	}
}

func (g *grapher) node(c *Component, part Part) *Node {
	n := &Node{ID: NodeID(c.Name, part.Name), Component: c, Part: part.Name, Title: part.Title, Minor: part.Minor, replicas: part.Replicas}
	if part.Name != "" {
		g.services[part.Name] = append(g.services[part.Name], n)
	}
	if n.Title == "" {
		n.Title = part.Name
	}
	if n.Title == "" {
		n.Title = c.Name
	}
	g.nodes = append(g.nodes, n)
	g.index[n.ID] = n
	g.parts[c.Name] = append(g.parts[c.Name], n)
	for _, need := range part.Needs {
		if need.imports != nil {
			g.imports[n] = append(g.imports[n], *need.imports)
			continue
		}
		g.pending = append(g.pending, pending{n, need})
	}
	return n
}

// common adds the needs of a whole component to one of its nodes.
func (g *grapher) common(c *Component, check *Check, n *Node) {
	for _, dep := range c.after {
		component, part, _ := strings.Cut(dep.on, "/")
		g.pending = append(g.pending, pending{n, Need{Component: component, Part: part, Why: "after " + dep.on, Position: dep.at}})
	}
	if needer, ok := c.Spec.(Needer); ok {
		for _, need := range needer.Needs(check) {
			g.pending = append(g.pending, pending{n, need})
		}
	}
}

// referenced turns the outputs and secrets that a component's expressions use into needs.
func referenced(c *Component) []Need {
	var needs []Need
	for _, e := range c.exprs {
		needs = append(needs, e.Needs("uses")...)
	}
	return needs
}

// importing gives of the needs of a component's expressions what they use of other instances.
func importing(c *Component) []Need {
	return slices.DeleteFunc(referenced(c), func(n Need) bool { return n.imports == nil })
}

// link turns needs into edges; those for secrets come last, as they give way to all others.
func (g *grapher) link() {
	slices.SortStableFunc(g.pending, func(a, b pending) int {
		switch {
		case (a.need.Secret == "") == (b.need.Secret == ""):
			return 0
		case a.need.Secret == "":
			return -1
		}
		return 1
	})
	for _, p := range g.pending {
		if p.need.Position.Line == 0 {
			p.need.Position = p.from.Component.Position
		}
		for _, on := range g.resolve(p) {
			if p.need.Single && on.replicas > 1 {
				g.b.fail(p.need.Position, "service %q has %d replicas, and %s: it may have one", on.Part, on.replicas, p.need.Why)
			}
			g.edge(p, on)
		}
	}
}

func (g *grapher) edge(p pending, on *Node) {
	if on == p.from && p.need.Output == "" && p.need.Part == "" {
		return // a part that needs its whole component means the others
	}
	edge := Edge{On: on.ID, Started: p.need.Started, Output: p.need.Output, Secret: p.need.Secret, Why: p.need.Why, at: p.need.Position}
	for i := range p.from.Needs {
		if have := &p.from.Needs[i]; have.On == edge.On && have.Output == edge.Output && have.Secret == edge.Secret {
			if have.Started && !edge.Started {
				*have = edge
			}
			return
		}
	}
	p.from.Needs = append(p.from.Needs, edge)
}

// resolve gives the nodes that a need means, and reports names that do not exist.
func (g *grapher) resolve(p pending) []*Node {
	need := p.need
	switch {
	case need.Secret != "":
		return slices.DeleteFunc(slices.Clone(g.setters[need.Secret]), func(on *Node) bool {
			return on.Component == p.from.Component || g.reaches(on, p.from, map[*Node]bool{})
		})
	case need.Component == "" && need.Part == "":
		return nil
	case need.Component == "":
		return g.service(p)
	case g.parts[need.Component] == nil:
		if isData(g.b, need.Component) || g.b.broken[need.Component] { // a value or a secret, no component
			return nil
		}
		if need.Output == "" { // unknown names in expressions are reported where expressions are resolved
			g.b.fail(need.Position, "%s", g.b.unknownComponent(need.Component, g.b.where(need.Position.File)))
		}
		return nil
	case need.Part == "":
		return g.parts[need.Component]
	}
	if on := g.index[NodeID(need.Component, need.Part)]; on != nil {
		return []*Node{on}
	}
	if g.unknownParts(need.Component) {
		return nil
	}
	g.b.fail(need.Position, "component %q has no service %q%s", need.Component, need.Part, hintAnd(need.Part, g.partNames(need.Component)))
	return nil
}

// reaches says whether a node needs another one, directly or not.
func (g *grapher) reaches(from, to *Node, seen map[*Node]bool) bool {
	seen[from] = true
	return from == to || slices.ContainsFunc(from.Needs, func(e Edge) bool {
		on := g.index[e.On]
		return !seen[on] && g.reaches(on, to, seen)
	})
}

func isData(b *builder, name string) bool {
	_, value := b.instance.Values[name]
	return value || b.secret[name] || b.public[name] || name == "instance" || name == "hub" || name == fleetName || name == instancesName
}

func (g *grapher) service(p pending) []*Node {
	found := g.services[p.need.Part]
	switch len(found) {
	case 1:
		return found
	case 0:
		if !g.blind {
			names := slices.Sorted(maps.Keys(g.services))
			g.b.fail(p.need.Position, "no service %q in %s%s", p.need.Part, g.b.where(p.need.Position.File), hintAnd(p.need.Part, names))
		}
		return nil
	}
	var ids []string
	for _, n := range found {
		ids = append(ids, n.ID)
	}
	g.b.fail(p.need.Position, "service %q is in several components (%s); name one", p.need.Part, strings.Join(ids, ", "))
	return nil
}

// unknownParts says whether a component has parts that were not read.
func (g *grapher) unknownParts(component string) bool {
	nodes := g.parts[component]
	_, parter := nodes[0].Component.Spec.(Parter)
	return parter && len(nodes) == 1 && nodes[0].Part == ""
}

func (g *grapher) partNames(component string) []string {
	var names []string
	for _, n := range g.parts[component] {
		if n.Part != "" {
			names = append(names, n.Part)
		}
	}
	return names
}

// order sorts the nodes so that each stands after what it needs, otherwise in the order of the manifest. Cycles are
// reported; their nodes come last.
func (g *grapher) order() *Graph {
	g.cycles()
	out := &Graph{Holders: map[string][]string{}}
	for _, holders := range []map[string][]*Node{g.setters, g.sharers} {
		for secret, nodes := range holders {
			for _, n := range nodes {
				out.Holders[secret] = append(out.Holders[secret], n.ID)
			}
		}
	}
	done := map[string]bool{}
	for len(out.Nodes) < len(g.nodes) {
		before := len(out.Nodes)
		for _, n := range g.nodes {
			if !done[n.ID] && !slices.ContainsFunc(n.Needs, func(e Edge) bool { return !done[e.On] }) {
				done[n.ID] = true
				out.Nodes = append(out.Nodes, n)
			}
		}
		if len(out.Nodes) == before { // only cycles are left, which were reported
			for _, n := range g.nodes {
				if !done[n.ID] {
					out.Nodes = append(out.Nodes, n)
				}
			}
		}
	}
	return out
}

// cycles reports one cycle for each knot of nodes that wait for one another.
func (g *grapher) cycles() {
	g.reported = map[string]bool{}
	state := map[string]int{}
	var path []*Node
	var visit func(*Node)
	visit = func(n *Node) {
		state[n.ID] = 1
		path = append(path, n)
		for _, e := range n.Needs {
			switch state[e.On] {
			case 0:
				visit(g.index[e.On])
			case 1:
				from := slices.IndexFunc(path, func(p *Node) bool { return p.ID == e.On })
				g.cycle(path[from:])
			}
		}
		path = path[:len(path)-1]
		state[n.ID] = 2
	}
	for _, n := range g.nodes {
		if state[n.ID] == 0 {
			visit(n)
		}
	}
}

func (g *grapher) cycle(path []*Node) {
	if slices.ContainsFunc(path, func(n *Node) bool { return g.reported[n.ID] }) {
		return
	}
	var names []string
	at := path[0].Component.Position
	for i, n := range path {
		g.reported[n.ID] = true
		names = append(names, n.ID)
		next := path[(i+1)%len(path)]
		for _, e := range n.Needs {
			if i == 0 && e.On == next.ID && e.at.Line > 0 {
				at = e.at
			}
		}
	}
	names = append(names, path[0].ID)
	g.b.problems = append(g.b.problems, Problem{at, fmt.Sprintf("cycle: %s", strings.Join(names, " -> "))})
}
