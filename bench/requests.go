package bench

import (
	"context"
	"fmt"
	"time"

	"dive-agent/testbed"
	"dive-agent/testbed/gitserver"
)

const (
	requestsLost   = "requests-lost-start-first"
	servingProject = "dive-bench-serving"
)

const servingBlueprint = `apiVersion: dive/v1alpha1
kind: Blueprint
metadata: {name: serving}
spec:
  role: spoke
  values: {project: {required: true}, image: {required: true}, colour: {required: true}}
  components:
    stack:
      kind: ComposeStack
      project: ${project}
      environment: {IMAGE: "${image}", COLOUR: "${colour}"}
      update: {web: {order: start-first, monitor: 1s}}
`

const servingCompose = `services:
  web:
    image: ${IMAGE}
    init: true
    command: [python3, /load/server.py]
    environment: {COLOUR: "${COLOUR}", WARMUP: "2"}
    volumes: ["./load:/load:ro"]
    healthcheck: {test: [CMD, curl, -sf, "http://localhost/"], interval: 500ms, start_period: 30s}
  client:
    image: ${IMAGE}
    init: true
    command: [python3, /load/client.py]
    volumes: ["./load:/load:ro"]
    stop_grace_period: 30s
    depends_on: {web: {condition: service_healthy}}
`

// measureRequests counts what a client loses that asks a service 200 times a second, each time for its address anew and at
// the first address alone, while three changes of the service are merged.
func measureRequests(ctx context.Context, r *run) error {
	w := r.world
	a, err := w.launch(ctx, "serving-01")
	if err != nil {
		return err
	}
	files := gitserver.Files{
		"blueprints/serving/blueprint.yaml": servingBlueprint, "blueprints/serving/compose.yaml": servingCompose,
		"blueprints/serving/load/server.py": testbed.LoadServer, "blueprints/serving/load/client.py": testbed.LoadClient,
	}
	const changes = 3
	for i := range 1 + changes {
		files["instances/serving.yaml"] = instanceManifest("serving", "serving", a.name,
			"project: "+servingProject, "image: "+string(testbed.Base), fmt.Sprintf("colour: colour-%d", i))
		commit, err := w.merge("Change the colour", files)
		if err != nil {
			return err
		}
		if _, err := a.order(ctx, "/v1/poll"); err != nil {
			return err
		}
		if err := a.awaitReady(ctx, time.Minute, "serving", commit); err != nil {
			return fmt.Errorf("%w\n%s", err, a.lastWords())
		}
	}
	counted, err := w.endRequests(ctx, a, servingProject)
	if err != nil {
		return err
	}
	r.record(requestsLost, float64(counted.Lost), "requests", 0, "%d changes merged under a client that asks 200 times a second, for the address each time, and tries once: %s", changes, counted.Said)
	return testbed.RemoveProject(ctx, w.engine, servingProject)
}

// endRequests stops the agent, which would start the client of the project again, and gives what the client counted.
func (w *world) endRequests(ctx context.Context, a *agentProcess, project string) (testbed.Counted, error) {
	if err := a.stop(ctx); err != nil {
		return testbed.Counted{}, err
	}
	counted, err := testbed.CountRequests(ctx, w.engine, project+"-client-1")
	if err == nil && counted.Sent < 1000 {
		err = fmt.Errorf("only %d requests were sent: %s", counted.Sent, counted.Said)
	}
	return counted, err
}
