package agent

import (
	"testing"

	"github.com/stretchr/testify/require"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

// imaged is a ledger whose changes are of images.
type imaged struct{ *ledger }

func (i imaged) Plan(t reconcilers.Target, o reconcilers.Observed) (reconcilers.Plan, error) {
	p, err := i.ledger.Plan(t, o)
	for at := range p.Changes {
		p.Changes[at].Image = "server:" + p.State.(string)
	}
	return p, err
}

// knowing is a ledger that knows what images mean.
type knowing struct {
	*ledger
	refuses string
}

func (k knowing) Forewarn(t reconcilers.Target, turn reconcilers.Turn) ([]string, error) {
	if turn.Changes[0].Image == k.refuses {
		return nil, &reconcilers.BlockedError{Reason: "DowngradeRefused", Message: turn.Part + "older than the data of " + t.ID(), Do: "go back"}
	}
	return []string{turn.Changes[0].Image + " migrates " + t.ID()}, nil
}

func TestWhatLivesOnANodeSaysWhatItsImageMeans(t *testing.T) {
	w := newWorld(t, [2]string{"server", "two"}, [2]string{"realm", "x"}, [2]string{"other", "y"})
	w.options.reconcilers["Ledger"] = w.ledger
	w.options.reconcilers["Server"] = imaged{w.ledger}
	w.options.reconcilers["Realm"] = knowing{w.ledger, "server:one"}
	w.instance.Components[0].Kind, w.instance.Components[1].Kind, w.instance.Components[2].Kind = "Server", "Realm", "Realm"
	w.instance.Graph.Nodes[1].Needs = []desired.Edge{{On: "server"}}

	p := newPass(w.options)
	require.True(t, p.survey(t.Context()))
	require.Equal(t, []string{"server:two migrates realm"}, p.views()[0].Plan[0].Details, "what does not live on it is not asked")
	require.Empty(t, p.views()[2].Plan[0].Details)
	p.apply(t.Context())
	require.Equal(t, "two", w.ledger.entries["server"])

	w.instance.Components[0].Spec.(*entry).Value = desired.Literal("one")
	p = w.run(t.Context())
	view := p.views()[0]
	require.Equal(t, NodeBlocked, view.State)
	require.Equal(t, "DowngradeRefused", view.Reason)
	require.Equal(t, "two", w.ledger.entries["server"], "refused before it was touched")
	require.Equal(t, []string{"will not be carried out: older than the data of realm. go back"}, view.Plan[0].Details)
}
