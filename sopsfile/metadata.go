package sopsfile

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// metadata is what SOPS writes of a file beside its values.
type metadata struct {
	age      []wrapped
	pgp      []wrapped
	others   []string // key services that this package does not ask, by their names in the file
	mac      string
	modified string // as the mac is bound to it
	onlyMine bool   // the mac is over encrypted values alone
	rule     rule
}

// wrapped is the data key, encrypted to one recipient.
type wrapped struct{ to, key string }

// rule says which values are encrypted: by a suffix of a key on the way to them, or by a regular expression.
type rule struct {
	suffix  string
	pattern *regexp.Regexp
	plain   bool // what matches is not encrypted; else what does not
}

func (r rule) encrypts(way []string) bool {
	hit := slices.ContainsFunc(way, func(key string) bool {
		return r.pattern != nil && r.pattern.MatchString(key) || r.pattern == nil && strings.HasSuffix(key, r.suffix)
	})
	return hit != r.plain
}

// keyServices are the other ways in which a data key may be kept, by their names in files, and what people call them.
var keyServices = map[string]string{
	"kms": "AWS KMS", "gcp_kms": "Google Cloud KMS", "azure_kv": "Azure Key Vault", "hc_vault": "Vault's transit engine", "hckms": "Huawei Cloud KMS",
}

var errNotSOPS = errors.New("it was not encrypted by SOPS: encrypt it with `sops encrypt --in-place`")

// takeMetadata takes the metadata out of the branches: one entry in most formats, a prefix of names in dotenv.
func takeMetadata(branches []branch, flat bool) (metadata, []branch, error) {
	var meta branch
	var rest []branch
	for _, b := range branches {
		var own, values branch
		for _, i := range b {
			name, isMeta := i.key, i.key == "sops"
			if flat {
				name, isMeta = strings.CutPrefix(i.key, "sops_")
			}
			switch {
			case !isMeta:
				values = append(values, i)
			case flat:
				own = append(own, item{name, i.value})
			default:
				own, _ = i.value.(branch)
			}
		}
		if meta == nil {
			meta = own
		}
		plain, _ := withoutComments(values).(branch) // of a branch
		rest = append(rest, plain)
	}
	if meta == nil {
		return metadata{}, nil, errNotSOPS
	}
	if flat {
		meta = unflattened(meta)
	}
	m, err := readMetadata(meta)
	return m, rest, err
}

func readMetadata(meta branch) (m metadata, err error) {
	if groups, ok := meta.get("key_groups"); ok && groups != nil {
		return m, errors.New("its data key is split among key groups: this agent reads files whose data key is encrypted to each recipient as a whole")
	}
	m.mac, m.modified = text(meta, "mac"), text(meta, "lastmodified")
	if m.mac == "" || m.modified == "" {
		return m, errNotSOPS
	}
	at, err := time.Parse(time.RFC3339, m.modified)
	if err != nil {
		return m, errors.New("its metadata has no time of the last change")
	}
	m.modified = at.Format(time.RFC3339)
	m.onlyMine = text(meta, "mac_only_encrypted") == "true"
	m.age, m.pgp = wrappings(meta, "age", "recipient"), wrappings(meta, "pgp", "fp")
	for _, name := range slices.Sorted(maps.Keys(keyServices)) {
		if list, ok := meta.get(name); ok && list != nil {
			m.others = append(m.others, keyServices[name])
		}
	}
	m.rule, err = readRule(meta)
	return m, err
}

func readRule(meta branch) (rule, error) {
	for _, name := range []string{"unencrypted_comment_regex", "encrypted_comment_regex"} {
		if text(meta, name) != "" {
			return rule{}, fmt.Errorf("it says by comments what is encrypted (%s): this agent reads files that say it by keys", name)
		}
	}
	r, found := rule{suffix: "_unencrypted", plain: true}, 0 // SOPS's default
	for _, name := range []string{"unencrypted_suffix", "encrypted_suffix", "unencrypted_regex", "encrypted_regex"} {
		value := text(meta, name)
		if value == "" {
			continue
		}
		found++
		r = rule{suffix: value, plain: strings.HasPrefix(name, "un")}
		if strings.HasSuffix(name, "_regex") {
			pattern, err := regexp.Compile(value)
			if err != nil {
				return rule{}, fmt.Errorf("%s of its metadata is no regular expression", name)
			}
			r.pattern = pattern
		}
	}
	if found > 1 {
		return rule{}, errors.New("its metadata says in more than one way what is encrypted")
	}
	return r, nil
}

func wrappings(meta branch, name, to string) (all []wrapped) {
	list, _ := meta.get(name)
	entries, _ := list.([]any)
	for _, one := range entries {
		if b, ok := one.(branch); ok {
			all = append(all, wrapped{text(b, to), text(b, "enc")})
		}
	}
	return all
}

// text gives an entry of the metadata; a number or truth value as it is written.
func text(b branch, key string) string {
	switch v, _ := b.get(key); v := v.(type) {
	case string:
		return v
	case bool:
		return strconv.FormatBool(v)
	case time.Time: // not in quotes
		return v.Format(time.RFC3339)
	}
	return ""
}

var flatEntry = regexp.MustCompile(`^(age|pgp|kms|gcp_kms|azure_kv|hc_vault|hckms)__list_(\d{1,3})__map_(.+)$`)

// unflattened gives the metadata of a dotenv file, such as age__list_0__map_enc, the shape that it has elsewhere.
func unflattened(flat branch) branch {
	var out branch
	lists := map[string][]any{}
	for _, i := range flat {
		if strings.HasPrefix(i.key, "key_groups__") {
			out = append(out, item{"key_groups", true})
			continue
		}
		m := flatEntry.FindStringSubmatch(i.key)
		if m == nil {
			out = append(out, i)
			continue
		}
		n, _ := strconv.Atoi(m[2])
		for len(lists[m[1]]) <= n {
			lists[m[1]] = append(lists[m[1]], branch{})
		}
		entry, _ := lists[m[1]][n].(branch)
		lists[m[1]][n] = append(entry, item{m[3], i.value})
	}
	for _, name := range slices.Sorted(maps.Keys(lists)) {
		out = append(out, item{name, lists[name]})
	}
	return out
}
