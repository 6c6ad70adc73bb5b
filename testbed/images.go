package testbed

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/client"
	"golang.org/x/sync/errgroup"
)

// recipeLabel holds the digest of the recipe that an image was made from.
const recipeLabel = "dive-testbed.recipe"

// recipe says how one image is made.
type recipe struct {
	name   ImageName
	parent ImageName // "" for an image that starts from nothing
	// prepare makes what the image is made of, cached where it is dear, and returns where it lies. It runs beside the
	// making of the parent.
	prepare func(ctx context.Context, say Progress) (material, error)
	// wanted tells that `up` makes it; the others are made when somebody asks.
	wanted bool
}

// material is what an image is made of.
type material struct {
	digest     string            // of all that goes into the image
	rootfs     string            // a tar that is imported as the whole image, with changes
	changes    []string          // Dockerfile instructions for the import
	dockerfile string            // without its FROM line
	files      map[string]string // path in the build context to the file or folder on disk
	inline     map[string]string // path in the build context to the text of a small program
	fill       func(ctx context.Context, say Progress) (rootfs string, files map[string]string, err error)
}

// builder makes images in one engine, each at most once.
type builder struct {
	cli  *client.Client
	say  Progress
	mu   sync.Mutex
	done map[ImageName]func() (string, error)
}

// EnsureImages makes those of the named images that the engine at host lacks, and the images that they build on; all
// that `up` makes when no name is given.
func EnsureImages(ctx context.Context, host string, say Progress, names ...ImageName) error {
	cli, err := Connect(host)
	if err != nil {
		return err
	}
	defer func() { _ = cli.Close() }()
	if len(names) == 0 {
		for _, r := range recipes {
			if r.wanted {
				names = append(names, r.name)
			}
		}
	}
	b := &builder{cli: cli, say: say, done: map[ImageName]func() (string, error){}}
	g, ctx := errgroup.WithContext(ctx)
	for _, name := range names {
		g.Go(func() error {
			_, err := b.ensure(ctx, name)
			return err
		})
	}
	return g.Wait()
}

// PinnedImage makes the image unless it is there, and gives it under a name that another checkout, which makes it otherwise,
// does not move.
func PinnedImage(ctx context.Context, host string, say Progress, name ImageName) (string, error) {
	cli, err := Connect(host)
	if err != nil {
		return "", err
	}
	defer func() { _ = cli.Close() }()
	b := &builder{cli: cli, say: say, done: map[ImageName]func() (string, error){}}
	digest, err := b.ensure(ctx, name)
	if err != nil {
		return "", err
	}
	return withDigest(name, digest), nil
}

// ensure makes the image unless it is there, and returns the digest of its recipe.
func (b *builder) ensure(ctx context.Context, name ImageName) (string, error) {
	b.mu.Lock()
	once, ok := b.done[name]
	if !ok {
		once = sync.OnceValues(func() (string, error) { return b.make(ctx, name) })
		b.done[name] = once
	}
	b.mu.Unlock()
	return once()
}

// make gives the digest of an image that the engine has afterwards. Only one process at a time makes an image; who waited
// for that looks again.
func (b *builder) make(ctx context.Context, name ImageName) (string, error) {
	r, err := findRecipe(name)
	if err != nil {
		return "", err
	}
	m, parent, err := b.gather(ctx, r)
	if err != nil {
		return "", err
	}
	want := digest(append([]string{parent, m.digest, m.dockerfile, strings.Join(m.changes, "\n")}, flatten(m.inline)...)...)
	if b.has(ctx, name, want) {
		return want, nil
	}
	unlock, err := lockFile(ctx, filepath.Join(CacheDir(), "images", strings.NewReplacer("/", "_", ":", "_").Replace(string(name))+".lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	if b.has(ctx, name, want) {
		return want, nil
	}
	begin := time.Now()
	b.say("image %s: making it", name)
	if err := b.makeFrom(ctx, r, m, parent, want); err != nil {
		return "", fmt.Errorf("make image %s: %w", name, err)
	}
	b.dropOld(ctx, name)
	b.say("image %s: ready, %.1f s", name, time.Since(begin).Seconds())
	return want, nil
}

// gather prepares the image and ensures its parent, side by side. Of an image that the engine has never had, the dear
// part is made then too; of others it waits until the parent tells whether there is something to do.
func (b *builder) gather(ctx context.Context, r recipe) (m material, parent string, err error) {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		if m, err = r.prepare(ctx, b.say); err != nil {
			return fmt.Errorf("prepare image %s: %w", r.name, err)
		}
		if _, missing := b.cli.ImageInspect(ctx, string(r.name)); missing == nil {
			return nil
		}
		if err := m.complete(ctx, b.say); err != nil {
			return fmt.Errorf("make image %s: %w", r.name, err)
		}
		return nil
	})
	if r.parent != "" {
		g.Go(func() (err error) {
			parent, err = b.ensure(ctx, r.parent)
			return err
		})
	}
	err = g.Wait()
	return m, parent, err
}

// complete makes the part of the material that is dear, once.
func (m *material) complete(ctx context.Context, say Progress) error {
	if m.fill == nil {
		return nil
	}
	rootfs, files, err := m.fill(ctx, say)
	if err != nil {
		return err
	}
	m.rootfs, m.fill = rootfs, nil
	if m.files == nil {
		m.files = map[string]string{}
	}
	maps.Copy(m.files, files)
	return nil
}

// has reports whether the name stands for the image made from this very recipe. When the engine has that image under
// its digest only, because another checkout made its own since, the name is moved back.
func (b *builder) has(ctx context.Context, name ImageName, want string) bool {
	info, err := b.cli.ImageInspect(ctx, string(name))
	if err == nil && info.Config != nil && info.Config.Labels[recipeLabel] == want {
		if slices.Contains(info.RepoTags, withDigest(name, want)) {
			return true
		}
		_, err := b.cli.ImageTag(ctx, client.ImageTagOptions{Source: info.ID, Target: withDigest(name, want)})
		return err == nil
	}
	if _, err := b.cli.ImageInspect(ctx, withDigest(name, want)); err != nil {
		return false
	}
	_, err = b.cli.ImageTag(ctx, client.ImageTagOptions{Source: withDigest(name, want), Target: string(name)})
	return err == nil
}

// withDigest is the name of the image made from one recipe: it never moves.
func withDigest(name ImageName, recipe string) string { return string(name) + "-" + recipe }

// dropOld removes the images of earlier recipes but the newest two; those in use stay.
func (b *builder) dropOld(ctx context.Context, name ImageName) {
	list, err := b.cli.ImageList(ctx, client.ImageListOptions{})
	if err != nil {
		return
	}
	old := list.Items[:0]
	for _, found := range list.Items {
		for _, tag := range found.RepoTags {
			if strings.HasPrefix(tag, string(name)+"-") {
				old = append(old, found)
				break
			}
		}
	}
	slices.SortFunc(old, func(a, b image.Summary) int { return int(b.Created - a.Created) })
	for i, found := range old {
		if i < 3 {
			continue
		}
		for _, tag := range found.RepoTags {
			_, _ = b.cli.ImageRemove(ctx, tag, client.ImageRemoveOptions{PruneChildren: true})
		}
	}
}

// makeFrom builds without a network and without the engine's cache: what an image holds is decided by its recipe alone.
func (b *builder) makeFrom(ctx context.Context, r recipe, m material, parent, want string) error {
	if err := m.complete(ctx, b.say); err != nil {
		return err
	}
	if m.rootfs != "" {
		return b.importTar(ctx, r, m, want)
	}
	from := "scratch"
	if r.parent != "" {
		from = withDigest(r.parent, parent)
	}
	body, stop := contextTar("FROM "+from+"\n"+m.dockerfile, m)
	defer stop()
	res, err := b.cli.ImageBuild(ctx, body, client.ImageBuildOptions{
		Tags:        []string{withDigest(r.name, want), string(r.name)},
		Labels:      map[string]string{recipeLabel: want},
		Remove:      true,
		ForceRemove: true,
		NoCache:     true,
		NetworkMode: "none",
		Version:     build.BuilderV1,
	})
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	return readStream(res.Body)
}

func (b *builder) importTar(ctx context.Context, r recipe, m material, want string) error {
	f, err := os.Open(m.rootfs)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	res, err := b.cli.ImageImport(ctx, client.ImageImportSource{Source: f, SourceName: "-"}, withDigest(r.name, want), client.ImageImportOptions{
		Changes: append([]string{"LABEL " + recipeLabel + "=" + want}, m.changes...),
	})
	if err != nil {
		return err
	}
	defer func() { _ = res.Close() }()
	if err := readStream(res); err != nil {
		return err
	}
	_, err = b.cli.ImageTag(ctx, client.ImageTagOptions{Source: withDigest(r.name, want), Target: string(r.name)})
	return err
}

// readStream reads the engine's messages to their end. The error that they carry comes with the last words before it.
func readStream(r io.Reader) error {
	dec := json.NewDecoder(r)
	var words strings.Builder
	for {
		var msg jsonstream.Message
		err := dec.Decode(&msg)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the engine's answer: %w", err)
		}
		if msg.Error != nil {
			return fmt.Errorf("%w\n%s", msg.Error, lastLines(words.String(), 25))
		}
		words.WriteString(msg.Stream)
	}
}

// contextTar streams a build context of a Dockerfile and files. Owners are root, times are zero.
func contextTar(dockerfile string, m material) (io.Reader, func()) {
	r, w := io.Pipe()
	go func() {
		tw := tar.NewWriter(w)
		err := writeContext(tw, dockerfile, m)
		if err == nil {
			err = tw.Close()
		}
		_ = w.CloseWithError(err)
	}()
	return r, func() { _ = r.Close() }
}

func writeContext(tw *tar.Writer, dockerfile string, m material) error {
	texts := maps.Clone(m.inline)
	if texts == nil {
		texts = map[string]string{}
	}
	texts["Dockerfile"] = dockerfile
	for name, text := range texts {
		if err := tw.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(text))}); err != nil {
			return err
		}
		if _, err := io.WriteString(tw, text); err != nil {
			return err
		}
	}
	for name, root := range m.files {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			return addToTar(tw, filepath.ToSlash(filepath.Join(name, rel)), path, d)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// addToTar leaves owner and time out, so that the same files make the same layer on every machine.
func addToTar(tw *tar.Writer, name, path string, d fs.DirEntry) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	link := ""
	if info.Mode()&fs.ModeSymlink != 0 {
		if link, err = os.Readlink(path); err != nil {
			return err
		}
	}
	h, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return err
	}
	h.Name, h.Uid, h.Gid, h.Uname, h.Gname = name, 0, 0, "", ""
	h.ModTime = time.Unix(0, 0)
	if err := tw.WriteHeader(h); err != nil || !info.Mode().IsRegular() {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	_, err = io.Copy(tw, f)
	return err
}

// flatten lists keys and values in the order of the keys.
func flatten(m map[string]string) []string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, k, m[k])
	}
	return out
}
