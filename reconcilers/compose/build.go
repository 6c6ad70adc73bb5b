package compose

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/client"
	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"

	"dive-agent/reconcilers"
)

// An image that a service builds is made on the host, of the sealed source folder, by the engine's own builder. Its name has a
// digest of all that it is made of, so it is built when that changed, and a version that is put back finds its own.

const (
	buildLimit = 30 * time.Minute // of one image
	buildBytes = 256 << 20        // of a context
	buildFiles = 20_000           // of a context
	builtLabel = "dive.build"     // on images: project/service
	builtKept  = 3                // images that are kept for a service
	builtBy    = "dive-build/"    // names of images begin so
)

func (b *building) owner(project string) string { return project + "/" + b.service }

// buildKeys are the keys of build that are done.
var buildKeys = []string{"context", "dockerfile", "dockerfile_inline", "args", "target", "labels", "no_cache", "pull"}

// building is what an image is made of.
type building struct {
	service string
	image   string
	context string   // folder of the source folder, on disk
	files   []string // in it, without what .dockerignore leaves out
	config  types.BuildConfig
}

// prepareBuilds names the images that services build. Without contents (shallow) they have a name that no image has.
func (m *model) prepareBuilds(r request) error {
	for name, service := range m.project.Services {
		if service.Build == nil {
			continue
		}
		b := &building{service: name, config: *service.Build}
		if err := b.read(r); err != nil {
			return fmt.Errorf("services.%s.build: %w", name, err)
		}
		tag, err := b.digest(r)
		if err != nil {
			return fmt.Errorf("services.%s.build: %w", name, cause(err))
		}
		b.image = builtBy + m.project.Name + "-" + strings.ToLower(strings.Trim(name, "._-")) + ":" + tag
		service.Image, service.PullPolicy = b.image, types.PullPolicyNever
		if !r.shallow {
			service.Build = nil
		}
		m.project.Services[name] = service
		m.builds[b.image] = b
	}
	return nil
}

// read finds the files of the context.
func (b *building) read(r request) error {
	folder, err := r.inside(b.config.Context)
	if err != nil {
		return fmt.Errorf("context %s: %w", b.config.Context, err)
	}
	if info, err := os.Stat(folder); err != nil || !info.IsDir() {
		return fmt.Errorf("context %s: it is no folder of the source folder", b.config.Context)
	}
	b.context = folder
	if b.config.DockerfileInline == "" {
		if err := b.findDockerfile(); err != nil {
			return err
		}
	}
	if r.shallow {
		return nil
	}
	ignored, err := b.ignored()
	if err != nil {
		return err
	}
	size := int64(0)
	return filepath.WalkDir(folder, func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(folder, file)
		if err != nil {
			return err
		}
		if rel != b.config.Dockerfile {
			if out, err := ignored.MatchesOrParentMatches(rel); err != nil || out {
				return err
			}
		}
		info, err := os.Stat(file)
		if err != nil {
			return err
		}
		b.files = append(b.files, rel)
		if size += info.Size(); size > buildBytes || len(b.files) > buildFiles {
			return fmt.Errorf("its context has more than %d MiB or %d files: name what is not needed in .dockerignore", buildBytes>>20, buildFiles)
		}
		return nil
	})
}

func (b *building) findDockerfile() error {
	if b.config.Dockerfile == "" {
		b.config.Dockerfile = "Dockerfile"
	}
	name := b.config.Dockerfile
	if filepath.IsAbs(name) {
		rel, err := filepath.Rel(b.context, name)
		if err != nil {
			return err
		}
		name = rel
	}
	if name = path.Clean(filepath.ToSlash(name)); name == ".." || strings.HasPrefix(name, "../") {
		return fmt.Errorf("dockerfile %s lies outside of the context", b.config.Dockerfile)
	}
	b.config.Dockerfile = name
	if err := checkSize(filepath.Join(b.context, name)); err != nil {
		return fmt.Errorf("dockerfile %s: %w", name, err)
	}
	if _, err := os.Stat(filepath.Join(b.context, name)); err != nil {
		return fmt.Errorf("there is no dockerfile %s in the context", name)
	}
	return nil
}

// ignored reads what .dockerignore leaves out of the context.
func (b *building) ignored() (*patternmatcher.PatternMatcher, error) {
	content, err := readLimited(filepath.Join(b.context, ".dockerignore"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf(".dockerignore: %w", cause(err))
	}
	patterns, err := ignorefile.ReadAll(bytes.NewReader(content))
	if err != nil {
		return nil, fmt.Errorf(".dockerignore: %w", err)
	}
	return patternmatcher.New(patterns)
}

// digest is of all that the image is made of.
func (b *building) digest(r request) (string, error) {
	if r.shallow {
		return "unknown", nil
	}
	var lines []string
	for _, file := range b.files {
		sum, err := digestFile(filepath.Join(b.context, file))
		if err != nil {
			return "", err
		}
		info, err := os.Stat(filepath.Join(b.context, file))
		if err != nil {
			return "", err
		}
		lines = append(lines, fmt.Sprintf("%q %v %x", file, info.Mode().Perm()&0o111, sum))
	}
	return digestJSON(lines, b.config.Dockerfile, b.config.DockerfileInline, b.config.Args, b.config.Target, b.config.Labels)
}

// buildStep makes an image.
func (st *sharedState) buildStep(b *building) step {
	return step{
		change: reconcilers.Change{Action: reconcilers.Run, Address: "image " + b.image, Reason: "build: no image of these contents is on this host"},
		do:     func(ctx context.Context, r *Reconciler) error { return r.build(ctx, st.project, b) },
	}
}

// build has the engine make an image. One that cannot be made makes the revision a rejected one: nothing of the stack was touched.
func (r *Reconciler) build(ctx context.Context, project string, b *building) error {
	limited, cancel := context.WithTimeout(ctx, buildLimit)
	defer cancel()
	words, err := r.buildOnce(limited, project, b)
	if err == nil {
		return r.forgetBuilds(ctx, project, b)
	}
	if ctx.Err() != nil || client.IsErrConnectionFailed(err) {
		return err
	}
	message := fmt.Sprintf("the image of service %s cannot be built", b.service)
	if limited.Err() != nil {
		message += fmt.Sprintf(" within %s", buildLimit)
	}
	return &reconcilers.RejectedError{Message: message, Err: r.redacted(err), Logs: words, PutBack: untouched}
}

func (r *Reconciler) buildOnce(ctx context.Context, project string, b *building) (words []string, err error) {
	labels := map[string]string{builtLabel: b.owner(project)}
	for name, value := range b.config.Labels {
		labels[name] = value
	}
	packed, written := io.Pipe()
	go func() { written.CloseWithError(b.pack(written)) }()
	defer func() { _ = packed.Close() }()
	dockerfile := b.config.Dockerfile
	if b.config.DockerfileInline != "" {
		dockerfile = inlineDockerfile
	}
	result, err := r.engine.ImageBuild(ctx, packed, client.ImageBuildOptions{
		Version: build.BuilderV1, Tags: []string{b.image}, Dockerfile: dockerfile, BuildArgs: b.config.Args, Target: b.config.Target,
		Labels: labels, NoCache: b.config.NoCache, PullParent: b.config.Pull, Remove: true, ForceRemove: true,
	})
	if err != nil {
		return nil, err
	}
	defer func() { _ = result.Body.Close() }()
	decoder := json.NewDecoder(result.Body)
	for {
		var said struct {
			Stream string `json:"stream"`
			Error  string `json:"error"`
		}
		if err := decoder.Decode(&said); errors.Is(err, io.EOF) {
			return words, nil
		} else if err != nil {
			return words, err
		}
		if said.Error != "" {
			return words, errors.New(said.Error)
		}
		if line := strings.TrimSpace(said.Stream); line != "" {
			words = append(words, r.redact(line))
			words = words[max(0, len(words)-10):]
		}
	}
}

// inlineDockerfile is where an inline Dockerfile stands in what the engine gets.
const inlineDockerfile = ".dive-dockerfile"

// pack writes the context as a tar.
func (b *building) pack(w io.Writer) error {
	archive := tar.NewWriter(w)
	add := func(name string, mode fs.FileMode, size int64, content io.Reader) error {
		header := &tar.Header{Name: filepath.ToSlash(name), Mode: int64(0o644 | mode.Perm()&0o111), Size: size, ModTime: time.Unix(0, 0)}
		if err := archive.WriteHeader(header); err != nil {
			return err
		}
		_, err := io.CopyN(archive, content, size)
		return err
	}
	for _, name := range b.files {
		file, err := os.Open(filepath.Join(b.context, name))
		if err != nil {
			return err
		}
		info, err := file.Stat()
		if err == nil {
			err = add(name, info.Mode(), info.Size(), file)
		}
		if err = errors.Join(err, file.Close()); err != nil {
			return err
		}
	}
	if inline := b.config.DockerfileInline; inline != "" {
		if err := add(inlineDockerfile, 0, int64(len(inline)), strings.NewReader(inline)); err != nil {
			return err
		}
	}
	return archive.Close()
}

// forgetBuilds removes images of the service that were built long ago. The last ones are kept, to be put back, and the engine keeps
// one that a container is made of.
func (r *Reconciler) forgetBuilds(ctx context.Context, project string, b *building) error {
	list, err := r.engine.ImageList(ctx, client.ImageListOptions{
		Filters: make(client.Filters).Add("label", builtLabel+"="+b.owner(project)),
	})
	if err != nil {
		return fmt.Errorf("list the images that were built for service %s: %w", b.service, err)
	}
	slices.SortStableFunc(list.Items, func(x, y image.Summary) int { return int(y.Created - x.Created) })
	for i, old := range list.Items {
		if i < builtKept || slices.Contains(old.RepoTags, b.image) {
			continue
		}
		if _, err := r.engine.ImageRemove(ctx, old.ID, client.ImageRemoveOptions{PruneChildren: true}); err != nil && !errdefs.IsNotFound(err) && !errdefs.IsConflict(err) {
			return fmt.Errorf("remove an image that was built for service %s: %w", b.service, err)
		}
	}
	return nil
}

// buildProblems names the keys of build that are not done.
func buildProblems(config *types.BuildConfig) (keys []string) {
	fields, err := toFields(config)
	if err != nil {
		return nil
	}
	for key := range fields {
		if !slices.Contains(buildKeys, key) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// repository digests what the repository has of the image, without the values of its arguments.
func (b *building) repository() string {
	plain := *b
	plain.config.Args = nil
	digest, err := plain.digest(request{})
	if err != nil {
		return ""
	}
	return digest
}
