package mongo

import (
	"fmt"
	"math/big"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// maxDepth is how deep documents may be nested (manual, "MongoDB Limits and Thresholds").
const maxDepth = 100

// checkShape refuses what a server would not keep as it stands: a field that stands twice, or too deep a document.
func checkShape(document bson.Raw, isArray bool, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("nested deeper than %d levels", maxDepth)
	}
	elements, err := document.Elements()
	if err != nil {
		return err
	}
	seen := make(map[string]bool, len(elements))
	for _, e := range elements {
		if !isArray && seen[e.Key()] {
			return fmt.Errorf("field %q stands twice", e.Key())
		}
		seen[e.Key()] = true
		if inner, array, ok := inside(e.Value()); ok {
			if err := checkShape(inner, array, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

// inside gives the document or the array that a value is.
func inside(v bson.RawValue) (inner bson.Raw, array, ok bool) {
	switch v.Type {
	case bson.TypeEmbeddedDocument:
		return v.Document(), false, true
	case bson.TypeArray:
		return bson.Raw(v.Array()), true, true
	}
	return nil, false, false
}

// sameDocument says whether two documents are the same but for the order of fields and the types of equal numbers: a
// client that reads and writes a document back may change both. Fields named in but count in neither.
func sameDocument(a, b bson.Raw, but ...string) bool {
	one, err := a.Elements()
	other, otherErr := b.Elements()
	if err != nil || otherErr != nil {
		return false
	}
	fields := map[string]bson.RawValue{}
	for _, e := range one {
		fields[e.Key()] = e.Value()
	}
	there := map[string]bson.RawValue{}
	for _, e := range other {
		there[e.Key()] = e.Value()
	}
	for _, name := range but {
		delete(fields, name)
		delete(there, name)
	}
	if len(fields) != len(there) {
		return false
	}
	for name, value := range fields {
		if match, has := there[name]; !has || !sameValue(value, match) {
			return false
		}
	}
	return true
}

func sameValue(a, b bson.RawValue) bool {
	if a.IsNumber() && b.IsNumber() {
		return valueID(a) == valueID(b)
	}
	if a.Type != b.Type {
		return false
	}
	if inner, _, ok := inside(a); ok { // an array's fields are its positions
		other, _, _ := inside(b)
		return sameDocument(inner, other)
	}
	return valueID(a) == valueID(b)
}

// valueID makes values comparable as the server compares them: numbers by value, whatever their type.
func valueID(v bson.RawValue) string {
	if v.IsNumber() {
		var text string
		switch v.Type {
		case bson.TypeInt32, bson.TypeInt64:
			text = fmt.Sprint(v.AsInt64())
		case bson.TypeDouble:
			if f := v.Double(); f == f && f-f == 0 { // neither NaN nor infinite
				text = new(big.Rat).SetFloat64(f).RatString()
			} else {
				text = fmt.Sprint(f)
			}
		default:
			text = v.Decimal128().String()
			if exact, ok := new(big.Rat).SetString(text); ok && !strings.Contains(text, "E") {
				text = exact.RatString()
			}
		}
		return "n" + text
	}
	return string(append([]byte{byte(v.Type)}, v.Value...))
}
