// Package stored reads the secrets that an agent keeps in its state folder, for tests and figures that search for them or sign
// in with them.
package stored

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"

	"dive-agent/desired"
	"dive-agent/secrets"
)

// Values gives the present values of an instance by name. The agent's own key, in its default place, opens them.
func Values(stateDir, instance string) (map[string]string, error) {
	dir := filepath.Join(stateDir, "instances", instance, "secrets")
	files, err := os.ReadDir(filepath.Join(dir, ".store", "values"))
	if err != nil {
		return nil, err
	}
	var specs []desired.SecretSpec
	for _, file := range files {
		if file.Type().IsRegular() && file.Name()[0] != '.' {
			specs = append(specs, desired.SecretSpec{Name: file.Name(), Provide: true})
		}
	}
	key := secrets.NewHostKey(secrets.HostKeyOptions{File: filepath.Join(stateDir, "secrets.key"), Random: rand.Reader})
	values, missing, err := secrets.Peek(secrets.Options{Instance: instance, Dir: dir, Keys: key}, specs)
	if err == nil && len(missing) > 0 {
		err = missing
	}
	if err != nil {
		return nil, fmt.Errorf("read the secrets of %s: %w", instance, err)
	}
	texts := map[string]string{}
	for _, spec := range specs {
		texts[spec.Name] = values[spec.Name].Text()
	}
	return texts, nil
}
