package mongo

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"gopkg.in/yaml.v3"
)

// readYAML reads lists of maps; several YAML documents in one file are one list.
func readYAML(r io.Reader, set *seedSet) error {
	d := yaml.NewDecoder(r)
	for {
		var file yaml.Node
		err := d.Decode(&file)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", set.name, err)
		}
		if len(file.Content) != 1 || file.Content[0].Kind != yaml.SequenceNode {
			return set.errorf(max(file.Line, 1), "not a YAML list of documents")
		}
		for _, item := range file.Content[0].Content {
			value, err := fromYAML(item, 1)
			if err != nil {
				return set.errorf(item.Line, "%w", err)
			}
			fields, ok := value.(bson.D)
			if !ok {
				return set.errorf(item.Line, "not a document")
			}
			if err := set.add(fields, item.Line); err != nil {
				return err
			}
		}
	}
}

// fromYAML makes a BSON value of a node: integers as small as they fit, timestamps as dates. A map with one of extended
// JSON's names, such as {$oid: ...}, is what extended JSON makes of it.
func fromYAML(n *yaml.Node, depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("nested deeper than %d levels", maxDepth)
	}
	switch n.Kind {
	case yaml.SequenceNode:
		list := make(bson.A, 0, len(n.Content))
		for _, item := range n.Content {
			value, err := fromYAML(item, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, value)
		}
		return list, nil
	case yaml.MappingNode:
		return mapFromYAML(n, depth)
	case yaml.ScalarNode:
		value, err := scalarFromYAML(n)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n.Line, err)
		}
		return value, nil
	}
	return nil, fmt.Errorf("line %d: aliases (*name) are not read in seed files, write the value out", n.Line)
}

func mapFromYAML(n *yaml.Node, depth int) (any, error) {
	fields := make(bson.D, 0, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		name := n.Content[i]
		if name.Kind != yaml.ScalarNode || name.Tag == "!!merge" {
			return nil, fmt.Errorf("line %d: a field's name is a text", name.Line)
		}
		value, err := fromYAML(n.Content[i+1], depth+1)
		if err != nil {
			return nil, err
		}
		fields = append(fields, bson.E{Key: name.Value, Value: value})
	}
	if len(fields) == 0 || !strings.HasPrefix(fields[0].Key, "$") {
		return fields, nil
	}
	var plain any
	if err := n.Decode(&plain); err != nil {
		return nil, fmt.Errorf("line %d: %w", n.Line, err)
	}
	text, err := json.Marshal(map[string]any{"v": plain})
	if err != nil {
		return nil, fmt.Errorf("line %d: %w", n.Line, err)
	}
	var wrapped bson.D
	if err := bson.UnmarshalExtJSON(text, false, &wrapped); err != nil || len(wrapped) != 1 {
		return nil, fmt.Errorf("line %d: no value of extended JSON: %w", n.Line, err)
	}
	return wrapped[0].Value, nil
}

func scalarFromYAML(n *yaml.Node) (any, error) {
	switch n.ShortTag() {
	case "!!str":
		return n.Value, nil
	case "!!null":
		return nil, nil
	case "!!bool":
		var b bool
		err := n.Decode(&b)
		return b, err
	case "!!int":
		var i int64
		if err := n.Decode(&i); err != nil {
			return nil, fmt.Errorf("%s does not fit into a whole number of 64 bits", n.Value)
		}
		if i >= math.MinInt32 && i <= math.MaxInt32 {
			return int32(i), nil
		}
		return i, nil
	case "!!float":
		if strings.Trim(n.Value, "+-0123456789_") == "" {
			return nil, fmt.Errorf("%s does not fit into a whole number of 64 bits", n.Value)
		}
		var f float64
		err := n.Decode(&f)
		return f, err
	case "!!timestamp":
		var t time.Time
		err := n.Decode(&t)
		return bson.NewDateTimeFromTime(t), err
	case "!!binary":
		var s string
		err := n.Decode(&s)
		return bson.Binary{Data: []byte(s)}, err
	}
	return nil, fmt.Errorf("no value of BSON has the type %s", n.Tag)
}
