package compose

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// walkStack is the Compose file of a random walk, in the fields that the walk changes.
type walkStack struct {
	Services map[string]walkService
	Networks map[string]int // generation of the definition
	Volumes  []string
	Files    map[string]int // generation of the content
	Comment  int            // says nothing
}

type walkService struct {
	Job       bool // ends by itself, once
	Extra     bool // has a profile
	Off       bool // and it is not active
	Data      bool // has a volume of its own
	Scale     int  // replicas beyond the first
	Order     string
	AtATime   int
	Monitor   int    // seconds for which a new container is watched
	OnFailure string // what follows on one that does not work
	Bad       string
	Image     int
	Command   int
	Env       int
	Label     int
	Restart   string
	Check     bool
	Memory    int // MiB; 0: no limit
	Grace     int // seconds
	Named     bool
	Networks  []string
	Volumes   []string          // beside the one that all have
	Uses      []string          // files: "config", "secret", "bound"
	Depends   map[string]string // service -> condition, or "restart"
}

// Ways in which a new version does not work.
const (
	badExits     = "exits at once"
	badUnhealthy = "never healthy"
	badProgram   = "no such program"
	badImage     = "no such image"
	badLater     = "ends while it is watched"
)

func (s walkStack) clone() (c walkStack) {
	text, err := json.Marshal(s)
	if err == nil {
		err = json.Unmarshal(text, &c)
	}
	if err != nil {
		panic(err)
	}
	return c
}

func walkFile(service, use string) string { return fmt.Sprintf("files/%s/%s/file", service, use) }

// files are the contents of configs, secrets and bound files.
func (s walkStack) files() map[string]string {
	all := map[string]string{}
	for name, service := range s.Services {
		for _, use := range service.Uses {
			file := walkFile(name, use)
			all[file] = fmt.Sprintf("%s, generation %d\n", file, s.Files[file])
		}
	}
	return all
}

// render gives the Compose file: JSON, which is YAML too.
func (s walkStack) render(project string, images []string) (string, error) {
	services, networks, volumes := map[string]any{}, map[string]any{}, map[string]any{}
	configs, secrets := map[string]any{}, map[string]any{}
	for name, service := range s.Services {
		services[name] = service.render(name, project, images)
		for _, use := range service.Uses {
			file := map[string]string{"file": "./" + walkFile(name, use)}
			switch use {
			case "config":
				configs[name+"-config"] = file
			case "secret":
				secrets[name+"-secret"] = file
			}
		}
	}
	for name, generation := range s.Networks {
		networks[name] = map[string]any{"labels": map[string]string{"generation": fmt.Sprint(generation)}}
	}
	for _, name := range s.Volumes {
		volumes[name] = map[string]any{}
	}
	text, err := json.MarshalIndent(map[string]any{
		"services": services, "networks": networks, "volumes": volumes, "configs": configs, "secrets": secrets,
	}, "", "  ")
	return fmt.Sprintf("# Comment %d.\n%s\n", s.Comment, text), err
}

// command writes to the service's volume whenever it starts.
func (s walkService) command(name string) []string {
	switch s.Bad {
	case badExits:
		return []string{"bash", "-c", "exit 3"}
	case badProgram:
		return []string{"/no/such/program"}
	case badLater:
		return []string{"bash", "-c", "sleep 4; exit 3"}
	}
	note := fmt.Sprintf("mkdir -p /data; echo %s %d $HOSTNAME $RANDOM >> /data/log", name, s.Command)
	if s.Job {
		return []string{"bash", "-c", note}
	}
	told := 0
	if s.Restart == "no" { // with 0 it would be done, also when somebody stopped it
		told = 143
	}
	return []string{"bash", "-c", fmt.Sprintf("trap 'exit %d' TERM; %s; while :; do sleep 1 & wait $!; done", told, note)}
}

func (s walkService) render(name, project string, images []string) map[string]any {
	command := s.command(name)
	for i := range command {
		command[i] = escaped(command[i])
	}
	out := map[string]any{
		"image": images[s.Image], "init": true, "command": command, "networks": s.Networks,
		"environment": map[string]string{"GENERATION": fmt.Sprint(s.Env)}, "labels": s.labels(),
		"volumes": s.mounts(name), "stop_grace_period": fmt.Sprintf("%ds", 5+s.Grace),
	}
	if s.Bad == badImage {
		out["image"] = project + ":missing"
	}
	if s.Restart != "" {
		out["restart"] = s.Restart
	}
	if s.Bad == badUnhealthy {
		out["healthcheck"] = map[string]any{"test": []string{"CMD", "false"}, "interval": "300ms", "retries": 1}
	} else if s.Check {
		out["healthcheck"] = map[string]any{"test": []string{"CMD", "true"}, "interval": "1s"}
	}
	if s.Memory > 0 {
		out["mem_limit"] = fmt.Sprintf("%dm", s.Memory)
	}
	update := map[string]any{"parallelism": s.AtATime, "monitor": fmt.Sprintf("%ds", s.Monitor)}
	if s.Order != "" {
		update["order"] = s.Order
	}
	if s.OnFailure != "" {
		update["failure_action"] = s.OnFailure
	}
	out["deploy"] = map[string]any{"replicas": 1 + s.Scale, "update_config": update}
	if s.Named {
		out["container_name"] = project + "-named-" + name
	}
	for _, use := range s.Uses {
		if use != "bound" {
			out[use+"s"] = []string{name + "-" + use}
		}
	}
	depends := map[string]any{}
	for other, condition := range s.Depends {
		if condition == "restart" {
			depends[other] = map[string]any{"condition": "service_started", "restart": true}
			continue
		}
		depends[other] = map[string]any{"condition": condition}
	}
	out["depends_on"] = depends
	if s.Extra {
		out["profiles"] = []string{"extra"}
	}
	return out
}

func (s walkService) labels() map[string]string {
	labels := map[string]string{"generation": fmt.Sprint(s.Label)}
	if s.Job {
		labels["dive.service.class"] = "init"
	}
	return labels
}

// mounts are of the volume of its own, of more volumes, and of the bound file's folder.
func (s walkService) mounts(name string) []string {
	list := []string{}
	if s.Data {
		list = append(list, "own-"+name+":/data")
	}
	for _, volume := range s.Volumes {
		list = append(list, volume+":/"+volume)
	}
	if slices.Contains(s.Uses, "bound") {
		list = append(list, "./files/"+name+"/bound:/bound:ro")
	}
	return list
}

// escaped is what a text is in a Compose file that would else mean a variable.
func escaped(text string) string {
	var out []rune
	for _, r := range text {
		if r == '$' {
			out = append(out, r)
		}
		out = append(out, r)
	}
	return string(out)
}

// digest is all that decides how a service's container is made: two that are equal need no new container.
func (s walkStack) digest(name string) string {
	service, ok := s.Services[name]
	if !ok {
		return ""
	}
	service.Depends, service.Order, service.AtATime, service.Monitor, service.OnFailure = nil, "", 0, 0, ""
	service.Extra, service.Off = false, false
	parts := []any{service}
	for _, use := range service.Uses {
		parts = append(parts, s.Files[walkFile(name, use)])
	}
	for _, network := range service.Networks {
		parts = append(parts, network, s.Networks[network])
	}
	text, err := json.Marshal(parts)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// order gives the active services so that each comes after those that it depends on: those have names before its own.
func (s walkStack) order() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(s.Services)), func(name string) bool { return s.Services[name].Off })
}
