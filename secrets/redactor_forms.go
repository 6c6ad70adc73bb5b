package secrets

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"html"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// forms gives the ways in which a value may appear in a text.
func forms(v string) []string {
	component := strings.ReplaceAll(url.QueryEscape(v), "+", "%20")
	out := []string{
		v, jsonText(v, true), jsonText(v, false), strings.ReplaceAll(v, "'", "''"), html.EscapeString(v),
		hex.EncodeToString([]byte(v)), strings.ToUpper(hex.EncodeToString([]byte(v))),
	}
	for _, escaped := range []string{
		url.QueryEscape(v), url.PathEscape(v), url.UserPassword("", v).String()[1:], component, unescapedMarks.Replace(component),
	} {
		out = append(out, escaped, lowerEscapes.ReplaceAllStringFunc(escaped, strings.ToLower))
	}
	out = append(out, base64Forms(v)...)
	// A text of several lines is logged line by line.
	public := false
	for line := range strings.Lines(v) {
		line = strings.TrimPrefix(strings.TrimSpace(line), "- ") // of a YAML list
		if public = inPublic(line, public); public {
			continue
		}
		if len(line) >= 16 && !strings.HasPrefix(line, "-----") {
			out = append(out, line)
		}
	}
	if trimmed := strings.TrimSpace(v); trimmed != v {
		out = append(out, trimmed)
	}
	slices.Sort(out)
	return slices.DeleteFunc(slices.Compact(out), func(s string) bool { return len(s) < minHidden })
}

// inPublic says whether a line is in a PEM block that everybody may see, such as the certificate beside a key: certificates of one
// authority have lines in common. was says it of the line before.
func inPublic(line string, was bool) bool {
	kind, begins := strings.CutPrefix(line, "-----BEGIN ")
	if !begins {
		return was && !strings.HasPrefix(line, "-----END ")
	}
	return slices.Contains([]string{"CERTIFICATE-----", "CERTIFICATE REQUEST-----", "PUBLIC KEY-----", "X509 CRL-----"}, kind)
}

var (
	// unescapedMarks undoes what JavaScript's encodeURIComponent does not escape.
	unescapedMarks = strings.NewReplacer("%21", "!", "%27", "'", "%28", "(", "%29", ")", "%2A", "*")
	lowerEscapes   = regexp.MustCompile(`%[0-9A-F]{2}`)
)

// passwordOf gives the password in a value that is a URL, such as a connection
// string, or "".
func passwordOf(v string) string {
	if u, err := url.Parse(v); err == nil && u.Host != "" && u.User != nil {
		password, _ := u.User.Password()
		return password
	}
	return ""
}

// jsonText is the value inside the quotes of a JSON string.
func jsonText(v string, escapeHTML bool) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(escapeHTML)
	if enc.Encode(v) != nil {
		return v
	}
	return strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(b.String()), `"`), `"`)
}

// base64Forms gives what the value looks like in base64, alone and inside of
// something longer (such as "user:password"): behind 0, 1 or 2 bytes of
// another triple, without the digits that neighbours have a part in.
func base64Forms(v string) (out []string) {
	for shift := range 3 {
		padded := append(make([]byte, shift), v...)
		skip := (shift*8 + 5) / 6 // digits that hold bits of the neighbour before
		whole := len(padded) * 8 / 6
		if whole <= skip {
			continue
		}
		for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			out = append(out, enc.EncodeToString(padded)[skip:whole])
		}
	}
	// Short stretches of base64 would hide ordinary words.
	return slices.DeleteFunc(out, func(s string) bool { return len(s) < minHidden+1 })
}
