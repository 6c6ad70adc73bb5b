package main

import (
	"os"
	"time"

	"dive-agent/config"
	"dive-agent/secrets"
)

// secretSources is what this host lets secrets be taken from.
func secretSources(c config.Secrets, redactor *secrets.Redactor) *secrets.Sources {
	return secrets.NewSources(secrets.SourceOptions{
		AgeKeyFiles: c.Sops.AgeKeyFiles, PGPKeyFile: c.Sops.PGPKeyFile, PGPPassphraseFile: c.Sops.PGPPassphraseFile,
		Files: c.Files, Env: c.Env, Getenv: os.LookupEnv, Now: time.Now, Redactor: redactor,
	})
}
