package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

// folderOf is all that an agent keeps of an instance in files.
func folderOf(dir, instance string) string { return filepath.Join(dir, "instances", instance) }

// placesIn names the folders of an instance, and makes none.
func placesIn(dir, instance, source string) places {
	root := folderOf(dir, instance)
	return places{
		source:  source,
		project: filepath.Join(root, "project"),
		secrets: filepath.Join(root, "secrets"),
		private: filepath.Join(root, "components"),
	}
}

// placesOf makes the folders of an instance, each 0700.
func placesOf(dir, instance, source string) (places, error) {
	p := placesIn(dir, instance, source)
	for _, folder := range []string{folderOf(dir, instance), p.project, p.secrets, p.private} {
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

// leftOf names the components that left an instance's manifest while something was kept of them: nobody takes away what
// they made. One that never kept anything, such as checks, leaves nothing.
func leftOf(dir string, next *assignment) (left []string) {
	if next == nil {
		return nil
	}
	root := placesIn(dir, next.instance.Name, "").private
	folders, _ := os.ReadDir(root) // none yet
	for _, folder := range folders {
		declared := slices.ContainsFunc(next.instance.Components, func(c *desired.Component) bool { return c.Name == folder.Name() })
		if kept, _ := os.ReadDir(filepath.Join(root, folder.Name())); !declared && len(kept) > 0 {
			left = append(left, folder.Name())
		}
	}
	return left
}
