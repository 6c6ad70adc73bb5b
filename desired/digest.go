package desired

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
)

// digests gives fleet and instances their digests. What does not shape an instance (other instances but for
// what it takes of them, unused blueprints, comments in fleet.yaml) does not change its digest.
func (l *loader) digests() {
	all := sha256.New()
	put(all, "fleet", l.fleetText)
	put(all, "ca", []byte(l.fleet.Hub.CA))
	for _, name := range slices.Sorted(maps.Keys(l.fleet.Hosts)) {
		h := l.fleet.Hosts[name]
		put(all, "host", []byte(h.Name), []byte(h.MachineID))
		put(all, "recipients", bytesOf(h.Recipients)...)
		put(all, "signingKeys", bytesOf(h.SigningKeys)...)
	}
	folders := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(l.blueprints)) {
		source := l.blueprints[name].source
		folders[source] = l.folderDigest(source)
		put(all, "blueprint", []byte(source), []byte(folders[source]))
	}
	for _, b := range l.builders {
		i := b.instance
		if _, known := folders[i.Source]; !known {
			folders[i.Source] = l.folderDigest(i.Source)
		}
		sum := sha256.New()
		put(sum, "instance", b.text, []byte(folders[i.Source]))
		put(sum, "hub", []byte(l.fleet.Hub.Instance), []byte(l.fleet.Hub.URL), []byte(l.fleet.Hub.CA))
		for _, name := range slices.Sorted(maps.Keys(l.values)) {
			if b.blueprint != nil && b.blueprint.decls[name] != nil {
				put(sum, "value", []byte(name), l.values[name].canonical(nil))
			}
		}
		b.fleetDigest(sum)
		i.Digest = hex.EncodeToString(sum.Sum(nil))
		put(all, "instance", []byte(i.Name), []byte(i.Digest))
	}
	l.fleet.Digest = hex.EncodeToString(all.Sum(nil))
}

// put adds named fields so that no two different lists look alike.
func put(h hash.Hash, name string, fields ...[]byte) {
	_, _ = fmt.Fprintf(h, "%s %d\n", name, len(fields))
	for _, f := range fields {
		_, _ = fmt.Fprintf(h, "%d\n", len(f))
		_, _ = h.Write(f)
	}
}

func bytesOf(texts []string) [][]byte {
	out := make([][]byte, len(texts))
	for i, text := range texts {
		out[i] = []byte(text)
	}
	return out
}

// canonical writes a node without its place.
func (n *node) canonical(out []byte) []byte {
	switch n.kind {
	case mappingNode:
		out = append(out, '{')
		for _, f := range n.fields {
			out = fmt.Appendf(out, "%q:", f.name)
			out = append(f.value.canonical(out), ',')
		}
		return append(out, '}')
	case sequenceNode:
		out = append(out, '[')
		for _, item := range n.items {
			out = append(item.canonical(out), ',')
		}
		return append(out, ']')
	}
	return fmt.Appendf(out, "%s%q", n.tag, n.text)
}

// folderDigest covers names, content and executable bits of all files of a folder, less what tools leave there. A file
// that cannot be read counts as its error.
func (l *loader) folderDigest(folder string) string {
	sum := sha256.New()
	err := fs.WalkDir(l.files, folder, func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			if name == folder && errors.Is(err, fs.ErrNotExist) {
				return fs.SkipAll
			}
			put(sum, "error", []byte(name), []byte(cause(err).Error()))
			return nil
		case entry.IsDir() && (entry.Name() == ".terraform" || entry.Name() == ".git"):
			return fs.SkipDir
		case entry.IsDir():
			return nil
		}
		l.fileDigest(sum, path.Clean(name))
		return nil
	})
	if err != nil {
		put(sum, "error", []byte(err.Error()))
	}
	return hex.EncodeToString(sum.Sum(nil))
}

func (l *loader) fileDigest(sum hash.Hash, name string) {
	content := sha256.New()
	info, err := fs.Stat(l.files, name)
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	var file fs.File
	if err == nil {
		file, err = l.files.Open(name)
	}
	if err == nil {
		_, err = io.Copy(content, file)
		defer func() { _ = file.Close() }()
	}
	if err != nil {
		put(sum, "error", []byte(name), []byte(cause(err).Error()))
		return
	}
	executable := []byte("-")
	if info.Mode()&0o111 != 0 {
		executable = []byte("x")
	}
	put(sum, "file", []byte(name), executable, content.Sum(nil))
}
