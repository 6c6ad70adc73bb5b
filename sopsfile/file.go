package sopsfile

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// File is a file that SOPS encrypted, not yet opened.
type File struct {
	meta     metadata
	branches []branch
}

// Parse reads a file as its name's ending says. What is no file of SOPS is an error; no error quotes the file.
func Parse(name string, content []byte) (*File, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	branches, err := formats[path.Ext(name)](content)
	if err != nil {
		return nil, err
	}
	f := &File{}
	f.meta, f.branches, err = takeMetadata(branches, path.Ext(name) == ".env")
	if err != nil {
		return nil, err
	}
	return f, nil
}

// Keys gives the ways to all values that stand in the file: these are not encrypted.
func (f *File) Keys() (keys []string) {
	for _, b := range f.branches {
		keys = append(keys, leaves(b, "")...)
	}
	return keys
}

// Has says whether a value, not a map or a list, stands under a key (see Opened.Value).
func (f *File) Has(key string) bool {
	v, ok := find(f.branches, key)
	switch v.(type) {
	case branch, []any:
		return false
	}
	return ok
}

// Opened is a file with its values decrypted. Printing it shows none of them.
type Opened struct{ branches []branch }

// String keeps values out of logs.
func (*Opened) String() string { return "(decrypted)" }

// Value gives a value as text: one with that very key, else the one that the key leads to, its steps separated by dots and
// entries of lists counted from 0.
func (o *Opened) Value(key string) (string, error) {
	v, ok := find(o.branches, key)
	if !ok {
		return "", fmt.Errorf("it has no key %q", key)
	}
	switch v := v.(type) {
	case nil:
		return "", fmt.Errorf("its key %q has no value", key)
	case branch, []any:
		return "", fmt.Errorf("its key %q is a map or a list: name a value in it, such as %s.name", key, key)
	case bool:
		return strconv.FormatBool(v), nil
	default:
		plain, err := plainBytes(v)
		return string(plain), err
	}
}

var errBroken = errors.New("it does not open with its own data key: it was changed by something else than SOPS")

// Open decrypts all values and proves that the file is as SOPS wrote it: that no value was changed, moved, added or taken away.
func (f *File) Open(keys *Keys) (*Opened, error) {
	key, err := keys.dataKey(f.meta)
	if err != nil {
		return nil, err
	}
	w := &walk{meta: f.meta, key: key, sum: sha512.New()}
	if f.meta.onlyMine {
		w.sum.Write(onlyEncrypted)
	}
	o := &Opened{}
	for _, b := range f.branches {
		opened, err := w.value(b, nil)
		if err != nil {
			return nil, err
		}
		plain, _ := opened.(branch) // of a branch
		o.branches = append(o.branches, plain)
	}
	mac, err := decrypt(f.meta.mac, key, f.meta.modified)
	if err != nil {
		return nil, errBroken
	}
	text, _ := mac.(string)
	if subtle.ConstantTimeCompare([]byte(text), fmt.Appendf(nil, "%X", w.sum.Sum(nil))) != 1 {
		return nil, errors.New("its values are not those that SOPS wrote: the mac does not fit. Something was added, moved or taken away by hand; edit it with sops")
	}
	return o, nil
}

// onlyEncrypted begins the mac of files whose mac is over encrypted values alone (sops.go, MACOnlyEncryptedInitialization).
var onlyEncrypted = []byte{
	0x8a, 0x3f, 0xd2, 0xad, 0x54, 0xce, 0x66, 0x52, 0x7b, 0x10, 0x34, 0xf3, 0xd1, 0x47, 0xbe, 0xb,
	0xb, 0x97, 0x5b, 0x3b, 0xf4, 0x4f, 0x72, 0xc6, 0xfd, 0xad, 0xec, 0x81, 0x76, 0xf2, 0x7d, 0x69,
}

// walk decrypts in the order of the file, and sums up what the mac is over.
type walk struct {
	meta metadata
	key  []byte
	sum  hash.Hash
}

func (w *walk) value(v any, way []string) (any, error) {
	switch in := v.(type) {
	case nil:
		return nil, nil
	case branch:
		out := make(branch, 0, len(in))
		for _, i := range in {
			value, err := w.value(i.value, append(way[:len(way):len(way)], i.key))
			if err != nil {
				return nil, err
			}
			out = append(out, item{i.key, value})
		}
		return out, nil
	case []any:
		out := make([]any, 0, len(in))
		for _, one := range in {
			value, err := w.value(one, way) // a number is no part of the way
			if err != nil {
				return nil, err
			}
			out = append(out, value)
		}
		return out, nil
	}
	return w.leaf(v, way)
}

func (w *walk) leaf(v any, way []string) (any, error) {
	encrypted := w.meta.rule.encrypts(way)
	if encrypted {
		text, ok := v.(string)
		if !ok {
			return nil, fmt.Errorf("its key %q is not encrypted, and should be", strings.Join(way, "."))
		}
		opened, err := decrypt(text, w.key, strings.Join(way, ":")+":")
		switch {
		case errors.Is(err, errPlain):
			return nil, fmt.Errorf("its key %q is not encrypted, and should be", strings.Join(way, "."))
		case err != nil:
			return nil, errBroken
		}
		v = opened
	}
	if encrypted || !w.meta.onlyMine {
		plain, err := plainBytes(v)
		if err != nil {
			return nil, err
		}
		_, _ = w.sum.Write(plain)
	}
	return v, nil
}

// plainBytes is a value as the mac is over it.
func plainBytes(v any) ([]byte, error) {
	switch v := v.(type) {
	case string:
		return []byte(v), nil
	case int:
		return []byte(strconv.Itoa(v)), nil
	case float64:
		return strconv.AppendFloat(nil, v, 'f', -1, 64), nil
	case bool:
		if v {
			return []byte("True"), nil
		}
		return []byte("False"), nil
	case time.Time:
		return v.MarshalText()
	}
	return nil, fmt.Errorf("a value is of a type that SOPS does not know")
}

var (
	encryptedText    = regexp.MustCompile(`^ENC\[AES256_GCM,data:(.+),iv:(.+),tag:(.+),type:(.+)\]`)
	encryptedComment = regexp.MustCompile(`^ENC\[AES256_GCM,.*,type:comment\]$`)
	errPlain         = errors.New("not encrypted")
)

// decrypt opens one value, which is bound to its place by aad. An empty text is an empty one.
func decrypt(text string, key []byte, aad string) (any, error) {
	if text == "" {
		return "", nil
	}
	m := encryptedText.FindStringSubmatch(text)
	if m == nil {
		return nil, errPlain
	}
	var parts [3][]byte
	for i := range parts {
		part, err := base64.StdEncoding.DecodeString(m[i+1])
		if err != nil {
			return nil, errBroken
		}
		parts[i] = part
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	if len(parts[1]) == 0 {
		return nil, errBroken
	}
	gcm, err := cipher.NewGCMWithNonceSize(block, len(parts[1]))
	if err != nil {
		return nil, err
	}
	plain, err := gcm.Open(nil, parts[1], append(parts[0], parts[2]...), []byte(aad))
	if err != nil {
		return nil, errBroken
	}
	return typed(string(plain), m[4])
}

func typed(plain, kind string) (v any, err error) {
	switch kind {
	case "str", "bytes":
		return plain, nil
	case "int":
		v, err = strconv.Atoi(plain)
	case "float":
		v, err = strconv.ParseFloat(plain, 64)
	case "bool":
		v, err = strconv.ParseBool(plain)
	case "time":
		var at time.Time
		err = at.UnmarshalText([]byte(plain))
		v = at
	default:
		err = errBroken
	}
	if err != nil {
		return nil, errBroken // what strconv says quotes the value
	}
	return v, nil
}
