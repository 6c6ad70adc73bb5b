package mongo

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// maxSeedBytes bounds one seed file.
const maxSeedBytes = 16 << 20

// seedDocument is one document of a seed file, with the value of its key field.
type seedDocument struct {
	key      bson.RawValue
	document bson.Raw
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
	documents, err := readSeed(file, key)
	if err != nil {
		return nil, fmt.Errorf("seed file %s: %w", name, err)
	}
	return documents, nil
}

// readSeed reads an array of documents in JSON or extended JSON. Each must have the key, no two the same.
func readSeed(r io.Reader, key string) ([]seedDocument, error) {
	raw, err := io.ReadAll(io.LimitReader(r, maxSeedBytes+1))
	if err != nil {
		return nil, err
	}
	if len(raw) > maxSeedBytes {
		return nil, fmt.Errorf("larger than %d MiB", maxSeedBytes>>20)
	}
	var items []json.RawMessage
	if err := json.Unmarshal(raw, &items); err != nil {
		return nil, fmt.Errorf("not a JSON array of documents: %w", err)
	}
	documents := make([]seedDocument, 0, len(items))
	seen := map[string]int{}
	for i, item := range items {
		document, err := readDocument(item)
		if err != nil {
			return nil, fmt.Errorf("document %d: %w", i+1, err)
		}
		value, err := document.LookupErr(key)
		if err != nil {
			return nil, fmt.Errorf("document %d has no field %q", i+1, key)
		}
		id := keyID(value)
		if first, twice := seen[id]; twice {
			return nil, fmt.Errorf("documents %d and %d have the same %s", first, i+1, key)
		}
		seen[id] = i + 1
		documents = append(documents, seedDocument{key: value, document: document})
	}
	return documents, nil
}

func readDocument(text []byte) (bson.Raw, error) {
	var fields bson.D
	if err := bson.UnmarshalExtJSON(text, false, &fields); err != nil {
		return nil, err
	}
	return bson.Marshal(fields)
}

// keyID makes values comparable as the server compares them: numbers by value, whatever their type.
func keyID(v bson.RawValue) string {
	if n, ok := v.AsInt64OK(); ok {
		return fmt.Sprintf("n%d", n)
	}
	return string(append([]byte{byte(v.Type)}, v.Value...))
}

// cause takes the path out of an error about a file: paths of the host say nothing to the manifest's author.
func cause(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}
