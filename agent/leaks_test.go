package agent

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"dive-agent/reconcilers"
	"dive-agent/report"
	"dive-agent/secrets"
	"dive-agent/state"
)

// TestNothingThatIsToldHoldsASecret says secrets, in the forms in which engines repeat them, wherever a reconciler can say
// something, and looks for them in all that is told of the node.
func TestNothingThatIsToldHoldsASecret(t *testing.T) {
	values := []string{`quo"te'd <pass>|word`, "first-line-of-a-secret\nsecond-line-of-a-secret", "hunter-22", "secret"}
	redactor := secrets.NewRedactor(values...)
	var said []string
	for _, v := range values[:3] {
		encoded, err := json.Marshal(map[string]string{"password": v})
		require.NoError(t, err)
		said = append(said, v, string(encoded), url.QueryEscape(v), base64.StdEncoding.EncodeToString([]byte("admin:"+v)))
		said = append(said, strings.Split(v, "\n")...)
	}
	leak := "said: " + strings.Join(said, " ")

	w := newWorld(t, [2]string{"a", "one"})
	w.options.redact = redactor.String
	p := newPass(w.options)
	p.update(p.nodes["a"], func(n *Node) {
		n.explain(&reconcilers.RejectedError{Message: leak, PutBack: leak, Err: errors.New(leak), Logs: said})
		n.State, n.Do = NodeRejected, leak
		n.Plan = []reconcilers.Change{{Action: reconcilers.Update, Address: leak, Reason: leak, Details: said}}
		n.Facts = reconcilers.Facts{
			Summary: leak, Notes: said, Values: map[string]any{"saw": leak}, Checks: []reconcilers.CheckFacts{{Name: "c", Saw: leak}},
			Service: &reconcilers.ServiceFacts{Name: "backend", State: "running", Image: leak},
		}
	})
	bus := newBus(redactor.String)
	bus.emit(Event{Kind: "source", Message: leak})
	events, _ := bus.after(0)
	status := statusOf(situation{
		instance: "deu", now: time.Unix(1, 0), redact: redactor.String, nodes: p.views(), unkept: errors.New(leak),
		known: state.Instance{Applied: strings.Repeat("a", 40)},
	})
	files, err := status.Files()
	require.NoError(t, err)
	told, err := json.Marshal([]any{p.views(), events, status, p.previewNode(p.nodes["a"])})
	require.NoError(t, err)
	all := []string{string(told), string(files["README.md"]), string(files["status.yaml"]), status.Message(), status.Text(report.TextOptions{})}
	for _, text := range all {
		require.False(t, redactor.Contains(text), text)
		for _, piece := range []string{"pass>", "line-of-a", "hunter", "admin:"} {
			require.NotContains(t, text, piece)
		}
		require.NotContains(t, text, "((", "what was redacted is redacted again")
	}
}

// TestOnlyTheCauseIsExplained also where one component's name begins like another one's.
func TestOnlyTheCauseIsExplained(t *testing.T) {
	waits := func(on string) Node {
		n := Node{ID: "checks", Component: "checks", State: NodeWaiting}
		n.explain(&reconcilers.WaitError{For: on})
		return n
	}
	for on, explained := range map[string]bool{
		"stack": true, "stack/backend": true, "stack.project": true, "stacked/backend": false, "the stack": false,
	} {
		s := situation{nodes: []Node{{ID: "stack/backend", Component: "stack", State: NodeFailed}, waits(on)}}
		require.Equal(t, explained, s.explained(s.nodes[1]), on)
	}
}

// A long plan is not gone over with each word that a node says, and yet holds nothing that became known after it came.
func TestAPlanThatStaysIsCleanedAtTheNodesEnd(t *testing.T) {
	redactor := &secrets.Redactor{}
	redacted := 0
	w := newWorld(t, [2]string{"a", "one"})
	w.options.redact = func(text string) string {
		redacted++
		return redactor.String(text)
	}
	p := newPass(w.options)
	p.update(p.nodes["a"], func(n *Node) {
		n.State = NodeWorking
		for range 1000 {
			n.Plan = append(n.Plan, reconcilers.Change{Action: reconcilers.Create, Address: "role", Reason: "hunter-22"})
		}
	})
	redacted = 0
	p.update(p.nodes["a"], func(n *Node) { n.Message = "12 of 1000" })
	require.Less(t, redacted, 100)

	redactor.Add("hunter-22")
	p.update(p.nodes["a"], func(n *Node) { n.State = NodeDone })
	require.NotContains(t, p.views()[0].Plan[999].Reason, "hunter")
}
