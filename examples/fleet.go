// Package examples carries the example fleet, for those who start from it: the demo, tests and benchmarks. It must not
// know the agent.
package examples

import (
	"embed"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

//go:generate env UPDATE=1 go test -run TestManual .

//go:embed all:desired
var embedded embed.FS

// Options say what of the example is written and how it differs.
type Options struct {
	Name      string            // of the fleet, when not empty
	Instances []string          // those that are written; nil: all
	Hosts     []string          // those that are written; nil: all
	Values    map[string]string // values of fleet.yaml, added or replaced, as YAML text
	HubURL    string            // hub.url of fleet.yaml, when not empty
	HubCA     []byte            // PEM in place of hub-ca.pem, when not nil
}

// Files gives the example fleet by the files' paths, with slashes.
func Files(o Options) (map[string][]byte, error) {
	out := map[string][]byte{}
	return out, fs.WalkDir(embedded, "desired", func(path string, entry fs.DirEntry, err error) error {
		name := strings.TrimPrefix(path, "desired/")
		if err != nil || entry.IsDir() || !wanted(name, "instances/", o.Instances) || !wanted(name, "hosts/", o.Hosts) {
			return err
		}
		text, err := embedded.ReadFile(path)
		switch {
		case name == "fleet.yaml":
			text = o.fleet(text)
		case name == "hub-ca.pem" && o.HubCA != nil:
			text = o.HubCA
		}
		out[name] = text
		return err
	})
}

// Write puts the example fleet in a folder, which is made when it is not there; what else is in the folder stays.
func Write(dir string, o Options) error {
	files, err := Files(o)
	if err != nil {
		return err
	}
	for name, text := range files {
		target := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(target, text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// wanted says whether a file of a folder is in a list of names; nil means all.
func wanted(name, folder string, list []string) bool {
	rest, ok := strings.CutPrefix(name, folder)
	return !ok || list == nil || slices.Contains(list, strings.TrimSuffix(rest, ".yaml"))
}

// fleet edits fleet.yaml line by line, so that its comments stay.
func (o Options) fleet(text []byte) []byte {
	lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	left := make(map[string]bool, len(o.Values))
	for name := range o.Values {
		left[name] = true
	}
	for i, line := range lines {
		if o.Name != "" && strings.HasPrefix(line, "metadata:") {
			lines[i] = fmt.Sprintf("metadata: {name: %s}", o.Name)
		}
		name, _, ok := strings.Cut(strings.TrimSpace(line), ":")
		if value, have := o.Values[name]; ok && have && strings.HasPrefix(line, "    ") {
			lines[i] = fmt.Sprintf("    %s: %s", name, value)
			delete(left, name)
		}
		if name == "url" && o.HubURL != "" && strings.HasPrefix(line, "    ") {
			lines[i] = "    url: " + o.HubURL
		}
	}
	for _, name := range slices.Sorted(maps.Keys(left)) {
		lines = append(lines, fmt.Sprintf("    %s: %s", name, o.Values[name]))
	}
	return []byte(strings.Join(lines, "\n") + "\n")
}

// WriteMany puts a fleet of the example's hub and n spokes in a folder, each spoke on a host of its own: for benchmarks.
func WriteMany(dir string, n int) error {
	if err := Write(dir, Options{Instances: []string{"usa"}, Hosts: []string{"usa-01"}}); err != nil {
		return err
	}
	for i := range n {
		code := string([]byte{byte('A' + i/676%26), byte('A' + i/26%26), byte('A' + i%26)})
		name := "s" + strings.ToLower(code)
		host := fmt.Sprintf("apiVersion: dive/v1alpha1\nkind: Host\nmetadata: {name: %s-01}\nspec: {}\n", name)
		if err := os.WriteFile(filepath.Join(dir, "hosts", name+"-01.yaml"), []byte(host), 0o644); err != nil {
			return err
		}
		instance := fmt.Sprintf("apiVersion: dive/v1alpha1\nkind: Instance\nmetadata: {name: %s}\nspec:\n  blueprint: spoke\n  host: %s-01\n  values: {code: %s, country: Country %s, portOffset: %d}\n",
			name, name, code, code, i%50)
		if err := os.WriteFile(filepath.Join(dir, "instances", name+".yaml"), []byte(instance), 0o644); err != nil {
			return err
		}
	}
	return nil
}
