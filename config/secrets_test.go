package config

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSecretsOfAHost(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "agent.yaml")
	load := func(text string) (*Config, error) {
		require.NoError(t, os.WriteFile(path, []byte("host: a\nsource: {url: /srv/fleet}\nsecrets: "+text+"\n"), 0o600))
		return Load(path)
	}
	c, err := load("{sops: {ageKeyFiles: [age.key], pgpKeyFile: /k/pgp}, files: [dir, /etc/x], env: [A_B], vault: {address: 'https://v:8200', roleID: r, secretIDFile: id}, gcp: {}}")
	require.NoError(t, err)
	require.Equal(t, []string{filepath.Join(dir, "age.key")}, c.Secrets.Sops.AgeKeyFiles)
	require.Equal(t, []string{filepath.Join(dir, "dir"), "/etc/x"}, c.Secrets.Files)
	require.Equal(t, filepath.Join(dir, "id"), c.Secrets.Vault.SecretIDFile)
	require.Equal(t, &GCP{}, c.Secrets.GCP)
	for text, want := range map[string]string{
		"{files: [/]}":                   "would let manifests read every file",
		"{files: [/etc/..]}":             "would let manifests read every file",
		"{env: [A-B]}":                   `"A-B" is no name of a variable`,
		"{sops: {pgpPassphraseFile: x}}": "opens no key",
		"{vault: {tokenFile: t}}":        "secrets.vault.address is missing",
		"{vault: {address: 'http://v:8200', tokenFile: t}}":             "must be https://",
		"{vault: {address: 'https://v:8200'}}":                          "needs tokenFile, or roleID and secretIDFile",
		"{vault: {address: 'https://v:8200', tokenFile: t, roleID: r}}": "needs tokenFile, or roleID and secretIDFile",
		"{vault: {address: 'http://127.0.0.1:8200', roleID: r}}":        "needs roleID and secretIDFile together",
		"{gcp: {endpoint: 'http://secretmanager.example'}}":             "must be https://",
	} {
		_, err := load(text)
		require.ErrorContains(t, err, want, text)
	}
}
