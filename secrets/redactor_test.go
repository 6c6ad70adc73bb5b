package secrets_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
	"github.com/zclconf/go-cty/cty"

	"dive-agent/desired"
	"dive-agent/secrets"
)

const odd = `p@ss "w/ö<rd>&+%\` // every escape has something to do

func TestRedactorKnowsTheFormsOfAValue(t *testing.T) {
	r := secrets.NewRedactor(odd, "hunter2-hunter2")
	jsonOf := func(v any) string {
		b, err := json.Marshal(v)
		require.NoError(t, err)
		return string(b)
	}
	for name, text := range map[string]string{
		"plain":            odd,
		"query":            "u=" + url.QueryEscape(odd),
		"path":             "/x/" + url.PathEscape(odd) + "/y",
		"userinfo":         (&url.URL{Scheme: "mongodb", User: url.UserPassword("admin", odd), Host: "h"}).String(),
		"json":             jsonOf(map[string]string{"password": odd}),
		"base64":           base64.StdEncoding.EncodeToString([]byte(odd)),
		"base64url":        base64.RawURLEncoding.EncodeToString([]byte(odd)),
		"basic auth":       base64.StdEncoding.EncodeToString([]byte("admin:" + odd)),
		"basic auth +1":    base64.StdEncoding.EncodeToString([]byte("admin1:" + odd)),
		"basic auth +2":    base64.StdEncoding.EncodeToString([]byte("admin12:" + odd + "x")),
		"hex":              hex.EncodeToString([]byte(odd)),
		"twice in a row":   "hunter2-hunter2hunter2-hunter2",
		"quoted by Go":     fmt.Sprintf("%q", "hunter2-hunter2"),
		"inside of a word": "xhunter2-hunter2x",
	} {
		clean := r.String("before " + text + " after")
		require.Contains(t, clean, secrets.Mark, name)
		require.True(t, strings.HasPrefix(clean, "before ") && strings.HasSuffix(clean, " after"), clean)
		for _, piece := range []string{"hunter2", "w/ö", "p@ss", "cEBzcy"} {
			require.NotContains(t, clean, piece, name)
		}
	}
	require.Equal(t, "nothing here", r.String("nothing here"))
	require.Equal(t, "one "+secrets.Mark+" stands for touching ones", r.String("one hunter2-hunter2hunter2-hunter2 stands for touching ones"))
}

func TestRedactorHidesOverlappingSecretsWhole(t *testing.T) {
	r := secrets.NewRedactor("abcdefgh", "efghijkl", "abcdefghijklmnop")
	require.Equal(t, "<"+secrets.Mark+">", r.String("<abcdefghijkl>"), "the second begins inside the first")
	require.Equal(t, "<"+secrets.Mark+">", r.String("<abcdefghijklmnop>"))
}

func TestRedactorHidesLinesOfAKey(t *testing.T) {
	key := "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEGCCqG\nSM49AwEHBG0wawIBAQQgevZzL1gd\nshort\n-----END PRIVATE KEY-----\n"
	r := secrets.NewRedactor(key)
	clean := r.String("line 1: MIGHAgEAMBMGByqGSM49AgEGCCqG\nline 2: SM49AwEHBG0wawIBAQQgevZzL1gd\n")
	require.Equal(t, "line 1: (secret)\nline 2: (secret)\n", clean)
	require.Equal(t, "-----BEGIN PRIVATE KEY-----", r.String("-----BEGIN PRIVATE KEY-----"))
}

func TestRedactorLeavesShortValuesAlone(t *testing.T) {
	r := secrets.NewRedactor("", "a", "admin")
	require.Equal(t, "admin and a", r.String("admin and a"))
	var zero secrets.Redactor
	require.Equal(t, "text", zero.String("text"))
	require.Equal(t, []byte("text"), zero.Bytes([]byte("text")))
}

func TestRedactorLearnsFromMarkedValues(t *testing.T) {
	r := &secrets.Redactor{}
	mark := desired.Secret("").Cty().Marks()
	r.AddValue(
		desired.String("public-value"),
		desired.UnknownSecret(),
		desired.Secret("marked-text"),
		desired.ValueOf(cty.ObjectVal(map[string]cty.Value{
			"plain": cty.StringVal("plain-inside"),
			"list":  cty.ListVal([]cty.Value{cty.StringVal("list-secret-1"), cty.StringVal("list-secret-2")}).WithMarks(mark),
			"count": cty.NumberIntVal(12345678).WithMarks(mark),
		})),
	)
	require.Equal(t, "public-value plain-inside (secret) (secret) (secret) (secret)",
		r.String("public-value plain-inside marked-text list-secret-1 list-secret-2 12345678"))
}

func TestRedactedErrorKeepsItsChain(t *testing.T) {
	r := secrets.NewRedactor("hunter2-hunter2")
	err := fmt.Errorf("dial mongodb://admin:hunter2-hunter2@db: %w", io.ErrUnexpectedEOF)
	clean := r.Error(err)
	require.EqualError(t, clean, "dial mongodb://admin:(secret)@db: unexpected EOF")
	require.ErrorIs(t, clean, io.ErrUnexpectedEOF)
	require.NoError(t, r.Error(nil))
	plain := errors.New("plain")
	require.Equal(t, plain, r.Error(plain))
}

func TestWriterWorksAcrossChunks(t *testing.T) {
	r := secrets.NewRedactor("hunter2-hunter2", "hunter2-hunter2-and-more", "more-or-less")
	text := "a hunter2-hunter2 b hunter2-hunter2-and-more-or-less c hunter2-hunt d hunter2-"
	want := "a (secret) b (secret) c hunter2-hunt d hunter2-"
	for size := 1; size <= len(text); size++ {
		var out bytes.Buffer
		w := r.Writer(&out)
		for at := 0; at < len(text); at += size {
			n, err := w.Write([]byte(text[at:min(at+size, len(text))]))
			require.NoError(t, err)
			require.Equal(t, min(size, len(text)-at), n)
		}
		require.NoError(t, w.Close())
		require.NoError(t, w.Close())
		require.Equal(t, want, strings.ReplaceAll(out.String(), secrets.Mark+secrets.Mark, secrets.Mark), "chunks of %d", size)
		_, err := w.Write([]byte("x"))
		require.Error(t, err)
	}
}

func TestWriterHoldsBackOnlyWhatItMust(t *testing.T) {
	var out bytes.Buffer
	w := secrets.NewRedactor("hunter2-hunter2").Writer(&out)
	fmt.Fprint(w, "a line of a log\n")
	require.Equal(t, "a line of a log\n", out.String(), "nothing of it begins a secret")
	fmt.Fprint(w, "hun")
	require.Equal(t, "a line of a log\n", out.String())
	require.NoError(t, w.Flush())
	require.Equal(t, "a line of a log\nhun", out.String())

	// Overlapping secrets without an end do not pile up in memory.
	out.Reset()
	w = secrets.NewRedactor("aaaaaa").Writer(&out)
	for range 1000 {
		fmt.Fprint(w, strings.Repeat("a", 100))
	}
	fmt.Fprint(w, "b")
	require.Equal(t, secrets.Mark+"b", out.String())
}

func TestWriterKeepsAnError(t *testing.T) {
	w := secrets.NewRedactor("hunter2-hunter2").Writer(failing{})
	_, err := w.Write([]byte("text"))
	require.ErrorIs(t, err, iotest.ErrTimeout)
	require.ErrorIs(t, w.Flush(), iotest.ErrTimeout)
	require.ErrorIs(t, w.Close(), iotest.ErrTimeout)
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, iotest.ErrTimeout }

type inner struct{ Password string }

type valuer struct{}

func (valuer) LogValue() slog.Value { return slog.StringValue("from hunter2-hunter2 a valuer") }

func TestHandlerRedactsEverything(t *testing.T) {
	for _, kind := range []string{"text", "json"} {
		var out bytes.Buffer
		var base slog.Handler = slog.NewTextHandler(&out, nil)
		if kind == "json" {
			base = slog.NewJSONHandler(&out, nil)
		}
		r := secrets.NewRedactor("hunter2-hunter2")
		log := slog.New(r.Handler(base)).With("early", "learned-later", "n", 7).WithGroup("g").With("h", "hunter2-hunter2")
		r.Add("learned-later")
		log.Info("message hunter2-hunter2",
			"string", "x hunter2-hunter2 y",
			"error", fmt.Errorf("error hunter2-hunter2: %w", io.EOF),
			"bytes", []byte("hunter2-hunter2"),
			"struct", inner{"hunter2-hunter2"},
			"pointer", &inner{"hunter2-hunter2"},
			"nested", map[string]*inner{"a": {"hunter2-hunter2"}},
			"valuer", valuer{},
			slog.Group("group", "deep", "learned-later"),
			"hunter2-hunter2", "a key",
			"plain", inner{"seen"},
		)
		for _, leak := range []string{"hunter2", "learned-later", base64.StdEncoding.EncodeToString([]byte("hunter2-hunter2"))} {
			require.NotContains(t, out.String(), leak, kind)
		}
		require.Contains(t, out.String(), "seen")
		require.Contains(t, out.String(), "message (secret)")
		require.Equal(t, 12, strings.Count(out.String(), secrets.Mark), out.String())
	}
}

func TestRedactorIsSafeForConcurrentUse(t *testing.T) {
	r := &secrets.Redactor{}
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for j := range 50 {
				value := fmt.Sprintf("secret-%d-%d-value", i, j)
				r.Add(value)
				if got := r.String("<" + value + ">"); got != "<(secret)>" {
					t.Errorf("%q was not hidden: %q", value, got)
				}
			}
		})
	}
	wg.Wait()
}

func FuzzRedactor(f *testing.F) {
	f.Add("hunter2-hunter2", "ter2-hunter", "a hunter2-hunter2-hunter b", uint8(3))
	f.Add("aaaaaa", "aaaaaaa", strings.Repeat("a", 40)+"baaaaa", uint8(1))
	f.Add(odd, "abcabcabc", "abcabcabcabc"+odd+url.QueryEscape(odd), uint8(7))
	f.Fuzz(func(t *testing.T, one, two, text string, size uint8) {
		r := secrets.NewRedactor(one, two)
		whole := r.String(text)
		require.Equal(t, whole, string(r.Bytes([]byte(text))))

		var out bytes.Buffer
		w := r.Writer(&out)
		step := int(size)%16 + 1
		for at := 0; at < len(text); at += step {
			_, err := w.Write([]byte(text[at:min(at+step, len(text))]))
			require.NoError(t, err)
		}
		require.NoError(t, w.Close())
		require.Equal(t, joinMarks(whole), joinMarks(out.String()), "a stream is redacted as a text is")

		for _, secret := range []string{one, two} {
			if len(secret) < 6 || strings.ContainsAny(secret, secrets.Mark) {
				continue // too short, or what stands for it could be a part of it
			}
			require.NotContains(t, whole, secret)
			require.Equal(t, secrets.Mark, r.String(secret))
			require.NotContains(t, r.String("x"+url.QueryEscape(secret)+"x"), url.QueryEscape(secret))
		}
	})
}

// joinMarks makes neighbouring marks one: a stream cannot know, when it writes
// a mark, that another secret follows.
func joinMarks(s string) string {
	for {
		joined := strings.ReplaceAll(s, secrets.Mark+secrets.Mark, secrets.Mark)
		if joined == s {
			return s
		}
		s = joined
	}
}

func BenchmarkRedactor(b *testing.B) {
	r := &secrets.Redactor{}
	for i := range 20 {
		r.Add(fmt.Sprintf("secret-value-%d-abcdefgh", i))
	}
	line := strings.Repeat("2026-03-01T12:00:00Z level=INFO msg=\"a line of a log as it mostly is\" ", 10)
	b.SetBytes(int64(len(line)))
	for b.Loop() {
		_ = r.String(line)
	}
}
