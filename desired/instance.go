package desired

// Builtins are the fields of the object "instance" that only the host knows. Empty ones are unknown.
type Builtins struct {
	ProjectDir string // the instance's stable folder on the host
	SecretsDir string // where its secret files are
}

// Scope gives the names that the instance's expressions may use. Secrets that are not given are unknown; so are all
// outputs until WithOutputs (or WithObject) replaces them.
func (i *Instance) Scope(secrets map[string]Value, builtins ...Builtins) *Scope {
	var host Builtins
	for _, b := range builtins {
		host = b
	}
	names := make(map[string]Value, len(i.Values)+len(i.Secrets))
	for name, value := range i.Values {
		names[name] = value
	}
	for _, secret := range i.Secrets {
		value, ok := secrets[secret.Name]
		if !ok {
			value = UnknownSecret()
		}
		names[secret.Name] = value
		if public, has := secret.PublicName(); has {
			names[public] = Unknown()
			if half, ok := secrets[public]; ok {
				names[public] = half
			}
		}
	}
	names["instance"] = object(i.builtins(host))
	names["hub"] = object(i.hub)
	names[fleetName], names[instancesName], names[spokeOutputsName] = i.fleet, i.instances, i.outputs
	for _, c := range i.Components {
		if outputter, ok := c.Spec.(Outputter); ok {
			names[c.Name] = object(outputsOf(outputter, nil))
		}
	}
	return NewScope(names)
}

// Component finds a component by name, or nil.
func (i *Instance) Component(name string) *Component {
	for _, c := range i.Components {
		if c.Name == name {
			return c
		}
	}
	return nil
}

// Secret finds a declared secret by name, or nil.
func (i *Instance) Secret(name string) *SecretSpec {
	for k := range i.Secrets {
		if i.Secrets[k].Name == name {
			return &i.Secrets[k]
		}
	}
	return nil
}

// Expressions lists the expressions of the component's manifest that use a name.
func (c *Component) Expressions() []Expr { return c.exprs }

// instanceFields are the fields of the object "instance".
var instanceFields = []string{"name", "role", "host", "project_dir", "secrets_dir"}

// hubFields are the fields of the object "hub".
var hubFields = []string{"instance", "url", "ca"}

func (i *Instance) builtins(b Builtins) map[string]Value {
	known := func(text string) Value {
		if text == "" {
			return Unknown()
		}
		return String(text)
	}
	return map[string]Value{
		"name": String(i.Name), "role": String(i.Role), "host": String(i.Host),
		"project_dir": known(b.ProjectDir), "secrets_dir": known(b.SecretsDir),
	}
}

func (h HubSpec) fields() map[string]Value {
	return map[string]Value{"instance": String(h.Instance), "url": String(h.URL), "ca": String(h.CA)}
}
