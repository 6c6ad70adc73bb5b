package compose

import (
	"crypto/sha256"
	"io/fs"
	"sync"

	"gopkg.in/yaml.v3"

	"dive-agent/desired"
)

// places finds where things stand in the Compose files, which compose-go does not tell.
type places struct {
	files []placedFile
	other desired.Position // when it stands in none
}

type placedFile struct {
	name string // in the repository
	root *yaml.Node
}

func (s *Spec) places(c *desired.Check) places {
	p := places{other: c.Component.Position}
	for _, file := range s.files() {
		content, err := fs.ReadFile(c.Files, file)
		if err != nil {
			continue
		}
		if root := parsed.root(content); root != nil {
			p.files = append(p.files, placedFile{repositoryPath(c, file), root})
		}
	}
	return p
}

// parsed keeps the nodes of the Compose files that were looked at last: many instances share one.
var parsed nodeCache

type nodeCache struct {
	mu    sync.Mutex
	roots map[[32]byte]*yaml.Node
}

// root gives the top node of a file, which nobody changes, or nil when it is no YAML.
func (n *nodeCache) root(content []byte) *yaml.Node {
	key := sha256.Sum256(content)
	n.mu.Lock()
	defer n.mu.Unlock()
	if root, ok := n.roots[key]; ok {
		return root
	}
	if len(n.roots) >= 64 || n.roots == nil {
		n.roots = map[[32]byte]*yaml.Node{}
	}
	var doc yaml.Node
	if yaml.Unmarshal(content, &doc) != nil || len(doc.Content) == 0 {
		n.roots[key] = nil
		return nil
	}
	n.roots[key] = doc.Content[0]
	return doc.Content[0]
}

// find gives the place of the value at a path of keys, or of the nearest key above it that is there. A later file
// overrides an earlier one.
func (p places) find(keys ...string) desired.Position {
	best, depth := p.other, 0
	for _, file := range p.files {
		node, at := file.root, (*yaml.Node)(nil)
		reached := 0
		for _, key := range keys {
			keyNode, value := child(node, key)
			if keyNode == nil {
				break
			}
			at, node = keyNode, value
			reached++
		}
		if at != nil && reached >= depth {
			best, depth = desired.Position{File: file.name, Line: at.Line, Column: at.Column}, reached
		}
	}
	return best
}

// findText gives the place of the first scalar that satisfies the test, below the keys.
func (p places) findText(test func(text string) bool, keys ...string) (desired.Position, bool) {
	for _, file := range p.files {
		node := file.root
		for _, key := range keys {
			if _, node = child(node, key); node == nil {
				break
			}
		}
		if found := scalar(node, test, 0); found != nil {
			return desired.Position{File: file.name, Line: found.Line, Column: found.Column}, true
		}
	}
	return p.other, false
}

func child(node *yaml.Node, key string) (keyNode, value *yaml.Node) {
	for node != nil && node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	if node == nil || node.Kind != yaml.MappingNode {
		return nil, nil
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		if node.Content[i].Value == key {
			return node.Content[i], node.Content[i+1]
		}
	}
	return nil, nil
}

// scalarDepth bounds the search in files that were not checked for aliases that contain themselves.
const scalarDepth = 50

func scalar(node *yaml.Node, test func(text string) bool, depth int) *yaml.Node {
	if node == nil || depth > scalarDepth {
		return nil
	}
	if node.Kind == yaml.ScalarNode && test(node.Value) {
		return node
	}
	for _, below := range node.Content {
		if found := scalar(below, test, depth+1); found != nil {
			return found
		}
	}
	return nil
}
