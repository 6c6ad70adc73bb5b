package story

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/moby/moby/client"

	"dive-agent/testbed/stored"
)

// leaks looks for every secret value that the agents made, and every token that the hub gave them, in all that leaves them: logs, status branches, state,
// events, argument lists, and for "not primary" in the services' logs.
func (w *world) leaks(ctx context.Context) error {
	secrets, err := w.secrets()
	if err != nil {
		return err
	}
	places, err := w.places(ctx)
	if err != nil {
		return err
	}
	for place, content := range places {
		for name, value := range secrets {
			if bytes.Contains(content, []byte(value)) {
				return fmt.Errorf("the value of %s is in %s", name, place)
			}
		}
	}
	w.sawText("secret values in logs, status, events, state, arguments", "none", fmt.Sprintf("none (%d values, %d places)", len(secrets), len(places)))
	for place, content := range places {
		if strings.HasPrefix(place, "log of ") && bytes.Contains(content, []byte("not primary")) {
			return fmt.Errorf(`"not primary" is in the %s`, place)
		}
	}
	w.sawText(`"not primary" in the services' logs`, "none", "none")
	return nil
}

// secrets reads the values from the hosts' secret folders.
func (w *world) secrets() (map[string]string, error) {
	secrets := map[string]string{}
	for _, host := range hosts {
		instances, err := filepath.Glob(w.path(host, "state", "instances", "*", "secrets"))
		if err != nil {
			return nil, err
		}
		for _, dir := range instances {
			values, err := stored.Values(w.path(host, "state"), filepath.Base(filepath.Dir(dir)))
			if err != nil {
				return nil, err
			}
			for name, value := range values {
				secrets[host+"/"+name] = strings.TrimSpace(value)
			}
		}
	}
	if len(secrets) < 15 {
		return nil, fmt.Errorf("only %d secrets were found: the search would prove nothing", len(secrets))
	}
	return secrets, w.tokens(secrets)
}

// tokens adds the tokens of the hub, and the keys of certificates, that the agents remember: no secrets of an instance, and as good as a
// password.
func (w *world) tokens(secrets map[string]string) error {
	before := len(secrets)
	files, err := filepath.Glob(w.path("*", "state", "instances", "*", "components", "*", "*.json"))
	if err != nil {
		return err
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		for i, found := range token.FindAllSubmatch(text, -1) {
			secrets[fmt.Sprintf("token %d of %s", i, file)] = string(found[1])
		}
		for i, found := range keyLine.FindAllSubmatch(text, -1) {
			secrets[fmt.Sprintf("key %d of %s", i, file)] = string(found[1])
		}
	}
	if len(secrets) == before {
		return fmt.Errorf("no token was found in %d files", len(files))
	}
	return nil
}

// token is a token of the hub, or of its OPAL server, in what an agent remembers.
var token = regexp.MustCompile(`"token":\s*"([A-Za-z0-9_.-]{43,})"`)

// keyLine is the first line of a private key in PEM, in JSON.
var keyLine = regexp.MustCompile(`-----BEGIN PRIVATE KEY-----\\n([A-Za-z0-9+/=]{48,64})\\n`)

// places reads everything that must hold no secret.
func (w *world) places(ctx context.Context) (map[string][]byte, error) {
	places := map[string][]byte{}
	for _, host := range hosts {
		for _, pattern := range []string{w.path(host + ".log"), w.path(host, "state", "agent.db*"), w.path(host, "state", "*.json")} {
			files, err := filepath.Glob(pattern)
			if err != nil {
				return nil, err
			}
			for _, file := range files {
				if places[file], err = os.ReadFile(file); err != nil {
					return nil, err
				}
			}
		}
		for _, args := range [][]string{{"events"}, {"status", "--output", "json"}} {
			out, err := w.agent(ctx, host, args...)
			if err != nil {
				return nil, err
			}
			places[host+" "+args[0]] = []byte(out)
		}
		for _, format := range []string{"text", "json", "markdown"} {
			out, err := w.agent(ctx, host, "plan", "--output", format)
			if code := exitCode(err); code != 0 && code != 2 {
				return nil, err
			}
			places[host+" plan as "+format] = []byte(out)
		}
	}
	all, err := w.command(ctx, w.path("git", "repos", "fleet.git"), "git", "cat-file", "--batch-all-objects", "--batch", "--unordered")
	if err != nil {
		return nil, err
	}
	places["the fleet repository with all that status branches ever held"] = []byte(all)
	if err := arguments(places); err != nil {
		return nil, err
	}
	return places, w.serviceLogs(ctx, places)
}

// arguments reads the argument lists of all processes of the machine.
func arguments(places map[string][]byte) error {
	lists, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return err
	}
	for _, list := range lists {
		content, err := os.ReadFile(list)
		if err != nil && !os.IsNotExist(err) && !strings.Contains(err.Error(), fs.ErrNotExist.Error()) && !strings.Contains(err.Error(), "no such process") {
			return err
		}
		places[list] = content
	}
	return nil
}

func (w *world) serviceLogs(ctx context.Context, places map[string][]byte) error {
	running, err := w.containers(ctx, "")
	if err != nil {
		return err
	}
	for service, id := range running {
		if !strings.HasSuffix(service, "/backend") && !strings.HasSuffix(service, "/kas") {
			continue
		}
		logs, err := w.engine.ContainerLogs(ctx, id, client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true})
		if err != nil {
			return err
		}
		var content bytes.Buffer
		_, err = content.ReadFrom(logs)
		_ = logs.Close()
		if err != nil {
			return err
		}
		places["log of "+service] = content.Bytes()
	}
	return nil
}
