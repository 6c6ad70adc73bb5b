package agent

import (
	"maps"

	"dive-agent/reconcilers"
	"dive-agent/report"
	"dive-agent/source/peers"
)

// tabled names the instances of the spokes that the worker's instance tells of in a table: their status branches are read for the
// revision that each says of itself, whether anything is imported from them or not.
func (w *worker) tabled() map[string]bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	names := map[string]bool{}
	if w.assigned == nil || w.removed {
		return names
	}
	for _, n := range w.view.Nodes {
		for _, spoke := range n.Facts.Spokes {
			if spoke.Instance != "" && spoke.Instance != w.name {
				names[spoke.Instance] = true
			}
		}
	}
	return names
}

// revisionTold rouses the instances in whose table a spoke stands that is at another revision than before.
func (a *Agent) revisionTold(instance string, before, now *peers.Taken) {
	if now == nil || before != nil && before.Revision == now.Revision {
		return
	}
	for _, w := range a.sorted() {
		if w.tabled()[instance] {
			w.rouse("spokes")
		}
	}
}

// revisions are those that other instances said of themselves, as far as their status branches were read and count.
func (a *Agent) revisions() map[string]string {
	a.peers.mu.Lock()
	defer a.peers.mu.Unlock()
	known := make(map[string]string, len(a.peers.known))
	for name, n := range maps.All(a.peers.known) {
		if n.taken != nil {
			known[name] = n.taken.Revision
		}
	}
	return known
}

// spokeOf is a row of the hub's table.
func (s situation) spokeOf(f reconcilers.SpokeFacts) report.Spoke {
	return report.Spoke{
		Code: f.Code, Instance: f.Instance, ID: f.ID, State: f.State, Since: f.Since, Alive: f.Alive, Heartbeat: f.Heartbeat, Token: f.Token,
		Certificate: f.Certificate, Revision: s.revisions[f.Instance],
	}
}

// fillCertificates adds to the hub's table until when the certificates are good that the fleet's authority, on the same instance,
// signed for the spokes.
func (s situation) fillCertificates(st *report.Status) {
	for _, n := range s.nodes {
		for i := range st.Spokes {
			if until, ok := n.Facts.Certificates[st.Spokes[i].Instance]; ok && st.Spokes[i].Instance != "" {
				st.Spokes[i].Certificate = until
			}
		}
	}
}
