package bench

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/client"

	"dive-agent/examples"
	"dive-agent/testbed"
	"dive-agent/testbed/gitserver"
	"dive-agent/testbed/pki"
)

// projects are the Compose projects that a run makes, and so removes, also those of a run that was cut off.
var projects = []string{
	hubProject, spokeProject, callerProject, livingProject, servingProject, plainProject, directProject, "dive-bench-mongo1", "dive-bench-mongo2", "dive-bench-mongo3", "dive-bench-three",
	"dive-bench-three-set-1", "dive-bench-three-set-2", "dive-bench-three-set-3", "dive-bench-three-alone-1", "dive-bench-three-alone-2", "dive-bench-three-alone-3",
}

const livingProject = "dive-bench-lived-in"

// world is a fleet with agents on real engines, made when the first figure needs it.
type world struct {
	run *run

	engine *client.Client
	host   string // DOCKER_HOST
	mirror testbed.Mirror
	unlock func()
	git    *gitserver.Server
	repo   *gitserver.Repository
	files  gitserver.Files // the fleet as it was merged last
	agents []*agentProcess
	hub    *agentProcess // with instance usa, the small hub
	edge   *agentProcess // with spokes that have nothing but their place in the federation
	spoke  *agentProcess // with instance deu, the example's spoke with nine services

	opened, brought bool
	openErr, upErr  error
	hubErr          error
	story           *story    // how the spoke came up
	woken           time.Time // when the last change was ordered to be looked at
}

func newWorld(r *run) *world { return &world{run: r, files: gitserver.Files{}} }

func (w *world) path(parts ...string) string {
	return filepath.Join(append([]string{w.run.dir}, parts...)...)
}

// open makes engine, Git server and fleet repository, once.
func (w *world) open(ctx context.Context) error {
	if !w.opened {
		w.opened = true
		w.openErr = w.make(ctx)
	}
	return w.openErr
}

// make takes the machine for this run before anything is removed, so that no two runs disturb each other.
func (w *world) make(ctx context.Context) (err error) {
	if w.host, _, err = testbed.EnsureEngine(ctx, w.run.say); err != nil {
		return err
	}
	images := []testbed.ImageName{testbed.Base, testbed.Mongod442, testbed.Mongod504, testbed.Mongod605, testbed.Mongod6027, testbed.Postgres15, testbed.Keycloak, testbed.Redis7, testbed.OPA, testbed.OPALClient, testbed.Services}
	if err := testbed.EnsureImages(ctx, w.host, w.run.say, images...); err != nil {
		return err
	}
	if w.mirror, err = testbed.EnsureProviderMirror(ctx); err != nil {
		return err
	}
	if w.engine, err = testbed.Connect(w.host); err != nil {
		return err
	}
	if w.unlock, err = lockMachine(); err != nil {
		return err
	}
	if err := w.removeProjects(ctx); err != nil {
		return fmt.Errorf("remove what an earlier run left: %w", err)
	}
	if w.git, err = gitserver.New(gitserver.Options{Dir: w.path("git"), ListenSSH: "off"}); err != nil {
		return err
	}
	if w.repo, err = w.git.CreateRepository("fleet"); err != nil {
		return err
	}
	if err := w.git.Up(); err != nil {
		return err
	}
	return w.writeFleet(ctx)
}

// The places of the world's instances: far from those of the examples as they are.
const (
	hubOffset   = 470
	spokeOffset = 471
)

// writeFleet merges the example's blueprints and small ones, without instances.
func (w *world) writeFleet(ctx context.Context) error {
	for _, offset := range []int{hubOffset, spokeOffset} {
		if err := freePorts(offset); err != nil {
			return err
		}
	}
	ca, err := pki.LoadOrCreate(w.path("pki"), "DIVE benchmark")
	if err != nil {
		return err
	}
	values := testbed.ExampleValues()
	if values["backendImage"], err = testbed.PinnedImage(ctx, w.host, w.run.say, testbed.Services); err != nil {
		return err
	}
	values["policyRepo"] = "none" // an OPAL client is one of the nine services
	files, err := firstFiles(values, ca.PEM())
	if err != nil {
		return err
	}
	_, err = w.merge("The fleet", files)
	return err
}

// firstFiles are the fleet as it begins, with values of fleet.yaml and the authority of the hub's server certificate.
func firstFiles(values map[string]string, ca []byte) (gitserver.Files, error) {
	values["hubURL"] = fmt.Sprintf("https://host.docker.internal:%d", 4000+hubOffset)
	example, err := examples.Files(examples.Options{
		Name: "bench", Instances: []string{}, Hosts: []string{}, Values: values, HubCA: ca,
		HubURL: fmt.Sprintf("https://localhost:%d", 4000+hubOffset),
	})
	if err != nil {
		return nil, err
	}
	files := gitserver.Files{}
	for name, text := range example {
		files[name] = string(text)
	}
	addSmallBlueprints(files)
	if err := prepareSpoke(files); err != nil {
		return nil, err
	}
	if err := errors.Join(withoutHandover(files), withoutCertificates(files)); err != nil {
		return nil, err
	}
	// The replica sets of the bench are spokes that are nobody's partners, and validated with the example's hub all the same.
	for _, partners := range []string{
		"for spoke in fleet.spokes : spoke.values.code => {", "for s in fleet.spokes : s.values.code => s.outputs.identity.partner_client_secret", "for s in fleet.spokes : s.values.code => s.outputs.identity.hub_client_secret",
		"for s in fleet.spokes : s.name => s.outputs.certificate.request",
	} {
		if err := edit(files, "blueprints/hub/blueprint.yaml", partners, strings.Replace(partners, "fleet.spokes", "[]", 1)); err != nil {
			return nil, err
		}
	}
	// The fleet names its hub, so the hub is in it from the start.
	files["hosts/usa-01.yaml"] = hostManifest("usa-01")
	files["instances/usa.yaml"] = instanceManifest("usa", "small-hub", "usa-01", "code: USA", "project: "+hubProject, fmt.Sprintf("portOffset: %d", hubOffset))
	return files, nil
}

// withoutHandover has the example's spoke do without what is handed over to enrolled hosts: tokens come from the hub itself. Its OPAL
// client runs, and has no server.
func withoutHandover(files gitserver.Files) error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return err
	}
	text := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}))
	for _, line := range [][2]string{
		{"      handover: ${instances.usa.federation.handover} # the hub's agent renews the token before it ends\n", ""},
		{"${instances.usa.federation.opal_public_key}", strconv.Quote(text)},
		{"${instances.usa.federation.opal_token} # the hub's agent renews it before it ends", "none"},
		{`        - {name: policies, when: '${policyRepo != ""}', policy: {service: opa, server: "${opalURL}", token: "${instances.usa.federation.opal_token}"}}` + "\n", ""},
	} {
		if err := edit(files, "blueprints/spoke/blueprint.yaml", line[0], line[1]); err != nil {
			return err
		}
	}
	return nil
}

// merge commits files on main and remembers them.
func (w *world) merge(message string, files gitserver.Files) (string, error) {
	maps.Copy(w.files, files)
	return w.repo.TryCommit("main", message, files)
}

// edit replaces a text that stands in a file of the fleet exactly once.
func edit(files gitserver.Files, name, old, text string) error {
	if n := strings.Count(files[name], old); n != 1 {
		return fmt.Errorf("%s of the examples has %q %d times, expected once", name, old, n)
	}
	files[name] = strings.Replace(files[name], old, text, 1)
	return nil
}

// freePorts looks whether the host ports of a spoke with this offset are free.
func freePorts(offset int) error {
	for _, port := range []int{3000 + offset, 4000 + offset, 8080 + offset, 8181 + 10*offset, 9000 + offset} {
		l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			return fmt.Errorf("the benchmark needs port %d: %w", port, err)
		}
		if err := l.Close(); err != nil {
			return err
		}
	}
	return nil
}

// remove ends the agents and removes all that they made. What was not opened needs none of it.
func (w *world) remove(ctx context.Context) error {
	if w.engine == nil {
		return nil
	}
	var failed []error
	for _, a := range w.agents {
		failed = append(failed, a.stop(ctx))
	}
	if w.unlock != nil {
		failed = append(failed, w.removeProjects(ctx))
		w.unlock()
	}
	if w.git != nil {
		w.git.Stop()
	}
	return errors.Join(append(failed, w.engine.Close())...)
}

func (w *world) removeProjects(ctx context.Context) error {
	all := slices.Clone(projects)
	for i := range manyStacks {
		all = append(all, manyProject(i))
	}
	for _, project := range all {
		if err := testbed.RemoveProject(ctx, w.engine, project); err != nil {
			return err
		}
	}
	return nil
}
