package compose

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"maps"
	"sync"

	"github.com/compose-spec/compose-go/v2/interpolation"
	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/template"
	"github.com/compose-spec/compose-go/v2/tree"
	"github.com/compose-spec/compose-go/v2/types"
)

// rawModel is a stack with its variables still in it: what all instances of a blueprint have in common. It is shared
// and must not be changed.
type rawModel struct {
	details   types.ConfigDetails // with the contents of the files
	named     map[string]bool     // see gatherer
	dict      map[string]any
	variables map[string]template.Variable
	keys      map[string]bool // all keys of all mappings
	sources   map[string]bool // variables that the source of a volume begins with: "${DIR}/a:/a" binds a path, or mounts a volume
	stamps    []stamp
}

// unresolved keeps the stacks that were read last, by their files.
var unresolved = rawCache{entries: map[[32]byte]*rawModel{}}

type rawCache struct {
	mu      sync.Mutex
	entries map[[32]byte]*rawModel
}

const rawLimit = 32

func (c *rawCache) load(ctx context.Context, r request) (*rawModel, error) {
	text, err := json.Marshal([]any{r.sourceDir, r.files})
	if err != nil {
		return nil, err
	}
	key := sha256.Sum256(text)
	c.mu.Lock()
	defer c.mu.Unlock()
	if raw, ok := c.entries[key]; ok && fresh(raw.stamps) {
		return raw, nil
	}
	raw, err := loadRaw(ctx, r)
	if err != nil {
		return nil, err
	}
	if len(c.entries) >= rawLimit {
		clear(c.entries)
	}
	c.entries[key] = raw
	return raw, nil
}

func loadRaw(ctx context.Context, r request) (*rawModel, error) {
	details, named, err := r.details()
	if err != nil {
		return nil, err
	}
	r.named = named
	raw := &rawModel{details: details, named: named, keys: map[string]bool{}}
	for _, file := range details.ConfigFiles {
		raw.stamps = append(raw.stamps, stampOf(file.Filename))
	}
	// No environment, else `environment: [NAME]` would be resolved.
	details.Environment = types.Mapping{}
	included := func(o *loader.Options) {
		o.Listeners = append(o.Listeners, func(_ string, about map[string]any) { raw.stamp(r, about) })
	}
	err = recovered(func() (err error) {
		raw.dict, err = loader.LoadModelWithContext(ctx, details, r.rawOptions, included)
		return err
	})
	if err != nil {
		return nil, r.explain(err)
	}
	raw.variables = template.ExtractVariables(raw.dict, template.DefaultPattern)
	raw.collectKeys(raw.dict)
	raw.sources = volumeSources(raw.dict)
	return raw, nil
}

// stamp notes a file that the Compose file includes or extends.
func (raw *rawModel) stamp(r request, about map[string]any) {
	var files []string
	switch path := about["path"].(type) {
	case types.StringList:
		files = path
	case []string:
		files = path
	case string:
		files = []string{path}
	}
	if file, ok := about["file"].(string); ok {
		files = append(files, file)
	}
	for _, file := range files {
		if path, err := r.inside(file); err == nil {
			raw.stamps = append(raw.stamps, stampOf(path))
		}
	}
}

func (raw *rawModel) collectKeys(node any) {
	switch n := node.(type) {
	case map[string]any:
		for key, value := range n {
			raw.keys[key] = true
			raw.collectKeys(value)
		}
	case []any:
		for _, value := range n {
			raw.collectKeys(value)
		}
	}
}

// prune leaves out the type casts for keys that the stack does not have: compose-go tries each on every text.
func (raw *rawModel) prune(casts map[tree.Path]interpolation.Cast) map[tree.Path]interpolation.Cast {
	kept := maps.Clone(casts)
	for path := range casts {
		for _, key := range path.Parts() {
			if key != tree.PathMatchAll && key != tree.PathMatchList && !raw.keys[key] {
				delete(kept, path)
				break
			}
		}
	}
	return kept
}

func fresh(stamps []stamp) bool {
	for _, s := range stamps {
		if stampOf(s.path) != s {
			return false
		}
	}
	return true
}
