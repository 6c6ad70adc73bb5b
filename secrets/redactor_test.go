package secrets_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/zclconf/go-cty/cty"

	"dive-agent/desired"
	"dive-agent/secrets"
)

const odd = `p@ss "w/ö<r!d>'&+%\` // every escape has something to do

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
		"our urlencode":    strings.ReplaceAll(url.QueryEscape(odd), "+", "%20"),
		"lower escapes":    strings.ToLower(url.QueryEscape(odd)),
		"JavaScript":       strings.NewReplacer("+", "%20", "%21", "!", "%27", "'").Replace(url.QueryEscape(odd)),
		"YAML":             "'" + strings.ReplaceAll(odd, "'", "''") + "'",
		"HTML":             html.EscapeString(odd),
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

func TestRedactingAgainChangesNothing(t *testing.T) {
	r := secrets.NewRedactor("secret", "(secret)", "running", "hunter2-hunter2")
	once := r.String("it is running with hunter2-hunter2 and secret")
	require.Equal(t, "it is (secret) with (secret) and secret", once, "the word that stands for secrets stays")
	require.Equal(t, once, r.String(once))
}

func TestRedactorKnowsThePasswordOfAConnectionString(t *testing.T) {
	r := secrets.NewRedactor("postgres://audit:p%40ss-w0rd@db:5432/audit?sslmode=disable")
	require.Equal(t, `user "audit": (secret), (secret)`, r.String(`user "audit": p@ss-w0rd, p%40ss-w0rd`))
}

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
	f.Add("hunter2-hunter2", "ter2-hunter", "a hunter2-hunter2-hunter b")
	f.Add("aaaaaa", "aaaaaaa", strings.Repeat("a", 40)+"baaaaa")
	f.Add(odd, "abcabcabc", "abcabcabcabc"+odd+url.QueryEscape(odd))
	f.Fuzz(func(t *testing.T, one, two, text string) {
		r := secrets.NewRedactor(one, two)
		whole := r.String(text)
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

// TestTheCertificateBesideAKeyIsNoSecret: certificates of one authority have lines in common, and are published.
func TestTheCertificateBesideAKeyIsNoSecret(t *testing.T) {
	const key, common = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgc2VjcmV0LWtleS1v", "BAMTA2thczBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABJaFVAWRdVuae3WitVk3"
	pem := "-----BEGIN PRIVATE KEY-----\n" + key + "\n-----END PRIVATE KEY-----\n-----BEGIN CERTIFICATE-----\n" + common + "\n-----END CERTIFICATE-----\n"
	r := secrets.NewRedactor(pem)
	require.False(t, r.Contains("-----BEGIN CERTIFICATE-----\n"+common+"\n-----END CERTIFICATE-----\n"))
	require.True(t, r.Contains(key))
	require.True(t, r.Contains(pem))
	after := "-----BEGIN CERTIFICATE-----\n" + common + "\n-----END CERTIFICATE-----\na-password-of-some-length\n"
	require.True(t, secrets.NewRedactor(after).Contains("a-password-of-some-length"))
}
