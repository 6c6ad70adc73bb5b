package compose

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/docker/compose/v5/pkg/api"
	"github.com/moby/moby/api/types/network"

	"dive-agent/reconcilers"
)

// keptNetwork is what is remembered of a network that was as declared, so that one that somebody put in its place is seen.
type keptNetwork struct {
	ID     string            `json:"id"`
	Fields map[string]string `json:"fields"`
}

// volumeToldFor is how long the status tells that a volume is another one than before.
const volumeToldFor = 24 * time.Hour

// networkFields digests what a network is, by the words of a Compose file.
// Addresses are those of the pool where none are declared.
func networkFields(n network.Network, addressed bool) (map[string]string, error) {
	f := fields{of: map[string]string{}}
	if addressed {
		if err := f.add("ipam", n.IPAM.Config); err != nil {
			return nil, err
		}
	}
	for name, value := range map[string]any{
		"driver": n.Driver, "internal": n.Internal, "attachable": n.Attachable, "enable_ipv6": n.EnableIPv6, "driver_opts": n.Options,
	} {
		if err := f.add(name, value); err != nil {
			return nil, err
		}
	}
	for name, value := range n.Labels {
		if err := f.add("label "+name, []string{value}); err != nil {
			return nil, err
		}
	}
	return f.of, nil
}

// replacedNetwork says in what a network differs from the one that was as declared; nothing when it is that one, or as good.
func (st *sharedState) replacedNetwork(key string, have network.Summary) []string {
	kept, ok := st.keptNetworks[have.Name]
	if !ok || kept.ID == have.ID {
		return nil
	}
	now, err := networkFields(have.Network, st.addressed(key))
	if err != nil {
		return nil
	}
	added, removed, changed := difference(kept.Fields, now)
	var words []string
	say := func(names []string, verb string) {
		for _, name := range names {
			if !strings.HasPrefix(name, "label com.docker.compose.") {
				words = append(words, name+" "+verb)
			}
		}
	}
	say(added, "added")
	say(removed, "removed")
	say(changed, "changed")
	return words
}

// keepNetworks remembers the networks that are as declared.
func (st *sharedState) keepNetworks() error {
	rec := readShared(st.stack)
	st.keptNetworks, st.drift = rec.Networks, rec.Drift
	seen := map[string]keptNetwork{}
	for key, all := range st.networks {
		want := st.model.project.Networks[key]
		if want.External || len(all) == 0 {
			continue
		}
		have := all[0]
		declared := have.Labels[api.ConfigHashLabel] == st.wantHashes["network "+key]
		if have.ID == st.keptNetworks[have.Name].ID || !declared && len(st.replacedNetwork(key, have)) > 0 {
			continue
		}
		fields, err := networkFields(have.Network, st.addressed(key))
		if err != nil {
			return err
		}
		seen[have.Name] = keptNetwork{ID: have.ID, Fields: fields}
	}
	if len(seen) == 0 {
		return nil
	}
	return changeShared(st.stack, func(rec *sharedRecord) {
		if rec.Networks == nil {
			rec.Networks = map[string]keptNetwork{}
		}
		maps.Copy(rec.Networks, seen)
	})
}

// addressed says whether the Compose file gives the network its addresses.
func (st *sharedState) addressed(key string) bool {
	return len(st.model.project.Networks[key].Ipam.Config) > 0
}

// leftNetwork says whether what somebody did to a network is left so.
func (st *sharedState) leftNetwork(key string) bool {
	return slices.ContainsFunc(st.left, func(l leftNetwork) bool { return l.key == key })
}

type leftNetwork struct{ key, what string }

// leaveNetworks finds the networks that somebody removed or replaced, where the manifest says to leave that so, and tells of them.
func (st *sharedState) leaveNetworks(now time.Time) error {
	if st.spec.drift() == driftCorrect {
		return nil
	}
	for _, key := range sortedKeys(st.model.project.Networks) {
		want, have := st.model.project.Networks[key], st.networks[key]
		_, known := st.keptNetworks[want.Name]
		switch {
		case bool(want.External) || !known:
		case len(have) == 0:
			st.left = append(st.left, leftNetwork{key, "network " + key + " removed"})
		default:
			if words := st.replacedNetwork(key, have[0]); len(words) > 0 {
				st.left = append(st.left, leftNetwork{key, "network " + key + " replaced by another one (" + strings.Join(words, ", ") + ")"})
			}
		}
	}
	var seen []string
	for _, l := range st.left {
		seen = append(seen, l.what)
	}
	drift := sinceWhen(st.drift, seen, now)
	if st.spec.drift() == driftReport {
		for _, d := range drift {
			st.notes = append(st.notes, driftNote("the stack", d))
		}
	}
	if slices.Equal(drift, st.drift) {
		return nil
	}
	return changeShared(st.stack, func(rec *sharedRecord) { rec.Drift = drift })
}

// networkByHand is the step that mends what somebody did to a network, if anything.
func (st *sharedState) networkByHand(key, address string, have network.Summary) *reconcilers.Change {
	words := st.replacedNetwork(key, have)
	if len(words) == 0 {
		return nil
	}
	return &reconcilers.Change{
		Action: reconcilers.Replace, Address: address,
		Reason: "replaced by hand: " + summary(words) + "; all services on it are made anew", Details: words,
	}
}

// tellReplacedVolume notes that a volume is another one than before, and not by the agent. It is left so: it may hold data.
// The agent's mark and whose definition it has tell that, and not when it was made: before Engine 23 that is when a file at its top
// last came or went. A record without a mark is one that an older agent wrote.
func tellReplacedVolume(before, now keptVolume, at time.Time) keptVolume {
	now.Before, now.Seen = before.Before, before.Seen
	switch {
	case before.Created == "":
	case before.Hash == now.Hash && (before.Mark == "" || before.Mark == now.Mark):
		now.Created = before.Created
	default:
		now.Before, now.Seen = before.Created, at.UTC().Truncate(time.Second)
	}
	return now
}

func (k keptVolume) note(name string, now time.Time) string {
	if k.Before == "" || now.Sub(k.Seen) > volumeToldFor {
		return ""
	}
	return fmt.Sprintf("volume %s was removed and made anew, and not by the agent: the one made at %s is gone with its data, seen %s; the new one is left as it is",
		name, k.Before, k.Seen.Format("2006-01-02 15:04 UTC"))
}
