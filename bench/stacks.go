package bench

import (
	"context"
	"fmt"
	"strings"
	"time"

	"dive-agent/testbed"
	"dive-agent/testbed/gitserver"
)

const plainProject = "dive-bench-plain"

// plainBlueprint is a stack of services that only wait. One of them, or five, get a variable that means nothing.
const plainBlueprint = `apiVersion: dive/v1alpha1
kind: Blueprint
metadata: {name: %s}
spec:
  role: spoke
  values: {project: {required: true}, image: {required: true}, one: {required: true}, five: {required: true}}
  components:
    stack:
      kind: ComposeStack
      project: ${project}
      environment: {IMAGE: "${image}", ONE: "${one}", FIVE: "${five}"}
`

// plainCompose has as many services as asked: the first has the one variable, the next five the other.
func plainCompose(services int) string {
	var text strings.Builder
	text.WriteString("services:\n")
	for i := range services {
		fmt.Fprintf(&text, "  s%d:\n    image: ${IMAGE}\n    init: true\n    command: [sleep, \"36000\"]\n    restart: unless-stopped\n", i)
		switch {
		case i == 0:
			text.WriteString("    environment: {BENCH: \"${ONE}\"}\n")
		case i <= 5:
			text.WriteString("    environment: {BENCH: \"${FIVE}\"}\n")
		}
	}
	return text.String()
}

// plainStack writes the files of an instance with so many plain services.
func plainStack(files gitserver.Files, name, host, project string, services int, one, five string) {
	blueprint := fmt.Sprintf("plain-%d", services)
	files["blueprints/"+blueprint+"/blueprint.yaml"] = fmt.Sprintf(plainBlueprint, blueprint)
	files["blueprints/"+blueprint+"/compose.yaml"] = plainCompose(services)
	files["instances/"+name+".yaml"] = instanceManifest(name, blueprint, host,
		"project: "+project, "image: "+string(testbed.Base), "one: "+one, "five: "+five)
}

// bringPlain has the agent bring up an instance with so many plain services.
func (w *world) bringPlain(ctx context.Context, a *agentProcess, name, project string, services int) error {
	files := gitserver.Files{}
	plainStack(files, name, a.name, project, services, "first", "first")
	commit, err := w.merge("Add "+name, files)
	if err != nil {
		return err
	}
	if _, err := a.order(ctx, "/v1/poll"); err != nil {
		return err
	}
	return a.awaitReady(ctx, 3*time.Minute, name, commit)
}
