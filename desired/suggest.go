package desired

import (
	"slices"
	"strings"
)

// suggest gives `, did you mean "x"?` when one of the names is near, else nothing.
func suggest(name string, names []string) string {
	if near := nearest(name, names); near != "" {
		return `, did you mean "` + near + `"?`
	}
	return ""
}

// Suggest is for kinds: `, did you mean "x"?` when one of the names is near, else nothing.
func Suggest(name string, names []string) string { return suggest(name, names) }

// nearest gives the name that is at most a third of its length away in insertions, removals, replacements and swaps
// of neighbours, or "".
func nearest(name string, names []string) string {
	if len(name) > 100 {
		return ""
	}
	best, bestDistance := "", 0
	lower := strings.ToLower(name)
	for _, candidate := range slices.Sorted(slices.Values(names)) {
		if len(candidate) > 100 || candidate == name {
			continue
		}
		d := distance(lower, strings.ToLower(candidate))
		if d <= max(1, min(len(name), len(candidate))/3) && (best == "" || d < bestDistance) {
			best, bestDistance = candidate, d
		}
	}
	return best
}

// distance is the optimal string alignment distance.
func distance(a, b string) int {
	x, y := []rune(a), []rune(b)
	var before []int
	row := make([]int, len(y)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(x); i++ {
		next := make([]int, len(y)+1)
		next[0] = i
		for j := 1; j <= len(y); j++ {
			cost := 1
			if x[i-1] == y[j-1] {
				cost = 0
			}
			next[j] = min(row[j]+1, next[j-1]+1, row[j-1]+cost)
			if i > 1 && j > 1 && x[i-1] == y[j-2] && x[i-2] == y[j-1] {
				next[j] = min(next[j], before[j-2]+1)
			}
		}
		before, row = row, next
	}
	return row[len(y)]
}

// listed joins names for a message, or says that there is none.
func listed(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	const most = 12
	if len(names) > most {
		return strings.Join(names[:most], ", ") + ", ..."
	}
	return strings.Join(names, ", ")
}
