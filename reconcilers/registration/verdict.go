package registration

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"dive-agent/reconcilers"
)

// act is what is to be done with a record.
type act string

const (
	leave      act = ""
	doApprove  act = "approve"
	doRegrant  act = "regrant" // suspend, then approve with other values
	doSuspend  act = "suspend"
	doRevoke   act = "revoke"
	doRelease  act = "release" // of a suspension that the manifest no longer asks for
	doToken    act = "token"   // mint and hand over
	doRenew    act = "renew"   // revoke, so that the spoke registers with what its manifest says now
	policyNone     = "report"
)

// verdict is what is to be done with one record, and why.
type verdict struct {
	act    act
	record *record
	want   declared
	reason string
	notes  []string

	differs    []string // of doRenew: what the hub has otherwise
	objections []string // of one that is not what the manifest says, and stays pending or suspended
	listens    bool     // the spoke reads what is handed over to it

	ends  bool   // of a revocation: merged manifests ask for it, and nobody else had stopped the spoke before
	of    string // and then, whose manifest it was granted to
	again bool   // ended so, and declared again: the spoke may register anew
}

func (v verdict) change() reconcilers.Change {
	c := reconcilers.Change{Action: reconcilers.Update, Address: "spoke " + shown(v.record.Code), Reason: v.reason}
	switch v.act {
	case doApprove:
		c.Details = []string{"grant " + v.want.grant.String()}
	case doRelease:
		c.Details = []string{"grant " + v.want.grant.String()}
	case doToken:
		c.Address = "token of " + shown(v.record.Code)
	case doRenew:
		c.Action, c.Destroys, c.Details = reconcilers.Replace, true, v.differs
	case doRegrant:
		c.Details = []string{"grant " + v.want.grant.String() + " instead of " + v.record.grant().String()}
	}
	return c
}

// shown is a word from the hub as people may see it. A stranger chooses the code and so a part of the id: what is more than
// letters, digits and dashes is quoted, and reaches no page or log as it is.
func shown(word string) string {
	const plain = "-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	if strings.Trim(word, plain) == "" {
		return word
	}
	return strconv.QuoteToASCII(short(word))
}

// judge decides over records. It keeps to the hub's own state machine (pending to approved, approved to suspended and
// back, any to revoked), since the hub does not.
type judge struct {
	policy   string
	own      string // the hub's own code
	given    given  // what this agent granted
	declared map[string]declared
	revoke   []string // ids that the hub's manifest names
	removed  []string // instances that the fleet says are meant to be gone
	leaving  int      // how many records are of instances whose manifests are gone, and not named so
	unclear  []string // codes of manifests that cannot be compared now
	troubles []string
	absent   []string // codes that are declared and not registered
}

func (j *judge) all(records []*record) []verdict {
	records = slices.Clone(records)
	slices.SortFunc(records, func(a, b *record) int {
		return cmp.Or(cmp.Compare(a.Code, b.Code), cmp.Compare(a.SpokeID, b.SpokeID))
	})
	for _, r := range records {
		if of := j.grantee(r); of != "" && j.unexpected(r) && !slices.Contains(j.removed, of) && !j.given[r.SpokeID].Ended {
			j.leaving++
		}
	}
	verdicts := make([]verdict, 0, len(records))
	for _, r := range records {
		verdicts = append(verdicts, j.one(r))
	}
	for _, code := range slices.Sorted(maps.Keys(j.declared)) {
		if !slices.ContainsFunc(records, func(r *record) bool { return r.Code == code }) {
			j.troubles = append(j.troubles, fmt.Sprintf("%s: declared by %s, and not registered yet", code, j.declared[code].instance))
			j.absent = append(j.absent, code)
		}
	}
	return verdicts
}

// grantee is the instance whose manifest this agent granted the record to, as long as it holds something; empty: none.
func (j *judge) grantee(r *record) string {
	if r.Status != approved && r.Status != suspended {
		return ""
	}
	return j.given[r.SpokeID].Instance
}

// unexpected says whether no manifest declares the spoke, as far as they can be read.
func (j *judge) unexpected(r *record) bool {
	_, known := j.declared[r.Code]
	return !known && !slices.Contains(j.unclear, r.Code)
}

func (j *judge) one(r *record) verdict {
	want, ok := j.declared[r.Code]
	switch {
	case slices.Contains(j.revoke, r.SpokeID) && r.Status != revoked:
		return verdict{record: r, act: doRevoke, reason: "the hub's manifest names its id under revoke"}
	case ok:
		return j.known(r, want)
	case slices.Contains(j.unclear, r.Code):
		return verdict{record: r} // the trouble is told already
	case j.own != "" && r.SpokeID == "hub-"+strings.ToLower(j.own) && j.policy != string(doRevoke):
		return verdict{record: r, notes: []string{fmt.Sprintf(
			"%s is the hub's own record: its status gives anyone a working token. unknownSpokes: revoke would revoke it", r.SpokeID)}}
	}
	return j.unknown(r)
}

// known judges the record of a spoke that a merged manifest declares.
func (j *judge) known(r *record, want declared) verdict {
	v := verdict{record: r, want: want}
	differs := want.differences(r.has)
	for _, line := range differs {
		v.note("%s", line)
	}
	if want.standing != approved {
		return j.kept(v)
	}
	switch r.Status {
	case pending:
		if len(differs) > 0 {
			v.objections = differs
			v.note("left pending until record and manifest are equal%s", v.wayOut())
			return v
		}
		v.act, v.reason = doApprove, "equals the merged manifest of "+want.instance
	case approved:
		return j.approved(v)
	case suspended:
		mine := j.given[r.SpokeID]
		switch {
		case mine.Changing:
			v.act, v.reason = doRegrant, "a change of the grant was interrupted"
		case mine.Standing == suspended:
			v.act, v.reason = doRelease, "the manifest of "+want.instance+" no longer says suspended"
		case mine.Instance == "":
			more := r.grant().exceeds(want.grant)
			for _, line := range more {
				v.note("%s", line)
			}
			v.objections = append(differs, more...)
			v.note("suspended%s", v.wayOut())
		default:
			v.note("suspended")
		}
	case revoked:
		mine, named := j.given[r.SpokeID], slices.Contains(j.revoke, r.SpokeID)
		v.again = mine.Ended && !named || mine.Instance == "" && named // of the latter nobody but a stranger had anything
		if v.again {
			v.note("revoked as merged manifests said, and they declare %s: it registers anew when it reads its handover, else with registerAgainAfter: %s", want.instance, shown(r.SpokeID))
			break
		}
		v.note("revoked")
	}
	return v
}

// wayOut is what a person can do about a record that is not what the manifest says.
func (v *verdict) wayOut() string {
	if len(v.objections) == 0 {
		return ""
	}
	return fmt.Sprintf("; to have %s register in its place, merge revoke: [%s] here", v.want.instance, shown(v.record.SpokeID))
}

// approved judges an approved record that is to be so: what it holds first, then whom it is of.
func (j *judge) approved(v verdict) verdict {
	r, want := v.record, v.want
	mine, given := j.given[r.SpokeID]
	if differs := want.differences(r.has); !given && r.byNobody() && len(differs) > 0 {
		v.note("ALARM: approved by %s, and it is not what the manifest of %s says", shown(r.ApprovedBy), want.instance)
		v.act, v.reason = doSuspend, "nobody approved it, and it is not what the manifest says: "+strings.Join(differs, "; ")
		return v
	}
	v.differs = want.registeredOtherwise(r.has)
	if !r.grant().equal(want.grant) {
		more := r.grant().exceeds(want.grant)
		if len(more) > 0 && (!given || !mine.Grant.equal(r.grant())) {
			v.note("ALARM: approved with more than the manifest of %s grants: %s", want.instance, strings.Join(more, ", "))
			v.act, v.reason = doSuspend, "holds more than the manifest grants: "+strings.Join(more, ", ")
			return v
		}
		if given || len(v.differs) == 0 { // else it would be approved for somebody whom no manifest declares
			v.act, v.reason = doRegrant, "the manifest grants otherwise"
			return v
		}
	}
	if len(v.differs) > 0 {
		v.ends, v.of = true, want.instance
		v.act, v.reason = doRenew, "the hub keeps a record as it was first made: it is revoked, and "+shown(r.Code)+" registers anew with what its manifest says"
	}
	return v
}

// kept judges the record of a spoke that its manifest wants suspended or revoked.
func (j *judge) kept(v verdict) verdict {
	says := "the manifest of " + v.want.instance + " says " + v.want.standing
	switch r := v.record; {
	case v.want.standing == revoked && r.Status != revoked:
		v.ends, v.of = j.ours(r), v.want.instance
		v.act, v.reason = doRevoke, says
	case r.Status == approved:
		v.act, v.reason = doSuspend, says
	default:
		v.note("%s, and %s", r.Status, says)
	}
	return v
}

// note adds words for people, with the record that they are about.
func (v *verdict) note(format string, args ...any) {
	v.notes = append(v.notes, fmt.Sprintf("%s (%s): ", shown(v.record.Code), shown(v.record.SpokeID))+fmt.Sprintf(format, args...))
}

// unknown judges a record that no manifest declares. One that is only pending harms nobody and stays.
func (j *judge) unknown(r *record) verdict {
	v := verdict{record: r}
	if of := j.grantee(r); of != "" {
		return j.left(v, of)
	}
	switch {
	case r.Status == pending:
		v.note("pending, and no merged manifest declares it")
	case r.Status == approved:
		by := r.ApprovedBy
		if by == "" {
			by = "somebody"
		}
		v.note("ALARM: approved (%s) by %s, and no merged manifest declares it", r.grant(), shown(by))
		if j.policy != policyNone && j.policy != "" {
			v.act, v.reason = act(j.policy), "no merged manifest declares it"
		}
	case r.Status == suspended && j.policy == string(doRevoke):
		v.act, v.reason = doRevoke, "no merged manifest declares it"
	case r.Status == suspended:
		v.note("suspended, and no merged manifest declares it")
	}
	return v
}

// left judges a record that this agent granted to an instance whose manifest is gone: the merge that took it away is the
// word to revoke it. Of several that went, those are meant that the fleet names as removed, and those that were revoked for it
// before, which only a hub that was put back to a former time, or its people, can have brought back.
func (j *judge) left(v verdict, instance string) verdict {
	if slices.Contains(j.removed, instance) || j.given[v.record.SpokeID].Ended || j.leaving == 1 {
		v.ends, v.of = j.ours(v.record), instance
		v.act, v.reason = doRevoke, "the manifest of "+instance+" is gone"
		return v
	}
	v.note("the manifest of %s is gone, and those of %d other spokes: if that is meant, merge removed: [%[1]s] in fleet.yaml", instance, j.leaving-1)
	return v
}

// ours says whether the record stands as this agent left it: one that somebody else has suspended is not theirs to have back
// by a merge that takes its manifest away and another that brings it.
func (j *judge) ours(r *record) bool {
	mine := j.given[r.SpokeID]
	return r.Status != suspended || mine.Changing || mine.Standing == suspended
}
