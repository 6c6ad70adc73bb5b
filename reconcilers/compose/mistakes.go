package compose

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/compose-spec/compose-go/v2/interpolation"
	"github.com/compose-spec/compose-go/v2/schema"
	"github.com/compose-spec/compose-go/v2/template"
	"gopkg.in/yaml.v3"

	"dive-agent/desired"
)

// checkVariables reports every variable of the Compose files that has neither a value nor a default, and gives their names.
func (s *Spec) checkVariables(c *desired.Check) (unset []string) {
	r := request{sourceDir: c.SourceDir, project: "check", files: s.files(), env: map[string]string{}, shallow: true}
	at := s.places(c)
	variables := map[string]template.Variable{}
	if raw, err := unresolved.load(context.Background(), r); err == nil {
		variables = raw.variables
	} else { // reported with the rest
		for _, file := range at.files {
			var document map[string]any
			if file.root.Decode(&document) == nil {
				maps.Copy(variables, template.ExtractVariables(document, template.DefaultPattern))
			}
		}
	}
	for _, name := range sortedKeys(variables) {
		variable := variables[name]
		_, set := s.Environment[name]
		if set || name == secretsVariable || name == "COMPOSE_PROJECT_NAME" || variable.PresenceValue != "" {
			continue
		}
		use := regexp.MustCompile(`\$(\{` + name + `\}|` + name + `\b|\{` + name + `:?\?)`)
		where, plain := at.findText(use.MatchString)
		if !plain {
			continue // every use of it has a default
		}
		unset = append(unset, name)
		c.Errorf(where, "variable %s is not set: add it to environment of component %s, or write $$ for a plain $", name, c.Component.Name)
	}
	return unset
}

var (
	yamlLine      = regexp.MustCompile(`line (\d+)`)
	pathInText    = regexp.MustCompile(`(services|networks|volumes|configs|secrets)\.[A-Za-z0-9_.\-\[\]]+`)
	serviceInText = regexp.MustCompile(`service "?([A-Za-z0-9_.-]+)"?`)
	unknownInText = regexp.MustCompile(`additional propert\S+ (.*) not allowed`)
	quotedInText  = regexp.MustCompile(`'([^']+)'`)
)

// reportLoad tells what is wrong with Compose files that cannot be loaded: all that Compose's schema finds in them, else
// all names that nothing has, else what the loader said first, at the place that it speaks of.
func (s *Spec) reportLoad(c *desired.Check, err error, unset []string) {
	var placed *placedError
	if errors.As(err, &placed) {
		at := placed.at
		at.File = repositoryPath(c, at.File)
		c.Errorf(at, "%s", placed.text)
		return
	}
	at := s.places(c)
	if s.reportSchema(c, at, unset) || s.reportReferences(c, at) {
		return
	}
	text := err.Error()
	where := at.find()
	if len(at.files) > 0 {
		where = desired.Position{File: at.files[len(at.files)-1].name}
	}
	if path := pathInText.FindString(text); path != "" {
		where = at.find(strings.Split(strings.TrimRight(path, ".:"), ".")...)
	} else if service := serviceInText.FindStringSubmatch(text); service != nil {
		where = at.find("services", service[1])
	} else if line := yamlLine.FindStringSubmatch(text); line != nil && len(s.files()) == 1 {
		where = desired.Position{File: repositoryPath(c, s.files()[0]), Line: atoi(line[1])}
	}
	c.Errorf(where, "%s", text)
}

// reportSchema reports all that Compose's schema finds in each of the files.
func (s *Spec) reportSchema(c *desired.Check, at places, unset []string) (found bool) {
	r, err := s.checkRequest(c, unset)
	if err != nil {
		return false
	}
	for _, file := range at.files {
		for _, m := range schemaMistakes(file.root, r) {
			found = true
			c.Errorf(places{files: []placedFile{file}, other: desired.Position{File: file.name, Line: 1, Column: 1}}.find(m.path...), "%s", m.text)
		}
	}
	return found
}

// schemaMistake is one thing that Compose's schema does not allow.
type schemaMistake struct {
	path []string
	text string
}

// schemaMistakesLimit bounds what is told of one file.
const schemaMistakesLimit = 50

// schemaMistakes asks the schema again and again, and each time takes out of the document what it found: it tells one
// mistake at a time.
func schemaMistakes(root *yaml.Node, r request) (list []schemaMistake) {
	if hasOwnTags(root) {
		return nil
	}
	var document map[string]any
	if err := root.Decode(&document); err != nil {
		return nil
	}
	document, err := interpolation.Interpolate(document, interpolation.Options{
		LookupValue: func(name string) (string, bool) {
			value, ok := r.env[name]
			return value, ok
		},
		Substitute: func(text string, mapping template.Mapping) (string, error) {
			if value, err := substituteStrictly(text, mapping); err == nil {
				return value, nil
			}
			return standIn, nil // told elsewhere
		},
	})
	if err != nil {
		return nil
	}
	for len(list) < schemaMistakesLimit {
		err := schema.Validate(document)
		if err == nil {
			return list
		}
		where, text, _ := strings.Cut(err.Error(), " ")
		path := pathOf(document, where)
		unknown := unknownInText.FindStringSubmatch(err.Error())
		if unknown == nil && len(path) == 0 {
			return list // no mistake of the schema's
		}
		if unknown == nil {
			list = append(list, schemaMistake{path, strings.Join(path, ".") + " " + text})
			if !takeOut(document, path) {
				return list
			}
			continue
		}
		names := quotedInText.FindAllStringSubmatch(unknown[1], -1)
		if len(names) == 0 {
			return list
		}
		for _, name := range names {
			list = append(list, unknownKey(path, name[1]))
			if !takeOut(document, append(slices.Clone(path), name[1])) {
				return list
			}
		}
	}
	return list
}

// hasOwnTags says whether a document holds tags of Compose's own, !reset and !override, which mean something other than
// what they stand before.
func hasOwnTags(node *yaml.Node) bool {
	return node.Tag == "!reset" || node.Tag == "!override" || slices.ContainsFunc(node.Content, hasOwnTags)
}

// schemaKeys names the keys that Compose's schema knows at a place of it.
func schemaKeys(place ...string) []string {
	var node any = composeSchema()
	for _, key := range place {
		node, _ = valueAt(node, key)
	}
	known, _ := node.(map[string]any)
	return sortedKeys(known)
}

// composeSchema is the schema that compose-go checks files by.
var composeSchema = sync.OnceValue(func() map[string]any {
	var known map[string]any
	if err := json.Unmarshal([]byte(schema.Schema), &known); err != nil {
		panic(err) // it is part of the program
	}
	return known
})

// unknownKey words a key that Compose does not know, with the one that may be meant.
func unknownKey(path []string, name string) schemaMistake {
	text := "unknown key " + strconv.Quote(name)
	if len(path) > 0 {
		text += " in " + strings.Join(path, ".")
	}
	hint := ""
	switch {
	case len(path) == 0:
		hint = desired.Hint(name, schemaKeys("properties"))
	case len(path) == 2 && path[0] == "services":
		hint = desired.Hint(name, schemaKeys("$defs", "service", "properties"))
	}
	return schemaMistake{append(slices.Clone(path), name), text + hint}
}

// pathOf splits a path of the schema's, in which keys may hold dots themselves.
func pathOf(document any, where string) []string {
	if where == "" {
		return nil
	}
	words := strings.Split(where, ".")
	for i := len(words); i > 0; i-- {
		key := strings.Join(words[:i], ".")
		below, ok := valueAt(document, key)
		if !ok {
			continue
		}
		if i == len(words) {
			return []string{key}
		}
		if rest := pathOf(below, strings.Join(words[i:], ".")); rest != nil {
			return append([]string{key}, rest...)
		}
	}
	return nil
}

func valueAt(node any, key string) (any, bool) {
	switch n := node.(type) {
	case map[string]any:
		value, ok := n[key]
		return value, ok
	case []any:
		if i, err := strconv.Atoi(key); err == nil && i >= 0 && i < len(n) {
			return n[i], true
		}
	}
	return nil, false
}

// takeOut removes what stands at a path. An item of a list cannot be taken out without moving the others: its list goes.
func takeOut(document map[string]any, path []string) bool {
	var node any = document
	parent, last := document, ""
	for _, key := range path {
		if in, ok := node.(map[string]any); ok {
			parent, last = in, key
		}
		below, ok := valueAt(node, key)
		if !ok {
			return false
		}
		node = below
	}
	if last == "" {
		return false
	}
	delete(parent, last)
	return true
}

func atoi(digits string) int {
	n, _ := strconv.Atoi(digits)
	return n
}
