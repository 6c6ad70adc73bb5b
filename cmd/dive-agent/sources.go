package main

import (
	"context"
	"crypto/rand"
	"os"
	"path/filepath"
	"time"

	"dive-agent/config"
	"dive-agent/secrets"
)

// credential is the systemd credential that secrets are encrypted with at rest, where the unit has one.
const credential = "dive-agent-secrets"

// hostKey is what this host encrypts secrets with at rest. Commands of a person, which have no credentials of their own, find the
// service's.
func hostKey(c *config.Config) *secrets.HostKey {
	var credentials []string
	if dir := os.Getenv("CREDENTIALS_DIRECTORY"); dir != "" {
		credentials = append(credentials, filepath.Join(dir, credential))
	}
	return secrets.NewHostKey(secrets.HostKeyOptions{
		File: c.Secrets.KeyFile, Credentials: append(credentials, "/run/credentials/dive-agent.service/"+credential),
		Kept: filepath.Join(c.StateDir, "instances", "*", "secrets", ".store", "*", "*"), Random: rand.Reader,
	})
}

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

// checkSources looks at what secrets of this host may come from: keys that open, servers that let the agent sign in.
func checkSources(ctx context.Context, c *config.Config) (all []diagnosis) {
	for _, one := range secretSources(c.Secrets, secrets.NewRedactor()).Check(ctx) {
		all = append(all, diagnosis{Name: "secrets " + one.Kind, OK: one.Do == "", Saw: one.Saw, Do: one.Do})
	}
	return all
}
