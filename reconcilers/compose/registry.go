package compose

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"time"

	"github.com/docker/cli/cli/config/configfile"
	"github.com/moby/moby/api/pkg/authconfig"
	"github.com/moby/moby/api/types/registry"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

// RegistryAccount is who images of one registry are pulled as.
type RegistryAccount struct {
	Username desired.Expr `yaml:"username" required:"true" doc:"Account, or the name that goes with a token."`
	Password desired.Expr `yaml:"password" required:"true" doc:"Its password or token: ${NAME} of a secret."`
}

// account is what is shown to one registry; nothing where everybody may pull.
type account struct {
	username, password string
	token              string // an identity token in place of both
	from               string // where it stands, for people; empty: there is none
}

func (a account) words() string {
	if a.from == "" {
		return "without credentials"
	}
	return "to the account in " + a.from
}

// encode gives what the engine hands on to the registry; empty when there is nothing.
func (a account) encode() (string, error) {
	if a.from == "" {
		return "", nil
	}
	return authconfig.Encode(registry.AuthConfig{Username: a.username, Password: a.password, IdentityToken: a.token})
}

// registryName is a registry as images name it: a host, with a port where it is not 443.
var registryName = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?$`)

// hubNames are names of Docker Hub, which images call docker.io.
var hubNames = []string{"docker.io", "index.docker.io", "registry-1.docker.io", "https://index.docker.io/v1/"}

// account finds the credentials for a registry: in the manifest, else in the Docker configuration that the agent's own
// configuration names. Secrets are read anew for each use.
func (r *Reconciler) account(ctx context.Context, s *stack, host string) (account, error) {
	if declared, ok := s.spec.Registries[host]; ok {
		a := account{from: "registries of component " + s.target.Component.Name}
		for _, field := range []struct {
			expr desired.Expr
			into *string
		}{{declared.Username, &a.username}, {declared.Password, &a.password}} {
			value, err := field.expr.Eval(s.target.Scope)
			if err != nil {
				return account{}, fmt.Errorf("registries %s: %w", host, err)
			}
			if !value.Known() {
				return account{}, &reconcilers.WaitError{For: strings.Join(field.expr.Missing(s.target.Scope), ", ")}
			}
			*field.into = value.Text()
		}
		return a, nil
	}
	if r.dockerConfig == "" {
		return account{}, nil
	}
	a, err := hostAccount(ctx, r.dockerConfig, host)
	if err != nil {
		return account{}, fmt.Errorf("credentials for registry %s from %s: %w", host, r.dockerConfig, err)
	}
	return a, nil
}

// hostAccount looks a registry up in a Docker configuration, the way the docker command does: a helper of this registry, the
// helper of all, an entry in the file.
func hostAccount(ctx context.Context, path, host string) (account, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return account{}, err
	}
	config := configfile.New(path)
	if err := config.LoadFromReader(bytes.NewReader(content)); err != nil {
		return account{}, errors.New("it is no Docker configuration")
	}
	names := []string{host, "https://" + host, "https://" + host + "/v1/", "https://" + host + "/v2/"}
	if host == "docker.io" {
		names = hubNames
	}
	for _, name := range names {
		helper := config.CredentialHelpers[name]
		if helper == "" {
			continue
		}
		return askHelper(ctx, helper, name)
	}
	for _, name := range names {
		if config.CredentialsStore != "" {
			if a, err := askHelper(ctx, config.CredentialsStore, name); err != nil || a.from != "" {
				return a, err
			}
		}
		if entry, ok := config.AuthConfigs[name]; ok && (entry.Username != "" || entry.IdentityToken != "") {
			return account{username: entry.Username, password: entry.Password, token: entry.IdentityToken, from: path}, nil
		}
	}
	return account{}, nil
}

// helperLimit bounds what a credential helper takes.
const helperLimit = 30 * time.Second

var helperName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`)

// askHelper runs `docker-credential-NAME get`, which takes the registry on its standard input and answers in JSON. What it
// prints when it fails is not repeated: it might be a secret.
func askHelper(ctx context.Context, helper, server string) (account, error) {
	if !helperName.MatchString(helper) {
		return account{}, fmt.Errorf("%q is no name of a credential helper", helper)
	}
	program := "docker-credential-" + helper
	ctx, cancel := context.WithTimeout(ctx, helperLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "get")
	cmd.WaitDelay = time.Second
	cmd.Stdin = strings.NewReader(server)
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Run(); err != nil {
		if strings.Contains(out.String(), "credentials not found") {
			return account{}, nil
		}
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return account{}, fmt.Errorf("%s get: %w. See for yourself, as the agent's account: echo %s | %s get", program, err, server, program)
	}
	var answer struct{ Username, Secret string }
	if err := json.Unmarshal(out.Bytes(), &answer); err != nil {
		return account{}, fmt.Errorf("%s get answers no JSON", program)
	}
	a := account{username: answer.Username, password: answer.Secret, from: program}
	if answer.Username == "<token>" {
		a.username, a.password, a.token = "", "", answer.Secret
	}
	return a, nil
}
