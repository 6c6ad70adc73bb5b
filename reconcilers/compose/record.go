package compose

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/moby/api/types/container"

	"dive-agent/atomicfile"
)

// record is what is remembered of one service between runs, in a file of its own (0600). Values are in it only as
// digests: salted ones, but for Content, which goes into the label dive.content and has to be the same without the record.
// A lost record costs the sight of changes made by hand before, nothing else.
type record struct {
	Salt       string            `json:"salt"`
	Pending    *pending          `json:"pending,omitempty"`
	Container  string            `json:"container,omitempty"`  // ID of the container that Live is of
	StandsFor  string            `json:"standsFor,omitempty"`  // hash of the definition that it stands for, when it was taken over
	Live       map[string]string `json:"live,omitempty"`       // what inspect said right after the container was made
	Definition map[string]string `json:"definition,omitempty"` // what the container was made of, for the reasons of changes
	Content    map[string]string `json:"content,omitempty"`
	Parents    map[string]string `json:"parents,omitempty"` // service whose restart restarts this one -> container ID
	Good       *goodMark         `json:"good,omitempty"`
	Refused    string            `json:"refused,omitempty"` // image ID that did not become healthy under the present definition
	Ended      *ended            `json:"ended,omitempty"`
}

// pending is a change that was begun and of which it is not known yet whether it is good.
type pending struct {
	Since  time.Time `json:"since"`
	Reason string    `json:"reason"`
}

// goodMark tells what the last good version is; the version itself is in a file of its own.
type goodMark struct {
	Container string `json:"container"`
	Hash      string `json:"hash"`
	Content   string `json:"content"`
	ImageID   string `json:"imageID"`
	Written   string `json:"written"` // digest of what the revision said of it
}

// ended tells how the last good version failed.
type ended struct {
	At      time.Time `json:"at"`
	Message string    `json:"message"`
}

// endedLately is for how long a failure of the last good version speaks for a newer one that fails alike. It is longer than
// the longest pause between two tries.
const endedLately = 30 * time.Minute

func readRecord(path string) (record, error) {
	var rec record
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return rec, nil
	}
	if err != nil {
		return rec, fmt.Errorf("read the service's record: %w", err)
	}
	if !json.Valid(text) { // cut off by a full disk: as if lost
		return rec, nil
	}
	if err := json.Unmarshal(text, &rec); err != nil {
		return rec, fmt.Errorf("read the service's record: %w", err)
	}
	return rec, nil
}

func (rec record) write(path string) error {
	text, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	if _, err := atomicfile.Write(path, text, atomicfile.Options{}); err != nil {
		return fmt.Errorf("keep the service's record: %w", err)
	}
	return nil
}

func (rec record) digest(text []byte) string {
	sum := sha256.Sum256(append([]byte(rec.Salt), text...))
	return hex.EncodeToString(sum[:8])
}

// definition digests the fields of a service, each variable of its environment and each label on its own.
func (rec record) definition(service types.ServiceConfig) (map[string]string, error) {
	service.DependsOn, service.Profiles, service.PullPolicy, service.Scale = nil, nil, "", nil
	fields, err := toFields(service)
	if err != nil {
		return nil, err
	}
	digests := map[string]string{}
	for field, value := range fields {
		switch field {
		case "environment", "labels":
			parts := map[string]json.RawMessage{}
			if err := json.Unmarshal(value, &parts); err != nil {
				return nil, err
			}
			for name, part := range parts {
				digests[field+" "+name] = rec.digest(part)
			}
		case "image":
			digests[field+" "+service.Image] = ""
		default:
			digests[field] = rec.digest(value)
		}
	}
	return digests, nil
}

// volatileLabels differ between containers that are equal in substance.
var volatileLabels = []string{
	"com.docker.compose.replace", "com.docker.compose.version", "com.docker.compose.project.working_dir",
	"com.docker.compose.project.config_files", "com.docker.compose.project.environment_file", "com.docker.compose.image",
	"com.docker.compose.depends_on", "com.docker.compose.container-number",
}

// live digests what inspect says of a container, without what differs between two containers made alike.
func (rec record) live(c *container.InspectResponse) (map[string]string, error) {
	config := *c.Config
	short := c.ID[:12]
	if config.Hostname == short {
		config.Hostname = ""
	}
	labels := map[string]string{}
	for name, value := range config.Labels {
		if !slices.Contains(volatileLabels, name) {
			labels[name] = value
		}
	}
	config.Labels = labels
	config.Env = slices.Sorted(slices.Values(config.Env))
	digests := map[string]string{}
	add := func(prefix string, v any) error {
		fields, err := toFields(v)
		for name, value := range fields {
			digests[prefix+name] = rec.digest(value)
		}
		return err
	}
	if err := add("", &config); err != nil {
		return nil, err
	}
	host := *c.HostConfig
	host.Binds = slices.Sorted(slices.Values(host.Binds))
	if err := add("", &host); err != nil {
		return nil, err
	}
	for name, endpoint := range c.NetworkSettings.Networks {
		aliases := slices.DeleteFunc(slices.Sorted(slices.Values(endpoint.Aliases)), func(a string) bool { return a == short })
		ipam, err := json.Marshal(endpoint.IPAMConfig)
		if err != nil {
			return nil, err
		}
		if endpoint.IPAMConfig == nil {
			ipam = []byte("{}")
		}
		text, err := json.Marshal([]any{slices.Compact(aliases), string(ipam), strings.Join(endpoint.Links, " ")})
		if err != nil {
			return nil, err
		}
		digests["network "+name] = rec.digest(text)
	}
	return digests, nil
}

// difference lists the names whose digests differ, each once.
func difference(before, after map[string]string) (added, removed, changed []string) {
	for _, name := range sortedKeys(after) {
		old, ok := before[name]
		switch {
		case !ok:
			added = append(added, name)
		case old != after[name]:
			changed = append(changed, name)
		}
	}
	for _, name := range sortedKeys(before) {
		if _, ok := after[name]; !ok {
			removed = append(removed, name)
		}
	}
	return added, removed, changed
}

// describe says in words what differs between two definitions.
func describe(before, after map[string]string) []string {
	added, removed, changed := difference(before, after)
	var words []string
	oldImage, newImage := "", ""
	say := func(names []string, verb string) {
		for _, name := range names {
			if image, ok := strings.CutPrefix(name, "image "); ok {
				if verb == "added" {
					newImage = image
				} else {
					oldImage = image
				}
				continue
			}
			words = append(words, name+" "+verb)
		}
	}
	say(added, "added")
	say(removed, "removed")
	say(changed, "changed")
	if newImage != "" || oldImage != "" {
		words = append([]string{fmt.Sprintf("image %s -> %s", oldImage, newImage)}, words...)
	}
	return words
}
