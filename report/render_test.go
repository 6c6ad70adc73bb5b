package report_test

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"dive-agent/report"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, got, 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), string(got), "differs from %s; run with -update when it is meant", path)
}

func samples() map[string]*report.Status {
	pending := &report.Status{
		APIVersion: report.APIVersion, Kind: report.Kind, Instance: "fra", Host: "fra-01", Attempted: attempted,
		Phase: report.Progressing, Since: t0, Updated: t0, Generation: 1,
		Components: []report.Component{{Name: "stack", Kind: "ComposeStack", State: "working", Message: "starting (first start makes the schema)"}},
	}
	return map[string]*report.Status{"ready": ready(), "degraded": degraded(), "progressing": pending, "seven": seven(), "coalition": coalition()}
}

func TestGolden(t *testing.T) {
	for name, s := range samples() {
		t.Run(name, func(t *testing.T) {
			content, err := s.YAML()
			require.NoError(t, err)
			golden(t, name+".yaml", content)
			golden(t, name+".md", s.Page())
			golden(t, name+".txt", []byte(s.Text(report.TextOptions{Now: t0.Add(6 * time.Minute)})))
			narrow := s.Text(report.TextOptions{Now: t0.Add(6 * time.Minute), Width: 80})
			golden(t, name+".narrow.txt", []byte(narrow))
			golden(t, name+".commit", []byte(s.Message()))
			if name == "seven" || name == "degraded" {
				golden(t, name+".graph.txt", []byte(s.Graph().Text()))
				golden(t, name+".svg", s.Graph().SVG(s.Headline()))
			}

			back, err := report.Parse(content)
			require.NoError(t, err)
			require.Equal(t, s, back, "status.yaml says all there is")
			encoded, err := json.Marshal(s)
			require.NoError(t, err)
			var fromJSON report.Status
			require.NoError(t, json.Unmarshal(encoded, &fromJSON))
			again, err := fromJSON.YAML()
			require.NoError(t, err)
			require.Equal(t, string(content), string(again), "JSON says the same as YAML")
		})
	}
}

func TestParseRefusesOtherDocuments(t *testing.T) {
	for _, text := range []string{"", "{", "apiVersion: dive/v2\nkind: InstanceStatus\n", "apiVersion: dive/v1alpha1\nkind: Instance\n"} {
		_, err := report.Parse([]byte(text))
		require.Error(t, err, text)
	}
	s, err := report.Parse([]byte("apiVersion: dive/v1alpha1\nkind: InstanceStatus\ninstance: deu\nfromTheFuture: 1\n"))
	require.NoError(t, err)
	require.Equal(t, "deu", s.Instance)
}

func TestHeadlines(t *testing.T) {
	for want, change := range map[string]func(*report.Status){
		"deu: Ready at 5d6e7f8, 9/9 services, rs0 PRIMARY, 123 resources": func(*report.Status) {},
		"deu: Ready at 5d6e7f8": func(s *report.Status) { s.News = "" },
		"deu: Degraded, kas exits with 1; put back to 2.0.4": func(s *report.Status) {
			s.Phase, s.News = report.Degraded, "kas exits with 1; put back to 2.0.4"
		},
		"deu: waits for approval of 1 destroy (8c1f02b7d9e4a610)": func(s *report.Status) {
			s.Phase, s.News = report.Blocked, "waits for approval of 1 destroy (8c1f02b7d9e4a610)"
		},
		"deu: suspended by root":              func(s *report.Status) { s.Phase, s.News = report.Suspended, "suspended by root" },
		"deu: Progressing to 5d6e7f8":         func(s *report.Status) { s.Phase, s.News = report.Progressing, "" },
		"deu: Blocked, a b c red, more":       func(s *report.Status) { s.Phase, s.News = report.Blocked, "a\nb\tc \x1b[31mred, more" },
		"deu: Removing, its manifest is gone": func(s *report.Status) { s.Phase, s.News = report.Removing, "its manifest is gone" },
		"deu: Degraded, " + strings.Repeat("é", 56) + "…": func(s *report.Status) {
			s.Phase, s.News = report.Degraded, strings.Repeat("é", 300)
		},
	} {
		s := ready()
		change(s)
		require.Equal(t, want, s.Headline())
		require.LessOrEqual(t, utf8.RuneCountInString(s.Headline()), 72)
	}
}

func TestTrailersCannotBeForged(t *testing.T) {
	s := degraded()
	s.News = "x\n\nDive-Phase: Ready"
	s.Next = append(s.Next, "Dive-Phase: Ready")
	var phases []string
	for _, line := range strings.Split(s.Message(), "\n") {
		if strings.HasPrefix(line, "Dive-Phase:") {
			phases = append(phases, line)
		}
	}
	require.Equal(t, []string{"Dive-Phase: Degraded"}, phases)
}

func TestPageIsSafeWhateverContainersSay(t *testing.T) {
	page := escaped.ReplaceAllString(string(degraded().Page()), "")
	for _, bad := range []string{"<script", "<b>", "<h1>", "](http", "\x1b", "\u202e", "\x07", "https://evil", "http://evil"} {
		require.NotContains(t, page, bad)
	}
	columns := 0
	for _, line := range strings.Split(page, "\n") {
		if !strings.HasPrefix(line, "|") {
			columns = 0
			continue
		}
		n := strings.Count(strings.ReplaceAll(line, `\|`, ""), "|")
		if columns == 0 {
			columns = n
		}
		require.Equal(t, columns, n, "a row has the columns of its table: %s", line)
	}
	require.Zero(t, strings.Count(page, "```")%2, "every fence is closed")
}

func FuzzPage(f *testing.F) {
	f.Add("<script>|`", "```\n# x", `"]-->n1`)
	f.Add("1. a", "~~~\n\x1b[0m", "\u202e#quot;")
	f.Add("- [x](http://a.b)", "<!-- -->", "&lt;")
	f.Fuzz(func(t *testing.T, said, logged, id string) {
		s := degraded()
		s.News, s.Why, s.Next, s.Logs = said, []string{said}, []string{said}, []string{logged}
		s.Components[0].Message, s.Components[0].Summary, s.Components[0].Notes = said, said, []string{said}
		s.Components[0].Values = map[string]any{id: said}
		s.Checks[0].Saw, s.Services[0].Image, s.Members[0].State, s.Nodes[0].ID = said, said, said, id
		s.Conditions[1].Message, s.Runs[0].Message, s.Runs[0].Steps[0].Node = said, said, id
		page := string(s.Page())
		require.True(t, utf8.ValidString(page))
		for _, r := range page + s.Text(report.TextOptions{Now: t0}) + s.Message() {
			require.False(t, unicode.IsControl(r) && r != '\n', "%q", r)
		}
		inFence, columns := false, 0
		for _, line := range strings.Split(page, "\n") {
			if strings.HasPrefix(strings.TrimLeft(line, " "), "```") {
				inFence = !inFence
				continue
			}
			if inFence {
				continue
			}
			plain := escaped.ReplaceAllString(line, "")
			plain = codeSpan.ReplaceAllString(plain, "")
			plain = strings.ReplaceAll(plain, "<br>", "")
			require.NotContains(t, plain, "<", "no HTML: %q", line)
			require.NotContains(t, plain, "](", "no link: %q", line)
			if !strings.HasPrefix(line, "|") {
				columns = 0
				continue
			}
			if columns == 0 {
				columns = strings.Count(plain, "|")
			}
			require.Equal(t, columns, strings.Count(plain, "|"), "columns: %q", line)
		}
		require.False(t, inFence, "every fence is closed")
		require.LessOrEqual(t, utf8.RuneCountInString(s.Headline()), 72)
		require.NotContains(t, s.Headline(), "\n")
	})
}

var (
	escaped  = regexp.MustCompile(`\\.`)
	codeSpan = regexp.MustCompile("`[^`]*`")
)

func TestDigestIsOfTheContent(t *testing.T) {
	digest := func(change func(*report.Status)) string {
		s := ready()
		change(s)
		d, err := s.Digest()
		require.NoError(t, err)
		return d
	}
	base := digest(func(*report.Status) {})
	for name, change := range map[string]func(*report.Status){
		"times":      func(s *report.Status) { s.Since, s.Updated = t0.Add(time.Hour), t0.Add(time.Hour) },
		"generation": func(s *report.Status) { s.Generation++ },
		"durations":  func(s *report.Status) { s.Nodes[0].Duration++; s.Runs[0].Duration++ },
		"members": func(s *report.Status) {
			s.Members[1].Lag, s.Members[1].Started, s.Members[0].Trouble = 9*time.Second, t0, t0
			s.Sets[0].Oplog += 5 * time.Hour
		},
		"conditions": func(s *report.Status) { s.Conditions[0].Since = t0.Add(time.Hour) },
		"checks": func(s *report.Status) {
			s.Checks[0].Saw, s.Checks[0].Counts, s.Checks[0].At, s.Checks[0].Took = "otherwise", map[string]int64{"members": 3}, t0.Add(time.Hour), time.Hour
		},
	} {
		require.Equal(t, base, digest(change), name)
	}
	for name, change := range map[string]func(*report.Status){
		"phase":     func(s *report.Status) { s.Phase = report.Degraded },
		"applied":   func(s *report.Status) { s.Applied = applied },
		"health":    func(s *report.Status) { s.Services[0].Health = "unhealthy" },
		"member":    func(s *report.Status) { s.Members[1].State = "RECOVERING" },
		"lag":       func(s *report.Status) { s.Members[1].Lag = time.Minute },
		"election":  func(s *report.Status) { s.Sets[0].Term++ },
		"votes":     func(s *report.Status) { s.Members[1].Votes = 0 },
		"version":   func(s *report.Status) { s.Members[1].Version = "6.0.27" },
		"restart":   func(s *report.Status) { s.Services[0].Since = t0.Add(time.Hour) },
		"run":       func(s *report.Status) { s.Runs = s.Runs[1:] },
		"outcome":   func(s *report.Status) { s.Runs[0].Outcome = "failed" },
		"condition": func(s *report.Status) { s.Conditions[1].Status = false },
		"check":     func(s *report.Status) { s.Checks[0].Passed = false },
		"severity":  func(s *report.Status) { s.Checks[0].Severity = "warn" },
	} {
		require.NotEqual(t, base, digest(change), name)
	}
	s := ready()
	_, err := s.Digest()
	require.NoError(t, err)
	require.Equal(t, ready(), s, "the digest leaves the status as it is")
}

// A table of members fits a terminal of 80 characters, from one member to seven.
func TestMembersFitATerminal(t *testing.T) {
	for count := 1; count <= 7; count++ {
		s := seven()
		s.Members = s.Members[:count]
		text := s.Text(report.TextOptions{Now: t0.Add(6 * time.Minute), Width: 80})
		for line := range strings.Lines(text) {
			require.LessOrEqual(t, utf8.RuneCountInString(strings.TrimRight(line, "\n")), 80, line)
		}
		for _, m := range s.Members {
			require.Contains(t, text, m.Host[:20])
		}
	}
}

func TestTextWithColor(t *testing.T) {
	text := degraded().Text(report.TextOptions{Now: t0.Add(6 * time.Minute), Color: true})
	require.Contains(t, text, "\x1b[31mDEGRADED\x1b[0m for 4 min")
	require.NotContains(t, text, "\x1b]0;")
	plain := degraded().Text(report.TextOptions{Now: t0})
	require.NotContains(t, plain, "\x1b")
}

func TestLongLogsAreBounded(t *testing.T) {
	s := degraded()
	s.Logs = []string{strings.Repeat("first\n", 1000), strings.Repeat("x", 1<<20), "the last words"}
	for _, shown := range []string{string(s.Page()), s.Text(report.TextOptions{Now: t0})} {
		require.Less(t, len(shown), 10_000)
		require.Contains(t, shown, "the last words")
	}
}

func FuzzParse(f *testing.F) {
	for _, name := range []string{"ready.yaml", "degraded.yaml", "progressing.yaml"} {
		content, err := os.ReadFile(filepath.Join("testdata", name))
		require.NoError(f, err)
		f.Add(content)
	}
	f.Add([]byte("apiVersion: dive/v1alpha1\nkind: InstanceStatus\nruns: [{duration: 2540400h, steps: [{started: 0001-01-01T00:00:00Z, duration: -1h}]}]\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		s, err := report.Parse(content)
		if err != nil {
			return
		}
		require.True(t, utf8.Valid(s.Page()))
		require.NotEmpty(t, s.Text(report.TextOptions{Now: t0}))
		require.LessOrEqual(t, utf8.RuneCountInString(s.Headline()), 72)
		require.NotEmpty(t, s.Message())
	})
}
