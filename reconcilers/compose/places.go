package compose

import (
	"strconv"
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

// places reads the files once for all instances that share them. What cannot be read is left out. What includes or extends
// comes after what it takes from, as it overrides it.
func (s *Spec) places(c *desired.Check) places {
	files := desired.Once(c, "places of "+strings.Join(s.files(), "\x00"), func() (files []placedFile) {
		read, _ := request{sourceDir: c.SourceDir, files: s.files()}.gather() // Validate tells the error
		for _, file := range read.files {
			for _, root := range file.roots {
				files = append(files, placedFile{repositoryPath(c, file.name), root})
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

// child gives an entry of a mapping, also one that is merged into it (<<), or an item of a list.
func child(node *yaml.Node, key string) (keyNode, value *yaml.Node) {
	return childWithin(node, key, scalarDepth)
}

func childWithin(node *yaml.Node, key string, depth int) (keyNode, value *yaml.Node) {
	node = resolved(node)
	if node == nil || depth == 0 {
		return nil, nil
	}
	if node.Kind == yaml.SequenceNode {
		if i, err := strconv.Atoi(key); err == nil && i >= 0 && i < len(node.Content) {
			return node.Content[i], node.Content[i]
		}
	}
	if node.Kind != yaml.MappingNode {
		return nil, nil
	}
	var merged []*yaml.Node
	for i := 0; i+1 < len(node.Content); i += 2 {
		switch name, value := node.Content[i], node.Content[i+1]; name.Value {
		case key:
			return name, value
		case "<<":
			if value = resolved(value); value.Kind == yaml.SequenceNode {
				merged = append(merged, value.Content...)
			} else {
				merged = append(merged, value)
			}
		}
	}
	for _, from := range merged {
		if keyNode, value = childWithin(from, key, depth-1); keyNode != nil {
			return keyNode, value
		}
	}
	return nil, nil
}

// resolved follows an alias.
func resolved(node *yaml.Node) *yaml.Node {
	for node != nil && node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	return node
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
