package desired_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
)

// encryptedFile looks as SOPS writes it; manifests are checked without a key.
const encryptedFile = `opal_master: ENC[AES256_GCM,data:AAAA,iv:AAAA,tag:AAAA,type:str]
database: {password: "ENC[AES256_GCM,data:AAAA,iv:AAAA,tag:AAAA,type:str]"}
sops: {mac: "ENC[x]", lastmodified: "2026-11-22T14:00:00Z", age: [{recipient: age1x, enc: x}]}
`

func withSources(secrets string) map[string]string {
	files := withSecrets(secrets)
	return map[string]string{
		"instances/fra/instance.yaml":  strings.Replace(files["instances/deu.yaml"], "{name: deu}", "{name: fra}", 1),
		"instances/fra/DEU.yaml":       encryptedFile,
		"instances/fra/plain.yaml":     "opal_master: not-encrypted-at-all\n",
		"instances/fra/secrets.enc.go": "",
	}
}

func TestWhereSecretsComeFrom(t *testing.T) {
	fra := loadTree(t, withSources(`    OPAL: {sops: {file: "${code}.yaml", key: opal_master}}
    opal_master: {sops: {file: DEU.yaml}, interval: 30s}
    DB: {sops: {file: DEU.yaml, key: database.password}, file: {path: db}}
    LICENSE: {hostFile: {path: "/etc/dive/${lower(code)}.key"}}
    VAULT: {vault: {path: "dive/${lower(code)}", key: opal}}
    OLD: {vault: {mount: kv/team, path: dive, version: 3}}
    GCP: {gcp: {project: dive-prod}, interval: 1h}
    TOKEN: {hostEnv: {name: "TOKEN_${code}"}, interval: 10s}
`)).Instances["fra"]
	for name, want := range map[string]desired.SecretSource{
		"OPAL":        {Kind: desired.SopsSource, File: "DEU.yaml", Key: "opal_master", Interval: 5 * time.Minute},
		"opal_master": {Kind: desired.SopsSource, File: "DEU.yaml", Key: "opal_master", Interval: 30 * time.Second},
		"DB":          {Kind: desired.SopsSource, File: "DEU.yaml", Key: "database.password", Interval: 5 * time.Minute},
		"LICENSE":     {Kind: desired.HostFileSource, File: "/etc/dive/deu.key", Interval: 5 * time.Minute},
		"VAULT":       {Kind: desired.VaultSource, Mount: "secret", Path: "dive/deu", Key: "opal", Interval: 5 * time.Minute},
		"OLD":         {Kind: desired.VaultSource, Mount: "kv/team", Path: "dive", Key: "OLD", Version: "3", Interval: 5 * time.Minute},
		"GCP":         {Kind: desired.GCPSource, Project: "dive-prod", Key: "GCP", Version: "latest", Interval: time.Hour},
		"TOKEN":       {Kind: desired.HostEnvSource, Variable: "TOKEN_DEU", Interval: 10 * time.Second},
	} {
		require.Equal(t, &want, fra.Secret(name).Source, name)
	}
	require.Nil(t, fra.Secret("KEY").Source)
}

func TestRotationOfAManifest(t *testing.T) {
	deu := loadTree(t, withSecrets(`    A: {generate: {kind: token}, rotate: {every: 720h}}
    B: {generate: {}, rotate: {schedule: "0 3 1 * *"}}
`)).Instances["deu"]
	at := time.Date(2026, 11, 22, 14, 0, 0, 0, time.UTC)
	require.Equal(t, at.Add(720*time.Hour), deu.Secret("A").Rotate.Due(at))
	require.Equal(t, time.Date(2026, 12, 1, 3, 0, 0, 0, time.UTC), deu.Secret("B").Rotate.Due(at.In(time.FixedZone("x", 7200))))
	require.Nil(t, deu.Secret("KEY").Rotate)
	for secret, want := range map[string]string{
		`{provide: true, rotate: {every: 1h}}`:                       "instances/deu.yaml:12:32: rotate of secret X: only what the agent generates",
		`{generate: {kind: ca}, rotate: {every: 1h}}`:                "a ca is made anew by its lifetime",
		`{generate: {}, rotate: {}}`:                                 "rotate of secret X needs every or schedule, one of them",
		`{generate: {}, rotate: {every: 1h, schedule: "0 3 * * *"}}`: "rotate of secret X needs every or schedule, one of them",
		`{generate: {}, rotate: {every: 59m}}`:                       "every of secret X must be 1h0m0s or more",
		`{generate: {}, rotate: {schedule: "daily"}}`:                `schedule "daily" of secret X is no cron expression`,
	} {
		require.Contains(t, strings.Join(problemsIn(t, withSecrets("    X: "+secret+"\n")), "\n"), want, secret)
	}
}

func TestMistakesInSources(t *testing.T) {
	const at = "instances/fra/instance.yaml:12:"
	for secret, want := range map[string]string{
		`{}`:                                  at + "5: secret X needs one of ",
		`{provide: true, hostEnv: {name: X}}`: at + "5: secret X comes from one place, not from provide and hostEnv",
		`{sops: {file: DEU.yaml, key: opal_mastr}}`: at + `37: instances/fra/DEU.yaml has no value "opal_mastr", did you mean "opal_master"?`,
		`{sops: {file: DEU.yaml, key: database}}`:   at + `37: instances/fra/DEU.yaml has no value "database"`,
		`{sops: {file: DEU.yaml}}`:                  at + `22: instances/fra/DEU.yaml has no value "X"`,
		`{sops: {file: none.yaml}}`:                 at + "22: cannot use instances/fra/none.yaml for secret X: ",
		`{sops: {file: plain.yaml}}`:                at + "22: cannot use instances/fra/plain.yaml for secret X: it was not encrypted by SOPS",
		`{sops: {file: secrets.enc.go}}`:            at + "22: secret X: secrets.enc.go: a SOPS file is called .yaml, .yml, .json or .env",
		`{sops: {file: ../usa/x.yaml}}`:             at + `22: path "../usa/x.yaml" leaves the folder instances/fra`,
		`{sops: {file: "${KEY}"}}`:                  at + "22: secret X: where a secret comes from may use values of the instance alone, no secrets and no outputs",
		`{sops: {key: x}}`:                          `needs the field "file"`,
		`{sops: {flie: x}}`:                         `unknown field "flie", did you mean "file"?`,
		`{sops: DEU.yaml}`:                          at + "15: ",
		`{hostFile: {path: etc/x}}`:                 at + `26: path "etc/x" of secret X must be absolute and without . and ..`,
		`{hostFile: {path: /etc/dive/../shadow}}`:   at + `26: path "/etc/dive/../shadow" of secret X must be absolute`,
		`{hostEnv: {name: "A B"}}`:                  at + `25: "A B" is no name of a variable`,
		`{vault: {path: /dive/x}}`:                  at + `23: path "/dive/x" of secret X is no path of Vault`,
		`{vault: {path: dive/../sys/x}}`:            at + `23: path "dive/../sys/x" of secret X is no path of Vault`,
		`{vault: {path: "x?version=1"}}`:            at + `23: path "x?version=1" of secret X is no path of Vault`,
		`{vault: {mount: "a b", path: x}}`:          at + `24: mount "a b" of secret X is no path of Vault`,
		`{vault: {path: x, version: -1}}`:           at + `16: version of secret X must be 1 or more`,
		`{vault: {key: x}}`:                         `needs the field "path"`,
		`{gcp: {project: "Dive/x"}}`:                at + `24: "Dive/x" is no project of Google Cloud`,
		`{gcp: {project: dive, secret: a/b}}`:       at + `38: "a/b" is no name of a secret`,
		`{gcp: {project: dive, version: "1/x"}}`:    at + `14: version "1/x" of secret X`,
		`{hostEnv: {name: A}, interval: 1s}`:        at + "39: interval of secret X must be 10s or more",
		`{provide: true, interval: 1m}`:             at + "34: interval of secret X: only a secret that comes from elsewhere is looked at again",
	} {
		problems := problemsIn(t, withSources("    X: "+secret+"\n"))
		require.Contains(t, strings.Join(problems, "\n"), want, secret)
		require.NotContains(t, strings.Join(problems, "\n"), "not-encrypted-at-all", secret)
	}
}
