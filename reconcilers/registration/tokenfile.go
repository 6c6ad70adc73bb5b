package registration

import (
	"path/filepath"
	"sync"

	"dive-agent/reconcilers/internal/jsonfile"
)

// tokenFile holds tokens by spoke id, in the component's private folder, mode 0600.
type tokenFile[T any] struct {
	name         string
	reads, keeps string // what is done, for errors: "read the tokens of ..."
}

// mintedTokens are those that are handed over, opalTokens those that OPAL clients of the federation run on.
var (
	mintedTokens = tokenFile[mintedToken]{"tokens.json", "read the tokens that are handed over", "keep a token that is handed over"}
	opalTokens   = tokenFile[opalToken]{"opal-tokens.json", "read the tokens of OPAL clients", "keep the token of an OPAL client"}
)

// read gives them. A file that cannot be read as such is put aside: tokens are made again.
func (f tokenFile[T]) read(dir string) (map[string]T, error) {
	tokens, err := jsonfile.Read[map[string]T](filepath.Join(dir, f.name), f.reads)
	if tokens == nil {
		tokens = map[string]T{}
	}
	return tokens, err
}

// keep keeps the token of a spoke; nil forgets it. mu is held while the file is read, changed and written.
func (f tokenFile[T]) keep(mu *sync.Mutex, dir, id string, token *T) error {
	mu.Lock()
	defer mu.Unlock()
	all, err := f.read(dir)
	if err != nil {
		return err
	}
	if _, known := all[id]; token == nil && !known {
		return nil
	}
	delete(all, id)
	if token != nil {
		all[id] = *token
	}
	return jsonfile.Write(filepath.Join(dir, f.name), f.keeps, all)
}
