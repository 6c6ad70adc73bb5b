package report_test

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/report"
)

var nameInPicture = regexp.MustCompile(`<text class="name" x="([0-9.]+)" y="[0-9.]+">(?:. )?([a-z0-9]+)</text>`)

// A node stands to the right of all that it needs, an arrow that others imply is not drawn, and a graph that bites its
// tail is drawn all the same.
func TestPictureGoesFromLeftToRight(t *testing.T) {
	needs := func(ids ...string) (list []report.GraphNeed) {
		for _, id := range ids {
			list = append(list, report.GraphNeed{On: id})
		}
		return list
	}
	g := report.Graph{
		{ID: "a"},
		{ID: "b", Needs: needs("a")},
		{ID: "c", Needs: needs("a", "b")},
		{ID: "d", Needs: needs("a", "unknown")},
		{ID: "e", Needs: needs("c", "d", "b")},
	}
	picture := string(g.SVG("x"))
	x := map[string]float64{}
	for _, found := range nameInPicture.FindAllStringSubmatch(picture, -1) {
		at, err := strconv.ParseFloat(found[1], 64)
		require.NoError(t, err)
		x[found[2]] = at
	}
	require.Len(t, x, 5)
	for _, n := range g {
		for _, need := range n.Needs {
			if need.On != "unknown" {
				require.Less(t, x[need.On], x[n.ID], "%s needs %s", n.ID, need.On)
			}
		}
	}
	require.Equal(t, 5, strings.Count(picture, `class="tip"`), "a-b, b-c, a-d, c-e, d-e")

	for i := range g {
		g[i].Needs = append(g[i].Needs, report.GraphNeed{On: g[(i+1)%len(g)].ID})
	}
	require.Contains(t, string(g.SVG("x")), ">e</text>")
	require.Contains(t, string(report.Graph(nil).SVG("nothing")), "</svg>")
}

// What is read of other instances comes in from boxes of their own, by dashed lines with the names of the values.
func TestReadsAreDrawnAsWhatComesFromElsewhere(t *testing.T) {
	usa := report.Read{From: "usa", Component: "identity", Output: "url"}
	g := report.Graph{
		{ID: "identity", Reads: []report.Read{usa, {From: "usa", Component: "identity", Output: "secret"}}},
		{ID: "backend", Needs: []report.GraphNeed{{On: "identity"}}, Reads: []report.Read{usa, {From: report.AllSpokes, Component: "kas", Output: "url"}}},
	}
	require.Equal(t, `identity
    reads usa: identity            url
    reads usa: identity            secret
backend
    needs identity
    reads usa: identity            url
    reads spokes: kas              url
`, g.Text())
	drawn := g.Mermaid()
	require.Equal(t, 1, strings.Count(drawn, `["usa: identity"]`))
	require.Contains(t, drawn, `  n0 -. "url, secret" .-> n2`)
	require.Contains(t, drawn, `  n1 -. "url" .-> n3`)
	require.Contains(t, drawn, "  n2 --> n3\n")
	picture := string(g.SVG("x"))
	require.Equal(t, 4, strings.Count(picture, `class="tip"`))
	require.Equal(t, 1, strings.Count(picture, `class="edge"`))
	require.Equal(t, 5, strings.Count(picture, `class="edge far"`), "three arrows, two of which pass a layer")
	require.Equal(t, 2, strings.Count(picture, `<g class="waiting far">`))
	require.Contains(t, picture, ">usa: identity</text>")
	require.Len(t, g[1].Needs, 1, "drawing changes nothing")
}

func FuzzPicture(f *testing.F) {
	f.Add("a", "b<c>", "\x1b[31m&\u202e", uint8(3))
	f.Fuzz(func(t *testing.T, id, on, said string, members uint8) {
		g := report.Graph{{ID: id, State: said, Reads: []report.Read{{From: said, Component: on, Output: id}}, Needs: []report.GraphNeed{{On: on}}}, {ID: on, Took: said, Needs: []report.GraphNeed{{On: id}}}}
		for i := range members % 8 {
			g[0].Members = append(g[0].Members, report.Member{Host: fmt.Sprint(said, i), State: said, Health: i%2 == 0})
		}
		decoder := xml.NewDecoder(strings.NewReader(string(g.SVG(said))))
		for {
			token, err := decoder.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err)
			if start, ok := token.(xml.StartElement); ok {
				require.NotContains(t, []string{"script", "a", "image", "foreignObject"}, start.Name.Local)
			}
		}
	})
}
