package mongo

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"dive-agent/desired"
)

var noName = regexp.MustCompile(`[^A-Za-z0-9_-]`)

// uriOutput is the output that carries a user's login: an expression must be able to name it.
func uriOutput(user string) string { return "uri_" + noName.ReplaceAllString(user, "_") }

// Outputs are what other components may refer to.
func (s *Spec) Outputs() []desired.Output {
	list := []desired.Output{
		{Name: "uri", Secret: true, Doc: "Connection string with login, all members that clients see, replicaSet and authSource, and tls once all members speak it. Each of users has one of its own too, uri_NAME; what cannot stand in a name is _ there."},
		{Name: "members", Doc: "host:port of the members that clients see, separated by commas."},
		{Name: "primary", Doc: "host:port of the primary."},
		{Name: "version", Doc: "Version of the primary's mongod."},
		{Name: "featureCompatibilityVersion", Doc: "Version that the data is compatible with, such as 6.0."},
	}
	for _, u := range s.Users {
		name := uriOutput(u.Name)
		if u.Name != "" && !slices.ContainsFunc(list, func(o desired.Output) bool { return o.Name == name }) {
			list = append(list, desired.Output{Name: name, Secret: true, Doc: "Connection string with the login of user " + u.Name + "."})
		}
	}
	return list
}

// outputs are published as soon as there is a primary; a connection string as soon as its login works.
func (s *session) outputs(o observation) map[string]desired.Value {
	secure := s.want.tls != nil && s.memory.TLS == "yes"
	known := map[string]desired.Value{
		"uri":     desired.Secret(s.want.uriOf(s.want.uriUser, secure)),
		"members": desired.String(s.want.visible()),
		"primary": desired.String(o.primary),
		"version": desired.String(o.version),
	}
	if o.fcv != (series{}) {
		known["featureCompatibilityVersion"] = desired.String(o.fcv.String())
	}
	for _, u := range s.want.users {
		name := uriOutput(u.name)
		if _, taken := known[name]; !taken && !o.lacks(u.login) {
			known[name] = desired.Secret(s.want.uriOf(u.login, secure))
		}
	}
	return known
}

// lacks says whether a login does not work yet.
func (o observation) lacks(l login) bool {
	return o.stale && l.id() == o.want.root.id() || slices.ContainsFunc(o.users, func(gap userGap) bool {
		return gap.user.id() == l.id() && (gap.missing || gap.password)
	})
}

// visible are the members that clients see.
func (w want) visible() string {
	var hosts []string
	for _, m := range w.members {
		if !m.hidden && !m.arbiter {
			hosts = append(hosts, m.host)
		}
	}
	return strings.Join(hosts, ",")
}

// uriOf is the connection string for applications that log in so. It never asks for a direct connection: a client that
// talks to one member only does not find the next primary.
func (w want) uriOf(l login, secure bool) string {
	escape := func(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }
	uri := fmt.Sprintf("mongodb://%s:%s@%s/%s?replicaSet=%s&authSource=%s", escape(l.name), escape(l.password),
		w.visible(), escape(w.database), escape(w.set), escape(l.database))
	if !secure {
		return uri
	}
	uri += "&tls=true"
	if w.tls.caFile != "" {
		uri += "&tlsCAFile=" + escape(w.tls.caFile)
	}
	if w.tls.keyFile != "" {
		uri += "&tlsCertificateKeyFile=" + escape(w.tls.keyFile)
	}
	return uri
}
