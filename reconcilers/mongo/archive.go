package mongo

import (
	"archive/tar"
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// A backup is a tar, compressed by zstd, encrypted by age where a recipient is declared: data/COLLECTION/PART.bson, each
// some documents one after the other, and last manifest.json, whose list of collections gives COLLECTION its meaning. A
// file without its end is known as one that was cut off.
const (
	archiveFormat   = 1
	archiveManifest = "manifest.json"
	partBytes       = 4 << 20  // a part is closed when it is larger
	maxPartBytes    = 64 << 20 // what a reader takes
	ageIntro        = "age-encryption.org/"
)

// contents is the manifest of a backup.
type contents struct {
	Format      int                `json:"format"`
	Set         string             `json:"set"`
	Version     string             `json:"version"`
	Taken       time.Time          `json:"taken"`
	From        string             `json:"from"` // host:port of the member
	Collections []dumpedCollection `json:"collections"`
}

// dumpedCollection is a collection, or a view, which has no documents.
type dumpedCollection struct {
	Database  string            `json:"database"`
	Name      string            `json:"collection"`
	Type      string            `json:"type"`              // collection or view
	Options   json.RawMessage   `json:"options"`           // extended JSON, as listCollections gives them
	Indexes   []json.RawMessage `json:"indexes,omitempty"` // extended JSON, as listIndexes gives them
	Documents int64             `json:"documents"`
	SHA256    string            `json:"sha256"` // of all its documents, one after the other
}

func (d dumpedCollection) namespace() string { return d.Database + "." + d.Name }

// archiveWriter writes documents and remembers what the manifest tells of them.
type archiveWriter struct {
	tar      *tar.Writer
	contents contents
}

// writeArchive makes a backup of what fill adds. An empty recipient leaves it unencrypted.
func writeArchive(w io.Writer, recipient string, head contents, fill func(*archiveWriter) error) (err error) {
	var layers []io.Closer
	if recipient != "" {
		to, err := age.ParseX25519Recipient(recipient)
		if err != nil {
			return fmt.Errorf("the recipient of the backup: %w", err)
		}
		sealed, err := age.Encrypt(w, to)
		if err != nil {
			return err
		}
		w, layers = sealed, append(layers, sealed)
	}
	packed, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return err
	}
	a := &archiveWriter{tar: tar.NewWriter(packed), contents: head}
	a.contents.Format = archiveFormat
	layers = append(layers, packed, a.tar)
	err = fill(a)
	if err == nil {
		var manifest []byte
		if manifest, err = json.MarshalIndent(a.contents, "", "  "); err == nil {
			err = a.entry(archiveManifest, manifest)
		}
	}
	for i := len(layers) - 1; i >= 0; i-- { // the innermost first, also after an error: the compressor holds memory
		err = errors.Join(err, layers[i].Close())
	}
	return err
}

func (a *archiveWriter) entry(name string, content []byte) error {
	header := &tar.Header{Name: name, Mode: 0o600, Size: int64(len(content)), ModTime: a.contents.Taken, Typeflag: tar.TypeReg}
	if err := a.tar.WriteHeader(header); err != nil {
		return err
	}
	_, err := a.tar.Write(content)
	return err
}

// add writes a collection. next gives its documents one by one and nil at the end; each is used before the next call.
func (a *archiveWriter) add(c dumpedCollection, next func() (bson.Raw, error)) error {
	number, parts, sum := len(a.contents.Collections), 0, sha256.New()
	var part bytes.Buffer
	flush := func() error {
		if part.Len() == 0 {
			return nil
		}
		parts++
		defer part.Reset()
		return a.entry(fmt.Sprintf("data/%06d/%06d.bson", number, parts), part.Bytes())
	}
	for {
		document, err := next()
		if err != nil {
			return err
		}
		if document == nil {
			break
		}
		_, _ = sum.Write(document)
		part.Write(document)
		c.Documents++
		if part.Len() > partBytes {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	c.SHA256 = hex.EncodeToString(sum.Sum(nil))
	a.contents.Collections = append(a.contents.Collections, c)
	return flush()
}

// damaged is what every error about a backup's content says.
func damaged(format string, args ...any) error {
	return fmt.Errorf("the backup is damaged: %w", fmt.Errorf(format, args...))
}

// readArchive reads a backup from its begin to its end and gives each part to see, which may be nil. Only when it returns
// no error is the backup whole: each collection has its documents and its checksum.
func readArchive(path, identity string, see func(collection int, documents []bson.Raw) error) (contents, error) {
	file, err := os.Open(path)
	if err != nil {
		return contents{}, err
	}
	defer func() { _ = file.Close() }()
	plain, err := unseal(bufio.NewReaderSize(file, 1<<16), identity)
	if err != nil {
		return contents{}, err
	}
	packed, err := zstd.NewReader(plain, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(256<<20))
	if err != nil {
		return contents{}, damaged("%w", err)
	}
	defer packed.Close()
	found := &tally{see: see}
	entries := tar.NewReader(packed)
	for {
		header, err := entries.Next()
		if err != nil {
			return contents{}, damaged("it ends before its manifest: %w", err)
		}
		if header.Typeflag != tar.TypeReg || header.Size > maxPartBytes {
			return contents{}, damaged("entry %q is none of a backup", header.Name)
		}
		content, err := io.ReadAll(io.LimitReader(entries, maxPartBytes))
		if err != nil {
			return contents{}, damaged("entry %q: %w", header.Name, err)
		}
		if header.Name != archiveManifest {
			if err := found.part(header.Name, content); err != nil {
				return contents{}, err
			}
			continue
		}
		if _, err := entries.Next(); !errors.Is(err, io.EOF) {
			return contents{}, damaged("something follows its manifest")
		}
		return found.check(content)
	}
}

func unseal(r *bufio.Reader, identity string) (io.Reader, error) {
	intro, _ := r.Peek(len(ageIntro))
	if string(intro) != ageIntro {
		return r, nil
	}
	if identity == "" {
		return nil, errors.New("the backup is encrypted: name the file with its age identity, AGE-SECRET-KEY-... (--identity FILE)")
	}
	file, err := os.Open(identity)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	identities, err := age.ParseIdentities(file)
	if err != nil {
		return nil, fmt.Errorf("%s holds no age identity", identity) // the cause may quote a line of it
	}
	plain, err := age.Decrypt(r, identities...)
	var none *age.NoIdentityMatchError
	switch {
	case errors.As(err, &none):
		return nil, fmt.Errorf("the backup was encrypted for another identity than that of %s", identity)
	case err != nil:
		return nil, damaged("%w", err)
	}
	return plain, nil
}

// tally counts what is read, to hold it against the manifest.
type tally struct {
	see  func(int, []bson.Raw) error
	sums []*partSum
}

type partSum struct {
	documents int64
	parts     int
	sum       interface {
		io.Writer
		Sum([]byte) []byte
	}
}

func (t *tally) part(name string, content []byte) error {
	var number, part int
	if n, err := fmt.Sscanf(strings.TrimSuffix(name, ".bson"), "data/%d/%d", &number, &part); n != 2 || err != nil || number < 0 || number > len(t.sums)+1<<16 {
		return damaged("entry %q is none of a backup", name)
	}
	for len(t.sums) <= number {
		t.sums = append(t.sums, &partSum{sum: sha256.New()})
	}
	of := t.sums[number]
	if of.parts++; part != of.parts {
		return damaged("part %d of collection %d is missing", of.parts, number)
	}
	_, _ = of.sum.Write(content)
	var documents []bson.Raw
	for rest := content; len(rest) > 0; {
		document, err := bson.ReadDocument(bytes.NewReader(rest))
		if err == nil {
			err = document.Validate()
		}
		if err != nil {
			return damaged("entry %q: %w", name, err)
		}
		rest = rest[len(document):]
		documents = append(documents, document)
	}
	of.documents += int64(len(documents))
	if t.see == nil {
		return nil
	}
	return t.see(number, documents)
}

func (t *tally) check(manifest []byte) (contents, error) {
	var c contents
	if err := json.Unmarshal(manifest, &c); err != nil {
		return contents{}, damaged("its manifest: %w", err)
	}
	if c.Format != archiveFormat {
		return contents{}, fmt.Errorf("the backup has format %d; this program reads %d", c.Format, archiveFormat)
	}
	if len(t.sums) > len(c.Collections) {
		return contents{}, damaged("it has data of a collection that its manifest does not name")
	}
	for i, d := range c.Collections {
		have := &partSum{sum: sha256.New()}
		if i < len(t.sums) {
			have = t.sums[i]
		}
		if have.documents != d.Documents || hex.EncodeToString(have.sum.Sum(nil)) != d.SHA256 {
			return contents{}, damaged("%s has %d documents with another checksum than the manifest's %d", d.namespace(), have.documents, d.Documents)
		}
	}
	return c, nil
}
