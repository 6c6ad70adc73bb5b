package keycloak

import (
	"cmp"
	"net/url"
	"strconv"
	"strings"

	"dive-agent/reconcilers"
)

// remote is a place for a state that is not the component's own folder.
type remote struct {
	kind   string
	place  string // for people; tells one place from another, whoever signs in
	values map[string]string
}

// newRemote makes one of what a manifest says, nil for a file on the host. An error is for a person: what could not be checked
// before, since it was not known.
func newRemote(kind string, values map[string]string) (*remote, error) {
	if kind == backendLocal {
		return nil, nil
	}
	for _, p := range wrongValues(kind, values) {
		return nil, &reconcilers.BlockedError{
			Reason: "BackendRefused", Message: "the backend of kind " + kind + " cannot be used: " + p.field + ": " + p.text, Do: "Correct it in the manifest and merge",
		}
	}
	return &remote{kind: kind, place: placeOf(kind, values), values: values}, nil
}

// placeOf names a place without its credentials.
func placeOf(kind string, values map[string]string) string {
	at := func(name string) string {
		u, err := url.Parse(values[name])
		if err != nil || u.Host == "" {
			return ""
		}
		host := strings.ToLower(u.Host)
		if kind == backendPg && u.Port() == "" {
			host += ":5432"
		}
		return host + strings.TrimSuffix(u.Path, "/")
	}
	switch kind {
	case backendPg:
		return "pg " + at("address") + " schema " + values["schema"]
	case backendHTTP:
		return "http " + at("address")
	case backendGCS:
		return strings.TrimSuffix("gcs "+values["bucket"]+"/"+strings.Trim(values["prefix"], "/")+" at "+at("address"), " at ")
	case backendS3:
		return strings.TrimSuffix("s3 "+values["bucket"]+"/"+values["key"]+" at "+at("address"), " at ")
	}
	return ""
}

// arguments are those of Terraform's backend block, as HCL. None is a secret. readOnly keeps pg from making schema and table.
func (r *remote) arguments(readOnly bool) map[string]string {
	given := r.own(map[string]string{
		backendPg + " conn_str":                 r.values["address"],
		backendPg + " schema_name":              r.values["schema"],
		backendHTTP + " address":                r.values["address"],
		backendHTTP + " lock_address":           cmp.Or(r.values["lockAddress"], r.values["address"]),
		backendHTTP + " unlock_address":         cmp.Or(r.values["unlockAddress"], r.values["lockAddress"], r.values["address"]),
		backendHTTP + " lock_method":            r.values["lockMethod"],
		backendHTTP + " unlock_method":          r.values["unlockMethod"],
		backendHTTP + " update_method":          r.values["updateMethod"],
		backendGCS + " bucket":                  r.values["bucket"],
		backendGCS + " prefix":                  r.values["prefix"],
		backendGCS + " storage_custom_endpoint": r.values["address"],
		backendS3 + " bucket":                   r.values["bucket"],
		backendS3 + " key":                      r.values["key"],
		backendS3 + " region":                   r.values["region"],
		backendS3 + " dynamodb_table":           r.values["lockTable"],
	})
	for name, value := range given {
		given[name] = quotedHCL(value)
	}
	yes := func(names ...string) {
		for _, name := range names {
			given[name] = "true"
		}
	}
	if r.kind == backendPg && readOnly {
		yes("skip_schema_creation", "skip_table_creation", "skip_index_creation")
	}
	if r.kind == backendS3 {
		if r.values["lockTable"] == "" {
			yes("use_lockfile")
		}
		if address := r.values["address"]; address != "" {
			given["endpoints"] = "{ s3 = " + quotedHCL(address) + " }"
			yes("use_path_style", "skip_credentials_validation", "skip_metadata_api_check", "skip_requesting_account_id", "skip_region_validation", "skip_s3_checksum")
		}
	}
	return given
}

// own takes what is given for this kind out of a table by "KIND NAME", by name.
func (r *remote) own(table map[string]string) map[string]string {
	given := map[string]string{}
	for at, value := range table {
		if name, mine := strings.CutPrefix(at, r.kind+" "); mine && value != "" {
			given[name] = value
		}
	}
	return given
}

// block is the text of Terraform's backend block; a nil remote is the file on the host.
func (r *remote) block(readOnly bool) string {
	kind, arguments := backendLocal, map[string]string{"path": `"../` + stateName + `"`}
	if r != nil {
		kind, arguments = r.kind, r.arguments(readOnly)
	}
	var text strings.Builder
	text.WriteString("terraform {\n  backend \"" + kind + "\" {\n")
	for _, name := range sortedKeys(arguments) {
		text.WriteString("    " + name + " = " + arguments[name] + "\n")
	}
	text.WriteString("  }\n}\n")
	return text.String()
}

// environment is what Terraform reads of the backend from its environment: who signs in, and the authority's certificate, of
// which some kinds want a file.
func (r *remote) environment(authority string) map[string]string {
	if r == nil {
		return map[string]string{}
	}
	env := r.own(map[string]string{
		backendPg + " PGUSER":                              r.values["user"],
		backendPg + " PGPASSWORD":                          r.values["password"],
		backendHTTP + " TF_HTTP_USERNAME":                  r.values["user"],
		backendHTTP + " TF_HTTP_PASSWORD":                  r.values["password"],
		backendHTTP + " TF_HTTP_CLIENT_CA_CERTIFICATE_PEM": r.values["ca"],
		backendGCS + " GOOGLE_CREDENTIALS":                 r.values["credentials"],
		backendGCS + " GOOGLE_ENCRYPTION_KEY":              r.values["encryptionKey"],
		backendS3 + " AWS_ACCESS_KEY_ID":                   r.values["accessKey"],
		backendS3 + " AWS_SECRET_ACCESS_KEY":               r.values["secretKey"],
	})
	if r.values["ca"] != "" {
		switch r.kind {
		case backendPg:
			env["PGSSLROOTCERT"] = authority
		case backendS3:
			env["AWS_CA_BUNDLE"] = authority
		}
	}
	return env
}

// authorityName is the file of the authority's certificate, beside a backend block.
const authorityName = "authority.pem"

// quotedHCL is a text of HCL in which nothing has a meaning.
func quotedHCL(text string) string {
	return strings.NewReplacer("${", "$${", "%{", "%%{").Replace(strconv.Quote(text))
}
