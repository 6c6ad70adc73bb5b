package report

import (
	"cmp"
	"slices"
)

// spot is a place in the drawing: a node, or a bend (node < 0) of an arrow that passes over a layer.
type spot struct {
	node       int
	layer      int
	from       []*spot // in the layer before
	to         []*spot // in the layer after
	x, y, w, h float64 // top left corner, and size
	order      float64
	dashed     bool // what comes in by it is of another instance
}

// sweeps is how often the order within the layers is bettered, forth and back; more changes nothing to the eye.
const sweeps = 8

// layered puts each node into the layer after the last of what it needs, and orders the layers so that few arrows cross
// (Sugiyama, Tagawa and Toda: each spot goes to the mean place of its neighbours). An arrow that others imply is left out.
// Nodes that need each other, which no graph of an instance has, do not hang it.
func layered(g Graph) (layers [][]*spot) {
	index := map[string]int{}
	for i, n := range g {
		index[n.ID] = i
	}
	needs := make([][]int, len(g))
	for i, n := range g {
		for _, need := range n.Needs {
			if on, ok := index[need.On]; ok && on != i && !slices.Contains(needs[i], on) {
				needs[i] = append(needs[i], on)
			}
		}
	}
	depth := depths(needs)
	spots := make([]*spot, len(g))
	put := func(s *spot) *spot {
		for len(layers) <= s.layer {
			layers = append(layers, nil)
		}
		layers[s.layer] = append(layers[s.layer], s)
		return s
	}
	for i := range g {
		spots[i] = put(&spot{node: i, layer: depth[i], dashed: g[i].elsewhere})
	}
	for i := range g {
		for _, on := range needs[i] {
			if depth[on] >= depth[i] || !g[on].elsewhere && implied(needs, i, on) {
				continue
			}
			last := spots[on]
			for layer := depth[on] + 1; layer <= depth[i]; layer++ {
				next := spots[i]
				if layer < depth[i] {
					next = put(&spot{node: -1, layer: layer, dashed: g[on].elsewhere})
				}
				last.to, next.from = append(last.to, next), append(next.from, last)
				last = next
			}
		}
	}
	for i := range sweeps {
		arrange(layers, i%2 == 1)
	}
	return layers
}

// depths gives each node the length of the longest way to it.
func depths(needs [][]int) []int {
	depth := make([]int, len(needs))
	for range needs { // as often as the longest way can be long
		changed := false
		for i := range needs {
			for _, on := range needs[i] {
				if depth[i] <= depth[on] && depth[on]+1 < len(needs) {
					depth[i], changed = depth[on]+1, true
				}
			}
		}
		if !changed {
			break
		}
	}
	return depth
}

// implied says whether something else that the node needs needs the same.
func implied(needs [][]int, node, on int) bool {
	seen := map[int]bool{}
	var reaches func(from int) bool
	reaches = func(from int) bool {
		if seen[from] {
			return false
		}
		seen[from] = true
		return slices.ContainsFunc(needs[from], func(next int) bool { return next == on || reaches(next) })
	}
	return slices.ContainsFunc(needs[node], func(other int) bool { return other != on && other != node && reaches(other) })
}

// arrange orders each layer by the places of the neighbours in the layer before, or after.
func arrange(layers [][]*spot, back bool) {
	place := map[*spot]float64{}
	for _, layer := range layers {
		for i, s := range layer {
			place[s] = float64(i) - float64(len(layer))/2
		}
	}
	for n := range layers {
		layer := layers[n]
		if back {
			layer = layers[len(layers)-1-n]
		}
		for i, s := range layer {
			neighbours := s.from
			if back {
				neighbours = s.to
			}
			s.order = float64(i) - float64(len(layer))/2
			if len(neighbours) > 0 {
				s.order = 0
				for _, other := range neighbours {
					s.order += place[other] / float64(len(neighbours))
				}
			}
		}
		slices.SortStableFunc(layer, func(a, b *spot) int { return cmp.Compare(a.order, b.order) })
		for i, s := range layer {
			place[s] = float64(i) - float64(len(layer))/2
		}
	}
}
