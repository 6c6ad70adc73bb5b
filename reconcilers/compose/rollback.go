package compose

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/docker/compose/v5/pkg/api"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"dive-agent/atomicfile"
	"dive-agent/desired"
	"dive-agent/reconcilers"
)

// good is the last version of a service that was ready, as the engine described it: enough to make it again exactly,
// labels and image ID included, whatever the manifest and the image's tag say by then. It holds the values of the
// environment, so its file is 0600 in the component's private folder.
type good struct {
	Name       string                               `json:"name"`
	ImageID    string                               `json:"imageID"`
	Config     *container.Config                    `json:"config"`
	Host       *container.HostConfig                `json:"host"`
	Networks   map[string]*network.EndpointSettings `json:"networks"`
	Injections []injection                          `json:"injections,omitempty"`
	Files      []goodFile                           `json:"files,omitempty"`
	PostStart  []types.ServiceHook                  `json:"postStart,omitempty"`
}

// goodFile is a bound file as the version had it.
type goodFile struct {
	Path    string      `json:"path"`
	Mode    fs.FileMode `json:"mode"`
	Content []byte      `json:"content"`
}

// goodFilesLimit bounds the bound files that are kept with a version, in bytes.
const goodFilesLimit = 16 << 20

// written digests what the revision says of the service: its definition, its files, and the expressions of the variables
// it uses with the values of those that come from the manifest alone. What outputs and secrets give is not in it.
func (st *serviceState) written() string {
	lines := []string{st.model.written[st.name]}
	for _, name := range st.model.uses[st.name] {
		expr := st.spec.Environment[name]
		line := name + "=" + expr.Source()
		if value, err := expr.Eval(st.target.Scope); err == nil && value.Known() && !value.Secret() && !st.fromOutputs(expr) {
			line += "=" + value.Text()
		}
		lines = append(lines, line)
	}
	return digestText(strings.Join(lines, "\n"))
}

func (st *serviceState) fromOutputs(expr desired.Expr) bool {
	if expr.CrossesHosts() {
		return true
	}
	for _, ref := range expr.References() {
		if len(ref.Path) > 1 && isComponent(st.target.Instance, ref.Path[0]) {
			return true
		}
	}
	return false
}

// keepGood keeps a ready container as the version to go back to.
func (st *serviceState) keepGood(c *container.InspectResponse) error {
	g := good{
		Name: strings.TrimPrefix(c.Name, "/"), ImageID: c.Image, Config: c.Config, Host: c.HostConfig,
		Networks: map[string]*network.EndpointSettings{}, Injections: st.injections(), PostStart: st.service.PostStart,
	}
	short := c.ID[:12]
	if g.Config.Hostname == short {
		config := *g.Config
		config.Hostname = "" // the engine's own; the next container gets its own
		g.Config = &config
	}
	for name, endpoint := range c.NetworkSettings.Networks {
		aliases := slices.DeleteFunc(slices.Clone(endpoint.Aliases), func(a string) bool { return a == short })
		g.Networks[name] = &network.EndpointSettings{
			IPAMConfig: endpoint.IPAMConfig, Links: endpoint.Links, Aliases: slices.Compact(aliases), DriverOpts: endpoint.DriverOpts,
		}
	}
	g.keepAnonymousVolumes(c)
	if err := g.keepFiles(st.model.content[st.name].placed); err != nil {
		return fmt.Errorf("keep the files of service %s: %w", st.name, err)
	}
	text, err := json.Marshal(g)
	if err != nil {
		return err
	}
	if _, err := atomicfile.Write(st.goodPath(), text, atomicfile.Options{}); err != nil {
		return fmt.Errorf("keep the last good version of service %s: %w", st.name, err)
	}
	st.record.Good = &goodMark{
		Container: c.ID, Hash: st.hash, Content: st.content, ImageID: c.Image, Written: st.written(),
	}
	return nil
}

// keepAnonymousVolumes binds the volumes that have no name in the definition, so that the next container gets them too.
func (g *good) keepAnonymousVolumes(c *container.InspectResponse) {
	host := *c.HostConfig
	host.Binds = slices.Clone(host.Binds)
	host.Mounts = slices.Clone(host.Mounts)
	for _, m := range c.Mounts {
		if m.Type != mount.TypeVolume || len(m.Name) != 64 {
			continue
		}
		host.Mounts = slices.DeleteFunc(host.Mounts, func(have mount.Mount) bool { return have.Target == m.Destination })
		bound := slices.ContainsFunc(host.Binds, func(bind string) bool { return strings.Contains(bind, ":"+m.Destination) })
		if !bound {
			host.Binds = append(host.Binds, m.Name+":"+m.Destination)
		}
	}
	g.Host = &host
}

func (g *good) keepFiles(list []placed) error {
	size := 0
	for _, p := range list {
		err := filepath.WalkDir(p.to, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			content, err := os.ReadFile(path)
			if size += len(content); err != nil || size > goodFilesLimit {
				return err
			}
			g.Files = append(g.Files, goodFile{Path: path, Mode: info.Mode(), Content: content})
			return nil
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (st *serviceState) readGood() (*good, error) {
	text, err := os.ReadFile(st.goodPath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var g good
	if err := json.Unmarshal(text, &g); err != nil {
		return nil, err
	}
	return &g, nil
}

// recoverRecord finds what a lost record said by the last good version, which lies in a file of its own: what there is to go back
// to, and that another version was being tried.
func (st *serviceState) recoverRecord() {
	if st.record.Container != "" || st.record.Good != nil || st.record.Pending != nil {
		return
	}
	g, err := st.readGood()
	if err != nil || g == nil || g.Config == nil { // there was none, or it is lost as well
		return
	}
	st.record.Good = &goodMark{Hash: g.Config.Labels[api.ConfigHashLabel], Content: g.Config.Labels[contentLabel], ImageID: g.ImageID}
	if st.container == nil {
		return
	}
	for _, c := range append([]container.InspectResponse{*st.container}, st.extras...) {
		if g.isOf(&c) {
			st.record.Good.Container = c.ID
		}
	}
	if len(st.differs) == 0 && !g.isOf(st.container) {
		st.record.Pending = &pending{Since: st.now, Reason: "what was noted of it is lost"}
	}
}

// isOf says whether a container was made as this version is.
func (g *good) isOf(c *container.InspectResponse) bool {
	was, is := g.Config.Labels, c.Config.Labels
	return was[api.ConfigHashLabel] == is[api.ConfigHashLabel] && was[contentLabel] == is[contentLabel] && g.ImageID == c.Image
}

// noteEnd remembers how the version that was good fails now.
func (st *serviceState) noteEnd(now time.Time, bad *fault) error {
	if !st.known() {
		return nil
	}
	st.record.Ended = &ended{At: now, Message: bad.message}
	return st.record.write(st.recordPath(st.name))
}

// endedLike says whether the version that was good failed in the same way a short time ago: what is wrong is around the
// service. One that ends now and then, as with a full disk, may look well for long enough when it is put back.
func (st *serviceState) endedLike(now time.Time, bad *fault) bool {
	e := st.record.Ended
	return e != nil && e.Message == bad.message && now.Sub(e.At) < endedLately
}

// putBack makes the last good version again, in place of what is there, and waits until it is ready. When the call is
// cancelled meanwhile, that wait is left out.
func (r *Reconciler) putBack(ctx context.Context, st *serviceState, g *good, progress reconcilers.Progress) error {
	if id := r.goodServes(ctx, st); id != "" {
		return r.retreat(ctx, st, g, id, progress)
	}
	safe, cancel := begun(ctx, mutationLimit)
	defer cancel()
	if err := r.clear(safe, st); err != nil {
		return err
	}
	for _, file := range g.Files {
		if err := placeFile(file.Path, file.Content, file.Mode); err != nil {
			return err
		}
	}
	id, err := r.recreate(safe, g)
	if err != nil {
		return err
	}
	w, err := r.watch(safe, id)
	if err != nil {
		return err
	}
	defer w.stop()
	if err := r.inject(safe, id, g.Injections); err != nil {
		return err
	}
	if _, err := r.engine.ContainerStart(safe, id, client.ContainerStartOptions{}); err != nil {
		return fmt.Errorf("start container %s: %w", g.Name, r.redacted(err))
	}
	if err := r.runHooks(safe, id, g.PostStart); err != nil {
		return &fault{message: "post_start of what ran before", err: err}
	}
	progress.Started()
	old := *st
	old.record.Pending, old.record.Good, old.first = nil, nil, nil
	if err := r.await(ctx, &old, w, progress); err != nil && ctx.Err() == nil {
		return err
	}
	return r.noteBack(ctx, st, g, id)
}

// noteBack records the version that was put back, so that its container is no drift, and the image that was refused when
// the definition is the same and only its tag had moved.
func (r *Reconciler) noteBack(ctx context.Context, st *serviceState, g *good, id string) error {
	ctx, cancel := begun(ctx, mutationLimit)
	defer cancel()
	result, err := r.engine.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if err != nil {
		return fmt.Errorf("inspect container %s: %w", g.Name, err)
	}
	c := &result.Container
	st.asDeclared(c)
	if st.record.Live, err = st.record.live(c); err != nil {
		return err
	}
	st.record.Container, st.record.Pending = id, nil
	if st.record.Good != nil {
		st.record.Good.Container = id
	}
	st.record.Refused = ""
	if c.Config.Labels[api.ConfigHashLabel] == st.hash && c.Image != st.imageID {
		st.record.Refused = st.imageID
	}
	return st.record.write(st.recordPath(st.name))
}

// clear removes all containers of the replica.
func (r *Reconciler) clear(ctx context.Context, st *serviceState) error {
	list, err := r.engine.ContainerList(ctx, client.ContainerListOptions{
		All: true, Filters: projectFilter(st.project, api.ServiceLabel+"="+st.name, api.OneoffLabel+"=False"),
	})
	if err != nil {
		return fmt.Errorf("list containers of service %s: %w", st.name, err)
	}
	for _, c := range list.Items {
		if st.service.GetScale() > 1 && numberOf(c.Labels) != st.number {
			continue
		}
		if err := r.remove(ctx, c.ID); err != nil {
			return fmt.Errorf("remove the container that does not work: %w", err)
		}
	}
	return nil
}

// recreate makes the container of a version anew. An engine before API 1.44 takes one network at creation and the others
// after it.
func (r *Reconciler) recreate(ctx context.Context, g *good) (string, error) {
	config := *g.Config
	if image, err := r.engine.ImageInspect(ctx, config.Image); err != nil || image.ID != g.ImageID {
		if _, err := r.engine.ImageInspect(ctx, g.ImageID); err != nil {
			return "", fmt.Errorf("image %s (%s) is not on this host any more: %w", config.Image, shortImage(g.ImageID), err)
		}
		config.Image = g.ImageID
	}
	host := g.asAsked()
	first := string(host.NetworkMode)
	networking := &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{}}
	if endpoint, ok := g.Networks[first]; ok {
		networking.EndpointsConfig[first] = endpoint
	}
	made, err := r.engine.ContainerCreate(ctx, client.ContainerCreateOptions{
		Name: g.Name, Config: &config, HostConfig: host, NetworkingConfig: networking,
	})
	if err != nil {
		return "", fmt.Errorf("make container %s again: %w", g.Name, r.redacted(err))
	}
	for _, name := range sortedKeys(g.Networks) {
		if name == first || g.Host.NetworkMode.IsContainer() || g.Host.NetworkMode.IsHost() || g.Host.NetworkMode.IsNone() {
			continue
		}
		_, err := r.engine.NetworkConnect(ctx, name, client.NetworkConnectOptions{Container: made.ID, EndpointConfig: g.Networks[name]})
		if err != nil {
			_, _ = r.engine.ContainerRemove(ctx, made.ID, client.ContainerRemoveOptions{Force: true})
			return "", fmt.Errorf("connect container %s to network %s: %w", g.Name, name, err)
		}
	}
	return made.ID, nil
}

// asAsked is how the container is asked for, where that is not as it was told: Podman takes a limit nofile and tells it as
// RLIMIT_NOFILE, and tells of each network of a project's own that it is a bridge.
func (g *good) asAsked() *container.HostConfig {
	host := *g.Host
	host.Ulimits = nil
	for _, limit := range g.Host.Ulimits {
		asked := *limit
		if name, ok := strings.CutPrefix(limit.Name, "RLIMIT_"); ok {
			asked.Name = strings.ToLower(name)
		}
		host.Ulimits = append(host.Ulimits, &asked)
	}
	if _, ok := g.Networks[string(host.NetworkMode)]; !ok && host.NetworkMode.IsBridge() && len(g.Networks) > 0 {
		host.NetworkMode = container.NetworkMode(sortedKeys(g.Networks)[0])
	}
	return &host
}
