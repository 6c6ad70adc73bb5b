package compose

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"

	"github.com/moby/moby/client"

	"dive-agent/atomicfile"
)

// place copies the files that the service binds from the snapshot into the project folder, and makes the folders that it
// binds and nobody has made; what somebody has made may be a file. Files of equal content are left alone.
func (st *serviceState) place() error {
	root := st.request.projectDir
	for _, folder := range st.model.content[st.name].folders {
		if _, err := os.Stat(folder); err == nil {
			continue
		}
		if err := staysBelow(root, folder); err != nil {
			return fmt.Errorf("make the folder that service %s binds: %w", st.name, err)
		}
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return fmt.Errorf("make the folder that service %s binds: %w", st.name, err)
		}
	}
	for _, p := range st.model.content[st.name].placed {
		if err := placeTree(p.from, p.to, root); err != nil {
			return fmt.Errorf("place the files of service %s: %w", st.name, err)
		}
	}
	return nil
}

// staysBelow says whether a path of the project's folder is in it when links are followed: containers that write there can
// make some.
func staysBelow(root, path string) error {
	root, err := filepath.EvalSymlinks(root)
	if err != nil {
		return err
	}
	for there := path; ; there = filepath.Dir(there) {
		resolved, err := filepath.EvalSymlinks(there)
		if errors.Is(err, fs.ErrNotExist) && there != filepath.Dir(there) {
			if _, err := os.Lstat(there); err != nil {
				continue // not there yet
			}
		} else if err == nil && within(root, resolved) {
			return nil
		}
		return fmt.Errorf("%s is a link that leads out of the project's folder: remove it", there)
	}
}

// placeTree copies a file or folder to a place in the project's folder, which is root.
func placeTree(from, to, root string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		if err := staysBelow(root, filepath.Dir(target)); err != nil {
			return err
		}
		if d.IsDir() {
			if err := staysBelow(root, target); err != nil {
				return err
			}
			return os.MkdirAll(target, 0o755)
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		return placeFile(target, content, info.Mode())
	})
}

// placeFile writes a file that users of any id may read, as containers run under theirs.
func placeFile(target string, content []byte, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	perm := fs.FileMode(0o644)
	if mode&0o111 != 0 {
		perm = 0o755
	}
	_, err := atomicfile.Write(target, content, atomicfile.Options{Mode: perm})
	return err
}

// injection is a config or secret that is no file: it is copied into the container before its start, as Compose does.
type injection struct {
	Target   string `json:"target"`
	Content  string `json:"content"`
	Mode     int64  `json:"mode"`
	UID, GID int
}

func (st *serviceState) injections() []injection {
	var list []injection
	add := func(target, content, uid, gid string, mode *int64) {
		in := injection{Target: target, Content: content, Mode: 0o444}
		if mode != nil {
			in.Mode = *mode
		}
		in.UID, _ = strconv.Atoi(uid)
		in.GID, _ = strconv.Atoi(gid)
		list = append(list, in)
	}
	for _, used := range st.service.Configs {
		config := st.model.project.Configs[used.Source]
		if config.File == "" {
			add(absolute("/", used.Target, used.Source), inlineConfig(st.model.project, config), used.UID, used.GID, (*int64)(used.Mode))
		}
	}
	for _, used := range st.service.Secrets {
		secret := st.model.project.Secrets[used.Source]
		if secret.File == "" {
			content := st.model.project.Environment[secret.Environment]
			add(absolute("/run/secrets/", used.Target, used.Source), content, used.UID, used.GID, (*int64)(used.Mode))
		}
	}
	return list
}

func absolute(folder, target, source string) string {
	switch {
	case target == "":
		return folder + source
	case path.IsAbs(target):
		return target
	}
	return folder + target
}

// inject copies contents into a container that does not run.
func (r *Reconciler) inject(ctx context.Context, id string, list []injection) error {
	for _, in := range list {
		var archive bytes.Buffer
		tw := tar.NewWriter(&archive)
		header := &tar.Header{Name: in.Target, Size: int64(len(in.Content)), Mode: in.Mode, Uid: in.UID, Gid: in.GID, ModTime: r.clock.Now()}
		if err := tw.WriteHeader(header); err != nil {
			return err
		}
		if _, err := tw.Write([]byte(in.Content)); err != nil {
			return err
		}
		if err := tw.Close(); err != nil {
			return err
		}
		_, err := r.engine.CopyToContainer(ctx, id, client.CopyToContainerOptions{
			DestinationPath: "/", Content: &archive, CopyUIDGID: in.UID != 0 || in.GID != 0,
		})
		if err != nil {
			return fmt.Errorf("copy %s into the container: %w", in.Target, err)
		}
	}
	return nil
}
