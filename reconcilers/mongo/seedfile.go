package mongo

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"sort"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// Limits of one seed file.
const (
	maxSeedBytes     = 16 << 20
	maxSeedDocuments = 100_000
)

// seedDocument is one document of a seed file, with the value of its key field.
type seedDocument struct {
	key      bson.RawValue
	document bson.Raw
	line     int
}

// openSeed reads a seed file of the instance's source folder. A path or a link that leaves the folder is refused.
func openSeed(folder, name, key string) ([]seedDocument, error) {
	root, err := os.OpenRoot(folder)
	if err != nil {
		return nil, fmt.Errorf("open the instance's source folder: %w", cause(err))
	}
	defer func() { _ = root.Close() }()
	file, err := root.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read seed file %s: %w", name, cause(err))
	}
	defer func() { _ = file.Close() }()
	documents, err := readSeed(file, name, key)
	if err != nil {
		return nil, fmt.Errorf("seed file %w", err)
	}
	return documents, nil
}

// readSeed reads documents one by one: from .yaml and .yml a list of maps, from all else a JSON array in which extended
// JSON stands for BSON's other types. Each must have the key, no two the same. Errors begin with name:line.
func readSeed(r io.Reader, name, key string) ([]seedDocument, error) {
	set := seedSet{name: name, key: key, lines: map[string]int{}}
	counted := &lineReader{r: io.LimitReader(r, maxSeedBytes+1)}
	var err error
	switch path.Ext(name) {
	case ".yaml", ".yml":
		err = readYAML(counted, &set)
	default:
		err = readJSON(counted, &set)
	}
	if counted.read > maxSeedBytes {
		return nil, fmt.Errorf("%s: larger than %d MiB, the limit of a seed file", name, maxSeedBytes>>20)
	}
	if err != nil {
		return nil, err
	}
	return set.documents, nil
}

// seedSet collects the documents of a file.
type seedSet struct {
	name, key string
	documents []seedDocument
	lines     map[string]int // of each key
}

func (s *seedSet) errorf(line int, format string, args ...any) error {
	return fmt.Errorf("%s:%d: %w", s.name, line, fmt.Errorf(format, args...))
}

// add takes a document. What the server would not keep as it stands is refused.
func (s *seedSet) add(fields bson.D, line int) error {
	document, err := bson.Marshal(fields)
	if err != nil {
		return s.errorf(line, "%w", err)
	}
	if err := checkShape(document, false, 1); err != nil {
		return s.errorf(line, "%w", err)
	}
	if len(s.documents) == maxSeedDocuments {
		return s.errorf(line, "more than %d documents, the limit of a seed file", maxSeedDocuments)
	}
	value, err := bson.Raw(document).LookupErr(s.key)
	if err != nil {
		return s.errorf(line, "the document has no field %q", s.key)
	}
	switch value.Type {
	case bson.TypeNull, bson.TypeUndefined, bson.TypeArray, bson.TypeRegex:
		return s.errorf(line, "%s is a value of type %s, which identifies no document", s.key, value.Type)
	}
	id := valueID(value)
	if first, twice := s.lines[id]; twice {
		return s.errorf(line, "the document has the same %s as the one of line %d", s.key, first)
	}
	s.lines[id] = line
	s.documents = append(s.documents, seedDocument{key: value, document: document, line: line})
	return nil
}

func readJSON(r *lineReader, set *seedSet) error {
	d := json.NewDecoder(r)
	wrong := func(err error) error {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return set.errorf(r.line(d.InputOffset()), "not a JSON array of documents: %w", err)
	}
	start, err := d.Token()
	if err != nil {
		return wrong(err)
	}
	if start != json.Delim('[') {
		return wrong(fmt.Errorf("it begins with %v", start))
	}
	for d.More() {
		var item json.RawMessage
		if err := d.Decode(&item); err != nil {
			return wrong(err)
		}
		line := r.line(d.InputOffset() - int64(len(item)))
		var fields bson.D
		if len(item) == 0 || item[0] != '{' {
			return set.errorf(line, "not a document")
		}
		if err := bson.UnmarshalExtJSON(item, false, &fields); err != nil {
			return set.errorf(line, "%w", err)
		}
		if err := set.add(fields, line); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil {
		return wrong(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return wrong(errors.New("something follows the array"))
	}
	return nil
}

// lineReader remembers where lines end.
type lineReader struct {
	r    io.Reader
	read int64
	ends []int64
}

func (l *lineReader) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	for i, c := range p[:n] {
		if c == '\n' {
			l.ends = append(l.ends, l.read+int64(i))
		}
	}
	l.read += int64(n)
	return n, err
}

// line gives the line of a byte that was read, from 1.
func (l *lineReader) line(offset int64) int {
	return 1 + sort.Search(len(l.ends), func(i int) bool { return l.ends[i] >= offset })
}

// cause takes the path out of an error about a file: paths of the host say nothing to the manifest's author.
func cause(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}
