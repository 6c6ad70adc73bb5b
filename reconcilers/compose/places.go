package compose

import (
	"io/fs"
	"strings"

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

// places reads the files once for all instances that share them. What is no YAML is left out.
func (s *Spec) places(c *desired.Check) places {
	files := desired.Once(c, "places of "+strings.Join(s.files(), "\x00"), func() (files []placedFile) {
		for _, file := range s.files() {
			content, err := fs.ReadFile(c.Files, file)
			var doc yaml.Node
			if err == nil && yaml.Unmarshal(content, &doc) == nil && len(doc.Content) > 0 {
				files = append(files, placedFile{repositoryPath(c, file), doc.Content[0]})
			}
		}
		return files
	})
	return places{files: files, other: c.Component.Position}
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
