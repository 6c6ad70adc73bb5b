package mongo

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"
)

func TestSeedFromYAML(t *testing.T) {
	documents, err := readSeed(strings.NewReader(`
- coiId: A
  small: 7
  big: 5000000000
  part: 1.5
  at: 2026-01-02T03:04:05Z
  day: 2026-01-02
  text: "2026-01-02"
  yes: true
  none: ~
  raw: !!binary aGFsbG8=
  id: {$oid: 6b02383b7acb77902d414bf2}
  list: [1, {b: 2}]
- {coiId: B}
`), "coi.yaml", "coiId")
	require.NoError(t, err)
	require.Len(t, documents, 2)
	require.Equal(t, 14, documents[1].line)
	var have bson.D
	require.NoError(t, bson.Unmarshal(documents[0].document, &have))
	id, _ := bson.ObjectIDFromHex("6b02383b7acb77902d414bf2")
	require.Equal(t, bson.D{
		{Key: "coiId", Value: "A"},
		{Key: "small", Value: int32(7)},
		{Key: "big", Value: int64(5_000_000_000)},
		{Key: "part", Value: 1.5},
		{Key: "at", Value: bson.NewDateTimeFromTime(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))},
		{Key: "day", Value: bson.NewDateTimeFromTime(time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC))},
		{Key: "text", Value: "2026-01-02"},
		{Key: "yes", Value: true},
		{Key: "none", Value: nil},
		{Key: "raw", Value: bson.Binary{Data: []byte("hallo")}},
		{Key: "id", Value: id},
		{Key: "list", Value: bson.A{int32(1), bson.D{{Key: "b", Value: int32(2)}}}},
	}, have)

	for text, want := range map[string]string{
		"coiId: A":                             "coi.yaml:1: not a YAML list",
		"- {coiId: A}\n- text":                 "coi.yaml:2: not a document",
		"- {coiId: 1}\n- {coiId: 1.0}":         "coi.yaml:2: the document has the same coiId as the one of line 1",
		"- {coiId: 99999999999999999999}":      "does not fit",
		"- &a {coiId: A}\n- {coiId: B, b: *a}": "aliases",
		"- {coiId: A, n: !ruby/object x}":      "no value of BSON",
		"- [":                                  "coi.yaml: yaml:",
	} {
		_, err := readSeed(strings.NewReader(text), "coi.yaml", "coiId")
		require.ErrorContains(t, err, want, text)
	}
}

func TestSeedLimits(t *testing.T) {
	var b strings.Builder
	b.WriteString("[")
	for i := range maxSeedDocuments + 1 {
		fmt.Fprintf(&b, "{\"_id\":%d},\n", i)
	}
	_, err := readSeed(strings.NewReader(b.String()), "a.json", "_id")
	require.EqualError(t, err, "a.json:100001: more than 100000 documents, the limit of a seed file")
	_, err = readSeed(strings.NewReader(`[{"_id": "`+strings.Repeat("x", maxSeedBytes)+`"}]`), "a.json", "_id")
	require.EqualError(t, err, "a.json: larger than 16 MiB, the limit of a seed file")
}

func TestSameDocument(t *testing.T) {
	raw := func(text string) bson.Raw {
		var d bson.D
		require.NoError(t, bson.UnmarshalExtJSON([]byte(text), false, &d))
		out, err := bson.Marshal(d)
		require.NoError(t, err)
		return out
	}
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{`{"a": 1, "b": {"c": 2, "d": [1]}}`, `{"b": {"d": [1.0], "c": {"$numberLong": "2"}}, "a": {"$numberDouble": "1"}}`, true},
		{`{"a": [1, 2]}`, `{"a": [2, 1]}`, false},
		{`{"a": 1}`, `{"a": 1, "b": null}`, false},
		{`{"a": 1}`, `{"a": "1"}`, false},
		{`{"a": 1.5}`, `{"a": 1}`, false},
		{`{"a": {"$numberDecimal": "1.50"}}`, `{"a": 1.5}`, true},
		{`{"a": {"$numberDouble": "NaN"}}`, `{"a": {"$numberDouble": "NaN"}}`, true},
		{`{"a": {"$numberDouble": "0.1"}}`, `{"a": {"$numberDouble": "0.10000000000000002"}}`, false},
		{`{"_id": 1, "a": 1}`, `{"_id": 2, "a": 1}`, true},
	} {
		require.Equal(t, c.same, sameDocument(raw(c.a), raw(c.b), "_id"), "%s and %s", c.a, c.b)
		require.Equal(t, c.same, sameDocument(raw(c.b), raw(c.a), "_id"), "%s and %s", c.b, c.a)
	}
}

// FuzzReadSeed: what is read has a key each, is a document that the server takes, and is the same as itself.
func FuzzReadSeed(f *testing.F) {
	for _, text := range []string{
		`[{"_id": 1, "at": {"$date": "2026-01-02T03:04:05Z"}}]`, "- {_id: 1, at: 2026-01-02}", "- _id: {$oid: 6b02383b7acb77902d414bf2}",
		`[{"_id": {"$numberDecimal": "1E+6000"}}]`, "- {_id: 0x1F, n: .inf}", "--- []\n---\n- {_id: x}", `[{"_id": 1},]`,
	} {
		f.Add(text, true)
		f.Add(text, false)
	}
	f.Fuzz(func(t *testing.T, text string, isYAML bool) {
		name := "a.json"
		if isYAML {
			name = "a.yaml"
		}
		documents, err := readSeed(strings.NewReader(text), name, "_id")
		if err != nil {
			require.True(t, strings.HasPrefix(err.Error(), name+":"), err)
			return
		}
		for _, d := range documents {
			require.NoError(t, d.document.Validate())
			require.NoError(t, d.document.Lookup("_id").Validate())
			require.Positive(t, d.line)
			require.True(t, sameDocument(d.document, d.document))
		}
	})
}
