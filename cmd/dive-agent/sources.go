package main

import (
	"os"
	"time"

	"dive-agent/config"
	"dive-agent/secrets"
)

// secretSources is what this host lets secrets be taken from.
func secretSources(c config.Secrets, redactor *secrets.Redactor) *secrets.Sources {
	options := secrets.SourceOptions{
		AgeKeyFiles: c.Sops.AgeKeyFiles, PGPKeyFile: c.Sops.PGPKeyFile, PGPPassphraseFile: c.Sops.PGPPassphraseFile,
		Files: c.Files, Env: c.Env, Getenv: os.LookupEnv, Now: time.Now, Redactor: redactor,
		Vault: secrets.VaultOptions{
			Address: c.Vault.Address, CAFile: c.Vault.CAFile, Namespace: c.Vault.Namespace, TokenFile: c.Vault.TokenFile,
			RoleID: c.Vault.RoleID, SecretIDFile: c.Vault.SecretIDFile, AppRolePath: c.Vault.AppRolePath,
		},
	}
	if c.GCP != nil {
		options.GCP = secrets.GCPOptions{Use: true, CredentialsFile: c.GCP.CredentialsFile, Endpoint: c.GCP.Endpoint, CAFile: c.GCP.CAFile}
	}
	return secrets.NewSources(options)
}
