package desired

import (
	"fmt"
	"slices"
	"strings"
)

// place is a component of an instance.
type place struct{ instance, component string }

// wants is an output that a component needs before it can be made.
type wants struct {
	of   place
	name string // as its expression has it
	at   Position
	far  bool // it is another instance's
}

// checkKnots refuses values that need themselves through other instances: a component is made once all that it uses is
// known, and gives its outputs then, so that of those which need each other none ever is. A for over fleet.spokes waits for
// nothing and makes no knot. Of a component with parts it is not known which of them an output needs: it is passed over.
func (l *loader) checkKnots() {
	needs := map[place][]wants{}
	for _, b := range l.builders {
		for _, i := range b.instance.imports {
			if i.Optional {
				continue
			}
			for _, id := range i.Nodes {
				if !strings.Contains(id, "/") {
					from := place{b.name, id}
					needs[from] = append(needs[from], wants{place{i.Instance, i.Component}, i.String(), i.Position, true})
				}
			}
		}
		if len(b.instance.imports) == 0 {
			continue // a knot comes in and goes out by an import
		}
		for _, n := range b.instance.Graph.Nodes {
			for _, e := range n.Needs {
				if n.Part == "" && e.Output != "" && !strings.Contains(e.On, "/") {
					from := place{b.name, n.Component.Name}
					needs[from] = append(needs[from], wants{place{b.name, e.On}, e.On + "." + e.Output, e.at, false})
				}
			}
		}
	}
	l.reportKnots(needs)
}

// reportKnots reports one way around each knot, at the import by which it comes in.
func (l *loader) reportKnots(needs map[place][]wants) {
	state := map[place]int{} // 1: on the way, 2: seen
	var way []wants
	var visit func(place)
	visit = func(from place) {
		state[from] = 1
		for _, next := range needs[from] {
			way = append(way, next)
			switch state[next.of] {
			case 0:
				visit(next.of)
			case 1:
				start := slices.IndexFunc(way, func(w wants) bool { return w.of == next.of })
				if start == len(way)-1 { // it is where the way began
					start = -1
				}
				l.reportKnot(way[start+1:])
			}
			way = way[:len(way)-1]
		}
		state[from] = 2
	}
	for _, b := range l.builders {
		for _, c := range b.instance.Components {
			if at := (place{b.name, c.Name}); state[at] == 0 {
				visit(at)
			}
		}
	}
}

func (l *loader) reportKnot(knot []wants) {
	first := slices.IndexFunc(knot, func(w wants) bool { return w.far })
	if first < 0 {
		return // within one instance: reported as a cycle of its graph
	}
	knot = append(slices.Clone(knot[first:]), knot[:first]...)
	var steps []string
	for i, w := range knot {
		maker := knot[(i+len(knot)-1)%len(knot)].of
		steps = append(steps, fmt.Sprintf("%s of %s needs %s", maker.component, maker.instance, w.name))
	}
	l.fail(knot[0].at, "%s: none of them would ever be made. Move what needs the other's value into a component of its own, or ask for it by a for over fleet.spokes, which waits for nothing",
		strings.Join(steps, ", "))
}
