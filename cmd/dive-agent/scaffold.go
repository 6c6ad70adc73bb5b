package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"dive-agent/desired"
	"dive-agent/examples"
	"dive-agent/reconcilers/all"
)

func newInit(g *globals) *cobra.Command {
	return &cobra.Command{
		Use: "init DIR", Short: "Start a fleet repository: blueprints of hub and spoke, and the hub USA", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			files, err := initialFiles()
			if err != nil {
				return err
			}
			if err := writeNew(args[0], files); err != nil {
				return err
			}
			g.printf("%d files written to %s. Next: name your hosts and images in fleet.yaml, put the hub's authority into hub-ca.pem, then\n"+
				"  dive-agent validate %[2]s\n  dive-agent new spoke DEU Germany --dir %[2]s\n", len(files), args[0])
			return nil
		},
	}
}

// initialFiles are those of the example fleet, with the hub alone.
func initialFiles() (files []desired.File, err error) {
	all, err := examples.Files(examples.Options{Instances: []string{"usa"}, Hosts: []string{"usa-01"}})
	for _, path := range slices.Sorted(maps.Keys(all)) {
		files = append(files, desired.File{Path: path, Text: all[path]})
	}
	return files, err
}

func newNew(g *globals) *cobra.Command {
	cmd := &cobra.Command{Use: "new", Short: "Write the file that a pull request adds"}
	for _, role := range []string{desired.RoleSpoke, desired.RoleHub} {
		cmd.AddCommand(newInstanceCommand(g, role))
	}
	return cmd
}

func newInstanceCommand(g *globals, role string) *cobra.Command {
	var dir, host, name string
	cmd := &cobra.Command{
		Use: role + " CODE COUNTRY", Short: "Write the manifest of a new " + role + ", such as: new " + role + " DEU Germany", Args: cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			files, err := desired.NewInstanceFile(dir, desired.Options{Kinds: all.Registry.Kinds(), Allow: allowAll},
				desired.NewInstance{Role: role, Code: args[0], Country: args[1], Host: host, Name: name})
			if err != nil {
				return err
			}
			if err := writeNew(dir, files); err != nil {
				return err
			}
			for _, file := range files {
				g.printf("wrote %s\n", file.Path)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "dir", ".", "the fleet repository")
	cmd.Flags().StringVar(&host, "host", "", "the host it runs on; default: the free one of that name")
	cmd.Flags().StringVar(&name, "name", "", "name of the instance; default: the code in lower case")
	return cmd
}

// writeNew writes files that are not there yet; when one is, nothing is written.
func writeNew(dir string, files []desired.File) error {
	var there []string
	for _, file := range files {
		if _, err := os.Lstat(filepath.Join(dir, filepath.FromSlash(file.Path))); !errors.Is(err, fs.ErrNotExist) {
			there = append(there, file.Path)
		}
	}
	if len(there) > 0 {
		const most = 3
		if len(there) > most {
			there = append(there[:most], fmt.Sprintf("%d more", len(there)-most))
		}
		return fmt.Errorf("%s has %s already: nothing was written", dir, strings.Join(there, ", "))
	}
	for _, file := range files {
		path := filepath.Join(dir, filepath.FromSlash(file.Path))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("cannot make the folder of %s: %w", file.Path, err)
		}
		if err := os.WriteFile(path, file.Text, 0o644); err != nil {
			return fmt.Errorf("cannot write %s: %w", file.Path, err)
		}
	}
	return nil
}
