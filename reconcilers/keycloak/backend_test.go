package keycloak

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

// All that is wrong with a backend is told at once, with its place.
func TestBackendsAreCheckedWithTheManifest(t *testing.T) {
	with := func(backend string) string {
		return strings.Replace(goodComponent, "outputs:", backend+"\n      outputs:", 1)
	}
	const secret = `"${ADMIN_PASSWORD}"`
	for name, backend := range map[string]string{
		"local":           "backend: {kind: local}",
		"pg":              "backend: {kind: pg, address: 'postgres://db.example:5432/states?sslmode=verify-full', schema: 'dive_${instance.name}', user: terraform, password: " + secret + "}",
		"pg of the host":  "backend: {kind: pg, address: 'postgresql://db.example/states', schema: deu}",
		"http":            "backend: {kind: http, address: 'https://states.example/deu', lockAddress: 'https://states.example/deu/lock', lockMethod: POST, unlockMethod: DELETE, user: a, password: " + secret + ", forceUnlock: x}",
		"gcs":             "backend: {kind: gcs, bucket: states, prefix: deu, credentials: " + secret + ", encryptionKey: " + secret + "}",
		"s3":              "backend: {kind: s3, bucket: states, key: deu/terraform.tfstate, region: eu-west-1, accessKey: " + secret + ", secretKey: " + secret + ", lockTable: locks}",
		"s3 of the host":  "backend: {kind: s3, bucket: states, key: deu, region: x, address: 'https://minio.example'}",
		"moved from":      "formerBackend: {kind: pg, address: 'postgresql://db.example/states', schema: deu}",
		"the copy's word": "formerBackend: {kind: local}",
		"local over pg":   "backend: {kind: local, address: 'postgres://db/x', schema: y}",
	} {
		require.NoError(t, loadFleet(t, with(backend), nil), name)
	}
	for name, c := range map[string]struct {
		backend string
		want    []string
	}{
		"no kind":      {"backend: {schema: x}", []string{"blueprint.yaml:14:", "kind"}},
		"another kind": {"backend: {kind: consul}", []string{"blueprint.yaml:14:23", "consul"}},
		"nothing given": {"backend: {kind: pg}", []string{
			"blueprint.yaml:14:16: backend: a backend of kind pg needs address", "backend: a backend of kind pg needs schema",
		}},
		"a plain password": {"backend: {kind: pg, address: 'postgres://db/x', schema: y, user: z, password: hunter2}", []string{
			"blueprint.yaml:14:85: backend: password must come from a secret of the instance",
		}},
		"a password in the address": {"backend: {kind: pg, address: 'postgres://me:hunter2@db/x', schema: y}", []string{"blueprint.yaml:14:36: backend: address: user and password do not belong here"}},
		"one as a parameter":        {"backend: {kind: pg, address: 'postgres://db/x?password=hunter2', schema: y}", []string{"its parameter password does not belong there"}},
		"a secret address":          {"backend: {kind: http, address: 'https://${ADMIN_PASSWORD}/x'}", []string{"address is written down and told, so that it must not come from a secret"}},
		"all at once": {"backend: {kind: pg, address: 'mysql://db/x', schema: 'a b', bucket: c, user: d, forceUnlock: e}", []string{
			`blueprint.yaml:14:36: backend: address: its scheme is "mysql", and postgres or postgresql is possible`,
			`backend: schema: "a b" has blanks or quotes`,
			"backend: a backend of kind pg has no bucket (has: address, schema, user, password, ca)",
			"backend: user without password",
			"backend: a lock of kind pg ends with its holder; there is none to break",
		}},
		"no database":     {"backend: {kind: pg, address: 'postgres://db', schema: y}", []string{"it names no database"}},
		"no URL":          {"backend: {kind: http, address: states}", []string{"it is not a URL such as https://HOST/NAME"}},
		"no method":       {"backend: {kind: http, address: 'https://a/b', lockMethod: lock it}", []string{`lockMethod: "lock it" is not a method such as PUT`}},
		"a rooted key":    {"backend: {kind: s3, bucket: a, key: /b, region: c}", []string{`key: "/b" begins with a slash`}},
		"half a key":      {"backend: {kind: s3, bucket: a, key: b, region: c, secretKey: " + secret + "}", []string{"secretKey without accessKey"}},
		"no authority":    {"backend: {kind: http, address: 'https://a/b', ca: here}", []string{"ca: it is no certificate in PEM"}},
		"a former's lock": {"formerBackend: {kind: http, address: 'https://a/b', forceUnlock: x}", []string{"a state is only read at its former place"}},
	} {
		err := loadFleet(t, with(c.backend), nil)
		require.Error(t, err, name)
		for _, want := range c.want {
			require.ErrorContains(t, err, want, name)
		}
		require.NotContains(t, err.Error(), "hunter2", name)
	}
}

// A module's own word on where its state is kept is never passed over in silence.
func TestAModulesOwnBackendNeedsTheManifestsWord(t *testing.T) {
	for text, kind := range map[string]string{
		"terraform {\n  backend \"gcs\" {}\n}\n":                              "gcs",
		"terraform {\n  cloud {\n    organization = \"x\"\n  }\n}\n":          "cloud",
		"terraform {\n  backend \"azurerm\" {\n    key = var.realm\n  }\n}\n": "azurerm",
	} {
		files := map[string]string{"state.tf": text}
		require.ErrorContains(t, loadFleet(t, goodComponent, files), `blueprints/spoke/realm/state.tf:2:3: the module keeps its state by backend "`+kind+`"`)
		said := strings.Replace(goodComponent, "outputs:", "backend: {kind: local}\n      outputs:", 1)
		require.NoError(t, loadFleet(t, said, files))
	}
	require.ErrorContains(t, loadFleet(t, goodComponent, map[string]string{"state.tf.json": `{"terraform": {"backend": {"s3": {}}}}`}), "state.tf.json:1:")
	require.NoError(t, loadFleet(t, goodComponent, map[string]string{"state.tf": "terraform {\n  backend \"local\" {}\n}\n"}))
}

// Two components with one place for their states would each destroy what the other made.
func TestAPlaceOfAStateIsTakenOnce(t *testing.T) {
	load := func(backend string) error {
		dir := t.TempDir()
		for name, text := range map[string]string{
			"fleet.yaml":                      "apiVersion: dive/v1alpha1\nkind: Fleet\nmetadata: {name: test}\nspec: {}\n",
			"hosts/deu-01.yaml":               "apiVersion: dive/v1alpha1\nkind: Host\nmetadata: {name: deu-01}\nspec: {}\n",
			"hosts/est-01.yaml":               "apiVersion: dive/v1alpha1\nkind: Host\nmetadata: {name: est-01}\nspec: {}\n",
			"instances/deu.yaml":              "apiVersion: dive/v1alpha1\nkind: Instance\nmetadata: {name: deu}\nspec: {blueprint: spoke, host: deu-01}\n",
			"instances/est.yaml":              "apiVersion: dive/v1alpha1\nkind: Instance\nmetadata: {name: est}\nspec: {blueprint: spoke, host: est-01}\n",
			"blueprints/spoke/blueprint.yaml": blueprintHead + strings.Replace(goodComponent, "outputs:", "backend: "+backend+"\n      outputs:", 1),
		} {
			require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
		}
		require.NoError(t, os.CopyFS(filepath.Join(dir, "blueprints/spoke/realm"), os.DirFS("testdata/realm")))
		_, err := desired.Load(dir, desired.Options{Kinds: []desired.Kind{Kind}})
		return err
	}
	const credentials = `, user: a, password: "${ADMIN_PASSWORD}"}`
	require.NoError(t, load("{kind: pg, address: 'postgres://db/x', schema: '${instance.name}'"+credentials))
	require.ErrorContains(t, load("{kind: pg, address: 'postgres://db/x', schema: dive"+credentials),
		"the place of a Terraform state, pg db:5432/x schema dive, is taken by deu/identity (instances/deu.yaml)")
	require.ErrorContains(t, load("{kind: s3, bucket: a, key: b, region: c}"), "s3 a/b, is taken by deu/identity")
	require.ErrorContains(t, load("{kind: gcs, bucket: a, prefix: b}"), "gcs a/b, is taken by deu/identity")
	require.ErrorContains(t, load("{kind: http, address: 'http://a/b'}"), "http a/b, is taken by deu/identity")
	require.NoError(t, load("{kind: local}"))
}

// What Terraform gets of each kind: in its files no secret, and in its environment no more than it reads there.
func TestABackendIsRendered(t *testing.T) {
	for kind, c := range map[string]struct {
		values map[string]string
		place  string
		block  string
		env    map[string]string
	}{
		backendPg: {
			values: map[string]string{"address": "postgres://DB.example/states?sslmode=verify-full", "schema": "a${b}", "user": "u", "password": "p", "ca": "-----BEGIN CERTIFICATE-----"},
			place:  "pg db.example:5432/states schema a${b}",
			block:  "terraform {\n  backend \"pg\" {\n    conn_str = \"postgres://DB.example/states?sslmode=verify-full\"\n    schema_name = \"a$${b}\"\n  }\n}\n",
			env:    map[string]string{"PGUSER": "u", "PGPASSWORD": "p", "PGSSLROOTCERT": "/here/authority.pem"},
		},
		backendHTTP: {
			values: map[string]string{"address": "https://s/a", "unlockAddress": "https://s/u", "lockMethod": "PUT", "user": "u", "password": "p", "ca": "-----BEGIN CERTIFICATE-----"},
			place:  "http s/a",
			block:  "terraform {\n  backend \"http\" {\n    address = \"https://s/a\"\n    lock_address = \"https://s/a\"\n    lock_method = \"PUT\"\n    unlock_address = \"https://s/u\"\n  }\n}\n",
			env:    map[string]string{"TF_HTTP_USERNAME": "u", "TF_HTTP_PASSWORD": "p", "TF_HTTP_CLIENT_CA_CERTIFICATE_PEM": "-----BEGIN CERTIFICATE-----"},
		},
		backendGCS: {
			values: map[string]string{"bucket": "b", "prefix": "p/", "credentials": "{}", "encryptionKey": "k"},
			place:  "gcs b/p",
			block:  "terraform {\n  backend \"gcs\" {\n    bucket = \"b\"\n    prefix = \"p/\"\n  }\n}\n",
			env:    map[string]string{"GOOGLE_CREDENTIALS": "{}", "GOOGLE_ENCRYPTION_KEY": "k"},
		},
		backendS3: {
			values: map[string]string{"bucket": "b", "key": "k", "region": "r", "accessKey": "a", "secretKey": "s", "lockTable": "t"},
			place:  "s3 b/k",
			block:  "terraform {\n  backend \"s3\" {\n    bucket = \"b\"\n    dynamodb_table = \"t\"\n    key = \"k\"\n    region = \"r\"\n  }\n}\n",
			env:    map[string]string{"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "s"},
		},
	} {
		r, err := newRemote(kind, c.values)
		require.NoError(t, err)
		require.Equal(t, c.place, r.place)
		require.Equal(t, c.block, r.block(false))
		require.Equal(t, c.env, r.environment("/here/authority.pem"))
	}
	r, err := newRemote(backendLocal, nil)
	require.NoError(t, err)
	require.Nil(t, r)
	require.Equal(t, "terraform {\n  backend \"local\" {\n    path = \"../terraform.tfstate\"\n  }\n}\n", r.block(false))
	_, err = newRemote(backendPg, map[string]string{"address": "postgres://me:hunter2@db/x", "schema": "y"})
	var blocked *reconcilers.BlockedError
	require.ErrorAs(t, err, &blocked)
	require.NotContains(t, err.Error(), "hunter2")
}

// The holder of a lock, in the words of both tools.
func TestTheHolderOfALockIsRead(t *testing.T) {
	const info = "Lock Info:\n  ID:        7cdb\n  Path:      \n  Operation: OperationTypePlan\n  Who:       root@vm\n  Version:   1.11.4\n  Created:   2026-11-22 10:13:59 +0000 UTC\n  Info:      \n"
	for name, c := range map[string]struct{ kind, text, id, words string }{
		"Terraform, http": {backendHTTP, "HTTP remote state already locked: ID=237c " + info, "237c", "id 237c"},
		"OpenTofu, http":  {backendHTTP, "HTTP remote state already locked: ID=7cdb\n" + info, "7cdb", "id 7cdb, OperationTypePlan, root@vm, 2026-11-22 10:13:59"},
		"s3, in one line": {backendS3, strings.Join(strings.Fields("Error acquiring the state lock: PreconditionFailed "+info), " "), "7cdb", "id 7cdb, OperationTypePlan, root@vm, 2026-11-22 10:13:59"},
		"pg":              {backendPg, "Already locked for workspace creation: default\n" + info, "", "id "},
	} {
		require.Equal(t, c.id, holderOf(c.kind, c.text), name)
		require.Equal(t, c.words, holderWords(c.text, c.id), name)
	}
}
