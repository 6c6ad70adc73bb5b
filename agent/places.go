package agent

import (
	"fmt"
	"os"
	"path/filepath"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

// placesOf makes the folders of an instance: below dir/instances/<name>, each 0700.
func placesOf(dir, instance, source string) (places, error) {
	root := filepath.Join(dir, "instances", instance)
	p := places{
		source:  source,
		project: filepath.Join(root, "project"),
		secrets: filepath.Join(root, "secrets"),
		private: filepath.Join(root, "components"),
	}
	for _, folder := range []string{root, p.project, p.secrets, p.private} {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return places{}, fmt.Errorf("cannot make the folder of instance %s: %w", instance, err)
		}
	}
	return p, nil
}

func (p places) builtins() desired.Builtins {
	return desired.Builtins{ProjectDir: p.project, SecretsDir: p.secrets}
}

// target is a component as every call about it has it.
func (p places) target(fleet *desired.Fleet, instance *desired.Instance, component *desired.Component, scope *desired.Scope) reconcilers.Target {
	return reconcilers.Target{
		Fleet: fleet, Instance: instance, Component: component, Scope: scope,
		SourceDir: p.source, ProjectDir: p.project, SecretsDir: p.secrets,
	}
}

// component makes the private folder of a component.
func (p places) component(name string) (string, error) {
	folder := filepath.Join(p.private, name)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return "", fmt.Errorf("cannot make the folder of component %s: %w", name, err)
	}
	return folder, nil
}
