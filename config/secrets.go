package config

import (
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"regexp"
)

// Secrets says where this host lets secrets of manifests come from. By default, from nowhere.
type Secrets struct {
	KeyFile string   `yaml:"keyFile"` // what secrets are encrypted with at rest; default secrets.key in the state folder
	Sops    Sops     `yaml:"sops"`
	Vault   Vault    `yaml:"vault"`
	GCP     *GCP     `yaml:"gcp"`   // nil: not used
	Files   []string `yaml:"files"` // files that manifests may name (hostFile), or folders above them
	Env     []string `yaml:"env"`   // variables of the agent's environment that manifests may name (hostEnv)
}

// Sops names the keys that open files of the fleet repository which SOPS encrypted.
type Sops struct {
	AgeKeyFiles       []string `yaml:"ageKeyFiles"` // as age-keygen writes them
	PGPKeyFile        string   `yaml:"pgpKeyFile"`  // as gpg --export-secret-keys writes it
	PGPPassphraseFile string   `yaml:"pgpPassphraseFile"`
}

// Vault is a Vault or an OpenBao, and how the agent signs in: with a token, or by AppRole.
type Vault struct {
	Address      string `yaml:"address"` // https://...; http:// to this machine alone
	CAFile       string `yaml:"caFile"`
	Namespace    string `yaml:"namespace"`
	TokenFile    string `yaml:"tokenFile"`
	RoleID       string `yaml:"roleID"`
	SecretIDFile string `yaml:"secretIDFile"`
	AppRolePath  string `yaml:"appRolePath"` // default approle
}

// GCP is Google's Secret Manager, and how the agent signs in.
type GCP struct {
	CredentialsFile string `yaml:"credentialsFile"` // key of a service account; default: the account of the virtual machine
	Endpoint        string `yaml:"endpoint"`        // default https://secretmanager.googleapis.com
	CAFile          string `yaml:"caFile"`
}

func (v Vault) problems() (problems []string) {
	if v == (Vault{}) {
		return nil
	}
	role := v.RoleID != "" || v.SecretIDFile != ""
	switch {
	case v.Address == "":
		problems = append(problems, "secrets.vault.address is missing: https://HOST:8200")
	case !secureURL(v.Address):
		problems = append(problems, fmt.Sprintf("secrets.vault.address %q must be https://..., or http:// to this machine", v.Address))
	}
	switch {
	case (v.TokenFile != "") == role:
		problems = append(problems, "secrets.vault needs tokenFile, or roleID and secretIDFile")
	case role && (v.RoleID == "" || v.SecretIDFile == ""):
		problems = append(problems, "secrets.vault needs roleID and secretIDFile together")
	}
	return problems
}

// secureURL says whether what is sent there cannot be read on the way.
func secureURL(text string) bool {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Scheme == "https" || u.Scheme == "http" && (u.Hostname() == "localhost" || ip != nil && ip.IsLoopback())
}

func (s *Secrets) paths() []*string {
	paths := []*string{&s.KeyFile, &s.Sops.PGPKeyFile, &s.Sops.PGPPassphraseFile, &s.Vault.CAFile, &s.Vault.TokenFile, &s.Vault.SecretIDFile}
	if s.GCP != nil {
		paths = append(paths, &s.GCP.CredentialsFile, &s.GCP.CAFile)
	}
	for _, list := range [][]string{s.Files, s.Sops.AgeKeyFiles} {
		for i := range list {
			paths = append(paths, &list[i])
		}
	}
	return paths
}

var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func (s *Secrets) problems() (problems []string) {
	for _, file := range s.Files {
		if filepath.Clean(file) == "/" {
			problems = append(problems, "secrets.files: / would let manifests read every file of the host")
		}
	}
	for _, name := range s.Env {
		if !variable.MatchString(name) {
			problems = append(problems, fmt.Sprintf("secrets.env: %q is no name of a variable", name))
		}
	}
	problems = append(problems, s.Vault.problems()...)
	if s.GCP != nil && s.GCP.Endpoint != "" && !secureURL(s.GCP.Endpoint) {
		problems = append(problems, fmt.Sprintf("secrets.gcp.endpoint %q must be https://...", s.GCP.Endpoint))
	}
	if s.Sops.PGPPassphraseFile != "" && s.Sops.PGPKeyFile == "" {
		problems = append(problems, "secrets.sops.pgpPassphraseFile opens no key: name one with pgpKeyFile")
	}
	return problems
}
