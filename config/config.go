// Package config reads the host's own configuration, agent.yaml. It knows nothing of fleets and engines.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
	"gopkg.in/yaml.v3"
)

// DefaultPath is where the service looks.
const DefaultPath = "/etc/dive-agent/agent.yaml"

// Config is agent.yaml. Secrets stand in files that it names, never in it.
type Config struct {
	Host      string    `yaml:"host"`      // name of this host in the fleet, as in hosts/<name>.yaml
	StateDir  string    `yaml:"stateDir"`  // default /var/lib/dive-agent
	Socket    string    `yaml:"socket"`    // default /run/dive-agent/agent.sock
	MachineID string    `yaml:"machineID"` // default: that of the system
	Source    Source    `yaml:"source"`
	Engine    string    `yaml:"engine"` // default unix:///var/run/docker.sock
	Terraform Terraform `yaml:"terraform"`
	OpenTofu  Terraform `yaml:"opentofu"`
	Compose   Compose   `yaml:"compose"`
	Report    Report    `yaml:"report"`
	// DockerConfig is a Docker configuration (config.json) whose credentials and credential helpers images are pulled with; default none.
	DockerConfig string   `yaml:"dockerConfig"`
	Listen       Listen   `yaml:"listen"`
	Secrets      Secrets  `yaml:"secrets"`
	Resync       Duration `yaml:"resync"` // how often an instance in sync is looked at again; default 5m
	LogLevel     string   `yaml:"logLevel"`
}

// Source is the fleet repository and how it is followed.
type Source struct {
	Remote   `yaml:",inline"`
	Branch   string   `yaml:"branch"`      // default main
	Interval Duration `yaml:"interval"`    // default 30s
	Schedule string   `yaml:"schedule"`    // a cron expression instead of the interval
	Signers  string   `yaml:"signersFile"` // allowed signers (ssh-keygen's format): every new commit of the first-parent line must be signed by one
	Keyring  string   `yaml:"keyringFile"` // the same with OpenPGP public keys, armoured; either or both
}

// Remote is a Git remote with its credentials.
type Remote struct {
	URL               string `yaml:"url"`
	Username          string `yaml:"username"`
	PasswordFile      string `yaml:"passwordFile"`
	TokenFile         string `yaml:"tokenFile"`
	CAFile            string `yaml:"caFile"`
	ClientCertFile    string `yaml:"clientCertFile"`
	ClientKeyFile     string `yaml:"clientKeyFile"`
	IdentityFile      string `yaml:"identityFile"`
	PassphraseFile    string `yaml:"passphraseFile"`
	KnownHostsFile    string `yaml:"knownHostsFile"`
	Proxy             string `yaml:"proxy"`
	AllowLoopbackHTTP bool   `yaml:"allowLoopbackHTTP"`
}

// Terraform says where the tool, or OpenTofu in its place, is, and what modules may do.
type Terraform struct {
	Path      string   `yaml:"path"`      // default: terraform, or tofu, in PATH
	CLIConfig string   `yaml:"cliConfig"` // TF_CLI_CONFIG_FILE for hosts with a provider mirror
	Allow     []string `yaml:"allow"`     // for both tools, under terraform: provisioners, external, files, provider:NAMESPACE/NAME, module:PREFIX
}

// Compose says what stacks may do on this host.
type Compose struct {
	Allow []string `yaml:"allow"` // privileged, unconfined, host-namespaces, host-network, foreign-containers, devices, engine-socket, cap:NAME, mount:PATH
}

// Report says where status goes.
type Report struct {
	Status     *Remote   `yaml:"status"`     // default: the source, with its credentials
	SigningKey string    `yaml:"signingKey"` // SSH private key that signs status commits
	Webhooks   []Webhook `yaml:"webhooks"`
}

// Webhook is one receiver of events.
type Webhook struct {
	Name        string   `yaml:"name"`
	URL         string   `yaml:"url"`
	SecretFiles []string `yaml:"secretFiles"` // one or two signing keys
	CAFile      string   `yaml:"caFile"`
}

// Listen is the optional listener. It is off while Address is empty.
type Listen struct {
	Address    string `yaml:"address"` // loopback only, unless Public is set
	Public     bool   `yaml:"public"`
	HookSecret string `yaml:"hookSecretFile"` // push webhooks; without it they are off
}

// Duration is a time.Duration written as "30s".
type Duration time.Duration

// UnmarshalYAML reads a duration.
func (d *Duration) UnmarshalYAML(node *yaml.Node) error {
	parsed, err := time.ParseDuration(node.Value)
	if err != nil || parsed <= 0 {
		return fmt.Errorf("line %d: %q is no duration, write 30s or 5m", node.Line, node.Value)
	}
	*d = Duration(parsed)
	return nil
}

// Error is everything that is wrong with a configuration.
type Error struct {
	Path     string
	Problems []string
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s: %s", e.Path, strings.Join(e.Problems, "; "))
}

// Load reads a configuration and fills in the defaults. Relative paths in it count from its folder. The error is an
// *Error, or that of reading the file.
func Load(path string) (*Config, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("no configuration at %s: write one after /usr/share/doc/dive-agent/agent.yaml.example (docs/operations.md tells of each option), or name it with --config", path)
		}
		return nil, fmt.Errorf("cannot read the configuration: %w", err)
	}
	c := &Config{}
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	decoder.KnownFields(true)
	if err := decoder.Decode(c); err != nil && !errors.Is(err, io.EOF) {
		var typed *yaml.TypeError
		if errors.As(err, &typed) {
			return nil, &Error{path, plain(typed.Errors)}
		}
		return nil, &Error{path, []string{strings.TrimPrefix(err.Error(), "yaml: ")}}
	}
	c.setDefaults()
	c.resolve(filepath.Dir(path))
	if problems := c.problems(); len(problems) > 0 {
		return nil, &Error{path, problems}
	}
	return c, nil
}

var (
	unknownField = regexp.MustCompile(`field (\S+) not found in type \S+`)
	wrongType    = regexp.MustCompile(`(?s)cannot unmarshal !!(\w+).* into \S+`)
	yamlTypes    = map[string]string{"str": "a text", "int": "a number", "float": "a number", "bool": "true or false", "seq": "a list", "map": "a map"}
)

// plain puts what the decoder says of Go's types, and with what it quotes of the file, into the words of the file.
func plain(complaints []string) []string {
	for i, text := range complaints {
		text = unknownField.ReplaceAllString(text, "there is no option $1 here")
		complaints[i] = wrongType.ReplaceAllStringFunc(text, func(found string) string {
			return yamlTypes[wrongType.FindStringSubmatch(found)[1]] + " does not fit here"
		})
	}
	return complaints
}

func (c *Config) setDefaults() {
	set := func(field *string, value string) {
		if *field == "" {
			*field = value
		}
	}
	set(&c.StateDir, "/var/lib/dive-agent")
	set(&c.Socket, "/run/dive-agent/agent.sock")
	set(&c.Engine, "unix:///var/run/docker.sock")
	set(&c.Source.Branch, "main")
	set(&c.LogLevel, "info")
	set(&c.Secrets.KeyFile, filepath.Join(c.StateDir, "secrets.key"))
	if c.Source.Interval == 0 && c.Source.Schedule == "" {
		c.Source.Interval = Duration(30 * time.Second)
	}
	if c.Resync == 0 {
		c.Resync = Duration(5 * time.Minute)
	}
}

// resolve makes relative paths absolute.
func (c *Config) resolve(dir string) {
	paths := []*string{&c.StateDir, &c.Socket, &c.Terraform.CLIConfig, &c.OpenTofu.CLIConfig, &c.Report.SigningKey, &c.Listen.HookSecret, &c.Source.Signers, &c.Source.Keyring, &c.DockerConfig}
	remotes := []*Remote{&c.Source.Remote}
	if c.Report.Status != nil {
		remotes = append(remotes, c.Report.Status)
	}
	for _, r := range remotes {
		paths = append(paths, &r.PasswordFile, &r.TokenFile, &r.CAFile, &r.ClientCertFile, &r.ClientKeyFile,
			&r.IdentityFile, &r.PassphraseFile, &r.KnownHostsFile)
	}
	for i := range c.Report.Webhooks {
		w := &c.Report.Webhooks[i]
		paths = append(paths, &w.CAFile)
		for j := range w.SecretFiles {
			paths = append(paths, &w.SecretFiles[j])
		}
	}
	paths = append(paths, c.Secrets.paths()...)
	for _, path := range paths {
		if *path != "" && !filepath.IsAbs(*path) {
			*path = filepath.Join(dir, *path)
		}
	}
}

// problems gives all that is wrong at once, so that one start of the agent shows everything to mend.
func (c *Config) problems() (problems []string) {
	need := func(value, field, how string) {
		if value == "" {
			problems = append(problems, field+" is missing: "+how)
		}
	}
	need(c.Host, "host", "the name of this host in the fleet repository, as in hosts/<name>.yaml")
	need(c.Source.URL, "source.url", "the fleet repository, https://..., ssh://..., file:///... or an absolute path")
	if c.Source.Schedule != "" {
		if c.Source.Interval != 0 {
			problems = append(problems, "source.interval and source.schedule exclude each other")
		}
		if _, err := cron.ParseStandard(c.Source.Schedule); err != nil {
			problems = append(problems, fmt.Sprintf("source.schedule %q is no cron expression: %v", c.Source.Schedule, err))
		}
	}
	switch c.LogLevel {
	case "debug", "info", "warn", "error":
	default:
		problems = append(problems, fmt.Sprintf("logLevel %q is none of debug, info, warn, error", c.LogLevel))
	}
	for i, w := range c.Report.Webhooks {
		if w.URL == "" || len(w.SecretFiles) == 0 || len(w.SecretFiles) > 2 {
			problems = append(problems, fmt.Sprintf("report.webhooks[%d] needs url and one or two secretFiles", i))
		}
	}
	problems = append(problems, c.Secrets.problems()...)
	problems = append(problems, checkAllow("terraform.allow", c.Terraform.Allow, terraformWord, terraformWords)...)
	problems = append(problems, checkAllow("compose.allow", c.Compose.Allow, composeWord, composeWords)...)
	if len(c.OpenTofu.Allow) > 0 {
		problems = append(problems, "allow stands under terraform, and holds for OpenTofu too")
	}
	return append(problems, c.Listen.problems()...)
}

// The words of terraform.allow and compose.allow. They differ, so that a list of both says what it means.
var (
	terraformWord = regexp.MustCompile(`^(provisioners|external|files|provider:([a-z0-9.-]+/)?[a-z0-9-]+/[a-z0-9-]+|module:.+)$`)
	composeWord   = regexp.MustCompile(`^(privileged|unconfined|host-namespaces|host-network|foreign-containers|devices|engine-socket|cap:[A-Z_]+|mount:/.*)$`)
)

const (
	terraformWords = "provisioners, external, files, provider:NAMESPACE/NAME, module:PREFIX"
	composeWords   = "privileged, unconfined, host-namespaces, host-network, foreign-containers, devices, engine-socket, cap:NAME, mount:/PATH"
)

// CheckAllow says what is wrong with a list of words of terraform.allow and compose.allow together; field is where they stand.
func CheckAllow(field string, words []string) (problems []string) {
	for _, word := range words {
		if !terraformWord.MatchString(word) && !composeWord.MatchString(word) {
			problems = append(problems, fmt.Sprintf("%s: %q is none of %s; %s", field, word, terraformWords, composeWords))
		}
	}
	return problems
}

func checkAllow(field string, words []string, known *regexp.Regexp, list string) (problems []string) {
	for _, word := range words {
		if !known.MatchString(word) {
			problems = append(problems, fmt.Sprintf("%s: %q is none of %s", field, word, list))
		}
	}
	return problems
}

func (l Listen) problems() []string {
	if l.Address == "" {
		return nil
	}
	host, _, err := net.SplitHostPort(l.Address)
	if err != nil {
		return []string{fmt.Sprintf("listen.address %q is no host:port", l.Address)}
	}
	ip := net.ParseIP(host)
	if !l.Public && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return []string{fmt.Sprintf("listen.address %s is not a loopback address: say public: true when it is meant", l.Address)}
	}
	return nil
}
