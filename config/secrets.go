package config

import (
	"fmt"
	"path/filepath"
	"regexp"
)

// Secrets says where this host lets secrets of manifests come from. By default, from nowhere.
type Secrets struct {
	Sops  Sops     `yaml:"sops"`
	Files []string `yaml:"files"` // files that manifests may name (hostFile), or folders above them
	Env   []string `yaml:"env"`   // variables of the agent's environment that manifests may name (hostEnv)
}

// Sops names the keys that open files of the fleet repository which SOPS encrypted.
type Sops struct {
	AgeKeyFiles       []string `yaml:"ageKeyFiles"` // as age-keygen writes them
	PGPKeyFile        string   `yaml:"pgpKeyFile"`  // as gpg --export-secret-keys writes it
	PGPPassphraseFile string   `yaml:"pgpPassphraseFile"`
}

func (s *Secrets) paths() []*string {
	paths := []*string{&s.Sops.PGPKeyFile, &s.Sops.PGPPassphraseFile}
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
	if s.Sops.PGPPassphraseFile != "" && s.Sops.PGPKeyFile == "" {
		problems = append(problems, "secrets.sops.pgpPassphraseFile opens no key: name one with pgpKeyFile")
	}
	return problems
}
