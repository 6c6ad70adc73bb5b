package compose

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
)

// definitionNames are the words for keys of a Compose service that are told under another name than their own.
var definitionNames = map[string]string{
	"cpus": "CPU limit", "cpu_shares": "CPU shares", "cpu_period": "CPU period", "cpu_quota": "CPU quota", "pids_limit": "pids limit",
}

// unordered are lists in which the order says nothing.
var unordered = []string{"cap_add", "cap_drop", "expose", "security_opt", "group_add", "devices", "device_cgroup_rules", "external_links"}

// definition digests what a service is declared to be: each variable, label, mount, port, network, config and secret on its
// own, so that a reason can name it, and a list in another order is no change. What has no bearing on the container is left out.
func (rec record) definition(service types.ServiceConfig) (map[string]string, error) {
	service.DependsOn, service.Profiles, service.PullPolicy, service.Scale, service.Build, service.Develop = nil, nil, "", nil, nil, nil
	all, err := toFields(service)
	if err != nil {
		return nil, err
	}
	f := fields{rec, map[string]string{}}
	for _, key := range sortedKeys(all) {
		if err := f.addKey(service, key, all[key]); err != nil {
			return nil, err
		}
	}
	return f.of, nil
}

func (f fields) addKey(service types.ServiceConfig, key string, value json.RawMessage) error {
	switch key {
	case "image":
		f.of[imageField+service.Image] = ""
		return nil
	case "environment":
		return f.addEach("environment ", value)
	case "labels":
		return f.addEach("label ", value)
	case "networks":
		return f.addEach("network ", value)
	case "sysctls":
		return f.addEach("sysctl ", value)
	case "ulimits":
		return f.addEach("ulimit ", value)
	case "volumes":
		return addList(f, service.Volumes, func(v types.ServiceVolumeConfig) string { return "mount " + v.Target })
	case "ports":
		return addList(f, service.Ports, func(p types.ServicePortConfig) string { return fmt.Sprintf("port %d/%s", p.Target, p.Protocol) })
	case "configs":
		return addList(f, service.Configs, func(c types.ServiceConfigObjConfig) string { return "config " + c.Source })
	case "secrets":
		return addList(f, service.Secrets, func(s types.ServiceSecretConfig) string { return "secret " + s.Source })
	case "deploy":
		return f.addDeploy(service.Deploy)
	case "restart":
		f.plain("restart policy", service.Restart)
		return nil
	case "mem_limit":
		f.plainBytes("memory limit", service.MemLimit)
		return nil
	case "mem_reservation":
		f.plainBytes("memory reservation", service.MemReservation)
		return nil
	case "memswap_limit":
		f.plainBytes("memory and swap limit", service.MemSwapLimit)
		return nil
	case "command", "entrypoint":
		if string(value) == "null" {
			return nil
		}
		return f.add(key, []any{value}) // an empty one takes the image's away
	case "attach", "env_file", "extends":
		return nil // not of the container, or already in what they give
	}
	if slices.Contains(unordered, key) {
		var list []json.RawMessage
		if err := json.Unmarshal(value, &list); err != nil {
			return err
		}
		slices.SortFunc(list, func(a, b json.RawMessage) int { return strings.Compare(string(a), string(b)) })
		return f.add(key, list)
	}
	if name, ok := definitionNames[key]; ok {
		key = name
	}
	return f.add(key, value)
}

// addEach takes up the entries of a map.
func (f fields) addEach(prefix string, value json.RawMessage) error {
	parts := map[string]json.RawMessage{}
	if err := json.Unmarshal(value, &parts); err != nil {
		return err
	}
	for name, part := range parts {
		if err := f.add(prefix+name, []any{part}); err != nil { // an empty one is there all the same
			return err
		}
	}
	return nil
}

// addList takes up the entries of a list, those of one name together and sorted.
func addList[E any](f fields, list []E, name func(E) string) error {
	of := map[string][]string{}
	for _, entry := range list {
		text, err := json.Marshal(entry)
		if err != nil {
			return err
		}
		of[name(entry)] = append(of[name(entry)], string(text))
	}
	for name, entries := range of {
		slices.Sort(entries)
		if err := f.add(name, entries); err != nil {
			return err
		}
	}
	return nil
}

// plain takes up what is told with its value.
func (f fields) plain(name, words string) { f.of[name] = plainMark + words }

func (f fields) plainBytes(name string, n types.UnitBytes) {
	if n != 0 {
		f.plain(name, byteWords(json.RawMessage(strconv.FormatInt(int64(n), 10))))
	}
}

// addDeploy takes up what of deploy shapes a container. How many there are, and how they follow each other, does not.
func (f fields) addDeploy(deploy *types.DeployConfig) error {
	if deploy == nil {
		return nil
	}
	var errs []error
	add := func(name string, value any) { errs = append(errs, f.add(name, value)) }
	if limits := deploy.Resources.Limits; limits != nil {
		if limits.NanoCPUs > 0 {
			f.plain("CPU limit", strconv.FormatFloat(float64(limits.NanoCPUs), 'f', -1, 32))
		}
		f.plainBytes("memory limit", limits.MemoryBytes)
		add("pids limit", limits.Pids)
		add("gpus", limits.Devices)
	}
	if reserved := deploy.Resources.Reservations; reserved != nil {
		f.plainBytes("memory reservation", reserved.MemoryBytes)
		add("gpus", reserved.Devices)
	}
	if deploy.RestartPolicy != nil {
		add("restart policy", deploy.RestartPolicy)
	}
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// imageField begins the one name that holds its value.
const imageField = "image "

func orNone(text string) string {
	if text == "" {
		return "none"
	}
	return text
}

// describe says in words what differs between two definitions.
func describe(before, after map[string]string) []string {
	added, removed, changed := difference(before, after)
	var words []string
	oldImage, newImage := "", ""
	say := func(names []string, verb string) {
		for _, name := range names {
			if image, ok := strings.CutPrefix(name, imageField); ok {
				if verb == "added" {
					newImage = image
				} else {
					oldImage = image
				}
				continue
			}
			old, plain := strings.CutPrefix(before[name], plainMark)
			now, isPlain := strings.CutPrefix(after[name], plainMark)
			if plain || isPlain {
				words = append(words, fmt.Sprintf("%s %s -> %s", name, orNone(old), orNone(now)))
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

// withoutFollowing leaves out of a list of reasons what only follows from another one: who is on a new network was not before.
func withoutFollowing(words []string) []string {
	follows := func(word string) bool {
		for start, of := range map[string]string{"not connected to ": "", "content of ": " changed"} {
			if rest, ok := strings.CutPrefix(word, start); ok && slices.Contains(words, strings.TrimSuffix(rest, of)+" added") {
				return true
			}
		}
		return false
	}
	return slices.DeleteFunc(slices.Clone(words), follows)
}
