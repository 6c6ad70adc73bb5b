package verify

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"dive-agent/desired"
)

// problem is what is wrong with a check's kind, and in which field of it.
type problem struct {
	path []string
	text string
}

// wrong is a problem of the check as a whole.
func wrong(format string, args ...any) []problem {
	return []problem{{text: fmt.Sprintf(format, args...)}}
}

// in is a problem of a field.
func in(field, format string, args ...any) []problem {
	return []problem{{strings.Split(field, "."), fmt.Sprintf(format, args...)}}
}

// problems says what is wrong with the check's only kind.
func (c Check) problems(by *desired.Check) []problem {
	switch {
	case c.HTTP != nil:
		return slices.Concat(place(c.HTTP.URL, c.HTTP.Service, c.HTTP.Port, "url"), c.HTTP.authority(by, c.Position), c.HTTP.problems(by))
	case c.TCP != nil:
		return place(c.TCP.Address, c.TCP.Service, c.TCP.Port, "address")
	case c.Mongo != nil:
		return slices.Concat(c.Mongo.problems(), c.Mongo.where(by.Instance), c.Mongo.authority(by, c.Position))
	case c.SQL != nil:
		return place(c.SQL.URI, c.SQL.Service, c.SQL.Port, "uri")
	case c.Audit != nil:
		return append(place(c.Audit.URI, c.Audit.Service, c.Audit.Port, "uri"), c.Audit.problems()...)
	case c.Logs != nil && c.Logs.Absent == "" && c.Logs.Present == "":
		return wrong("logs needs absent or present")
	case c.Certificate != nil:
		return append(place(c.Certificate.Address, c.Certificate.Service, c.Certificate.Port, "address"), c.Certificate.authority(by, c.Position)...)
	case c.OIDC != nil:
		list := c.OIDC.authority(by, c.Position)
		if c.OIDC.Issuer.IsZero() && c.OIDC.URL.IsZero() {
			list = append(list, wrong("oidc needs issuer or url")...)
		}
		return list
	case c.Federation != nil:
		return slices.Concat(c.Federation.problems(by), c.Federation.where(by.Instance), c.Federation.authority(by, c.Position))
	case c.Policy != nil:
		return append(c.Policy.problems(by), c.Policy.authority(by, c.Position)...)
	}
	return nil
}

func (p *Policy) problems(by *desired.Check) []problem {
	if text, ok := by.Known(p.Server); ok && text != "" {
		if u, err := url.Parse(text); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return in("server", "server %q is no URL of http or https", text)
		}
	}
	return nil
}

// problems of what is shown to the server, and asked of it.
func (h *HTTP) problems(by *desired.Check) []problem {
	url, known := by.Known(h.URL)
	plain := h.Service != "" && h.Scheme != "https" || known && strings.HasPrefix(url, "http:")
	switch {
	case h.Mutual && h.Certificate.IsZero():
		return in("mutual", "mutual needs certificate: what is shown to the server that is to ask for one")
	case plain && !h.Certificate.IsZero():
		return in("certificate", "a certificate is shown over https alone: set scheme: https, or an https URL")
	}
	return nil
}

// asks lists what a mongo check asks for; a right one asks for one thing.
func (m *Mongo) asks() (list []string) {
	for _, a := range []struct {
		name string
		set  bool
	}{
		{"command", !m.Command.IsZero()},
		{"count", m.Count != ""},
		{"every", m.Every != nil},
		{"changeStream", m.ChangeStream},
		{"member", m.Member != ""},
	} {
		if a.set {
			list = append(list, a.name)
		}
	}
	return list
}

func (m *Mongo) problems() (list []problem) {
	if asks := m.asks(); len(asks) != 1 {
		have := "none"
		if len(asks) > 0 {
			have = strings.Join(asks, ", ")
		}
		return wrong("mongo needs exactly one of command, count, every, changeStream, member; it has %s", have)
	}
	switch {
	case m.Count != "" && m.Expect.IsZero():
		list = wrong("count needs expect, the number of documents")
	case !m.Command.IsZero() && !m.Command.IsMap():
		list = in("command", "command must be a map such as {hello: 1}")
	case m.Every != nil:
		list = m.Every.problems()
	}
	if !m.Filter.IsZero() && m.Count == "" {
		list = append(list, in("filter", "filter goes with count; every has one of its own")...)
	}
	if !m.Expect.IsZero() && m.Count == "" && m.Command.IsZero() {
		list = append(list, in("expect", "expect goes with command or count")...)
	}
	if m.Set != "" && m.Member == "" {
		list = append(list, in("set", "set goes with member")...)
	}
	return list
}

func (e *Every) problems() (list []problem) {
	if e.Is.IsZero() && len(e.NonEmpty) == 0 {
		list = in("every", "every needs is or nonEmpty: what the documents must have")
	}
	if !e.Is.IsZero() && !e.Is.IsMap() {
		list = append(list, in("every.is", "is must be a map such as {encrypted: true}")...)
	}
	if !e.Filter.IsZero() && !e.Filter.IsMap() {
		list = append(list, in("every.filter", "filter must be a map such as {status: active}")...)
	}
	for _, field := range e.NonEmpty {
		if field == "" || strings.HasPrefix(field, "$") {
			list = append(list, in("every.nonEmpty", "%q is no field of a document", field)...)
		}
	}
	if e.AtLeast < 0 {
		list = append(list, in("every.atLeast", "atLeast must be 0 or more")...)
	}
	return list
}

func (a *Audit) problems() (list []problem) {
	tables, views, functions := a.wanted()
	if len(tables)+len(views)+len(functions)+len(a.Databases) == 0 {
		list = wrong("audit looks for nothing: tables, views, functions and databases are empty")
	}
	for field, names := range map[string][]string{"tables": tables, "views": views, "functions": functions, "databases": a.Databases} {
		if slices.Contains(names, "") {
			list = append(list, in(field, "%s has an empty name", field)...)
		}
	}
	return list
}

// wanted is what the check looks for in the schema.
func (a *Audit) wanted() (tables, views, functions []string) {
	or := func(given, preset []string) []string {
		if given == nil {
			return preset
		}
		return given
	}
	return or(a.Tables, auditTables), or(a.Views, auditViews), or(a.Functions, auditFunctions)
}

func (f *Federation) problems(by *desired.Check) (list []problem) {
	if f.Heartbeat <= 0 {
		list = in("heartbeat", "heartbeat must be more than 0s")
	}
	if by.Scope != nil && !f.AdminKey.IsZero() {
		if v, err := f.AdminKey.Eval(by.Scope); err == nil && !v.Secret() {
			list = append(list, in("adminKey", "adminKey must come from a secret of the instance, such as ${FEDERATION_ADMIN_KEY}")...)
		}
	}
	if by.Instance == nil || by.Fleet == nil {
		return list
	}
	switch hub := by.Instance.Role == desired.RoleHub; {
	case f.Both == allSpokes && !hub:
		return append(list, in("both", "spokes is for a hub; a spoke names its partner, such as %s", orAny(by.Fleet.Hub.Instance, "usa"))...)
	case f.Both == allSpokes:
	case f.Both == by.Instance.Name:
		return append(list, in("both", "%s is this instance itself", f.Both)...)
	case by.Fleet.Instances[f.Both] == nil:
		return append(list, in("both", "there is no instance %q in the fleet", f.Both)...)
	}
	if f.URL.IsZero() && by.Fleet.Hub.URL == "" {
		list = append(list, wrong("federation needs url: fleet.yaml names no hub.url")...)
	}
	return list
}

func orAny(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

// where says whether it is clear which database is meant.
func (m *MongoPlace) where(instance *desired.Instance) (list []problem) {
	if m.URI.IsZero() && m.component(instance) == "" {
		list = wrong("it needs uri or component: the instance has not exactly one %s", replicaSetKind)
	}
	if m.Component != "" && !publishesURI(instance, m.Component) {
		list = append(list, in("component", "component %q is none of this instance that publishes uri", m.Component)...)
	}
	return list
}

// component is the component whose output uri the check uses; empty when the manifest leaves it open and there is not
// exactly one replica set.
func (m *MongoPlace) component(instance *desired.Instance) string {
	if m.Component != "" || instance == nil {
		return m.Component
	}
	found := ""
	for _, c := range instance.Components {
		if c.Kind != replicaSetKind {
			continue
		}
		if found != "" {
			return ""
		}
		found = c.Name
	}
	return found
}

func publishesURI(instance *desired.Instance, name string) bool {
	if instance == nil {
		return true
	}
	for _, c := range instance.Components {
		outputter, ok := c.Spec.(desired.Outputter)
		if c.Name == name && ok {
			return slices.ContainsFunc(outputter.Outputs(), func(o desired.Output) bool { return o.Name == "uri" })
		}
	}
	return false
}

// place says whether exactly one way to the server is given.
func place(address desired.Expr, service string, port int, field string) []problem {
	switch {
	case address.IsZero() && service == "":
		return wrong("it needs %s or service", field)
	case !address.IsZero() && service != "":
		return in("service", "it has both %s and service; one is enough", field)
	case service != "" && (port < 1 || port > 65535):
		return in("port", "service %s needs a port from 1 to 65535", service)
	}
	return nil
}

// authority says what is wrong with the certificate authority that is named.
func (t Trust) authority(by *desired.Check, where desired.Position) []problem {
	if t.CAFile == "" {
		return nil
	}
	if !t.CA.IsZero() {
		return in("caFile", "it has both ca and caFile; one is enough")
	}
	by.Path(where, t.CAFile, false)
	return nil
}
