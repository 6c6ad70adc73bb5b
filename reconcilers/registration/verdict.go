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
	policyNone     = "report"
)

// verdict is what is to be done with one record, and why.
type verdict struct {
	act    act
	record *record
	want   declared
	reason string
	notes  []string
}

func (v verdict) change() reconcilers.Change {
	c := reconcilers.Change{Action: reconcilers.Update, Address: "spoke " + shown(v.record.Code), Reason: v.reason}
	switch v.act {
	case doApprove:
		c.Details = []string{"grant " + v.want.grant.String()}
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
	unclear  []string // codes of manifests that cannot be compared now
	troubles []string
}

func (j *judge) all(records []*record) []verdict {
	records = slices.Clone(records)
	slices.SortFunc(records, func(a, b *record) int {
		return cmp.Or(cmp.Compare(a.Code, b.Code), cmp.Compare(a.SpokeID, b.SpokeID))
	})
	verdicts := make([]verdict, 0, len(records))
	for _, r := range records {
		verdicts = append(verdicts, j.one(r))
	}
	for _, code := range slices.Sorted(maps.Keys(j.declared)) {
		if !slices.ContainsFunc(records, func(r *record) bool { return r.Code == code }) {
			j.troubles = append(j.troubles, fmt.Sprintf("%s: declared by %s, and not registered yet", code, j.declared[code].instance))
		}
	}
	return verdicts
}

func (j *judge) one(r *record) verdict {
	want, ok := j.declared[r.Code]
	switch {
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
	mine, given := j.given[r.SpokeID]
	differs := want.differences(r.has)
	note := func(format string, args ...any) {
		v.notes = append(v.notes, fmt.Sprintf("%s (%s): ", shown(r.Code), shown(r.SpokeID))+fmt.Sprintf(format, args...))
	}
	for _, line := range differs {
		note("%s", line)
	}
	switch r.Status {
	case pending:
		if len(differs) > 0 {
			note("left pending until record and manifest are equal")
			return v
		}
		v.act, v.reason = doApprove, "equals the merged manifest of "+want.instance
	case approved:
		if r.grant().equal(want.grant) {
			return v
		}
		more := r.grant().exceeds(want.grant)
		if len(more) > 0 && (!given || !mine.Grant.equal(r.grant())) {
			note("ALARM: approved with more than the manifest of %s grants: %s", want.instance, strings.Join(more, ", "))
			v.act, v.reason = doSuspend, "holds more than the manifest grants: "+strings.Join(more, ", ")
			return v
		}
		v.act, v.reason = doRegrant, "the manifest grants otherwise"
	case suspended:
		if given && mine.Changing {
			v.act, v.reason = doRegrant, "a change of the grant was interrupted"
			return v
		}
		note("suspended")
	case revoked:
		note("revoked")
	}
	return v
}

// unknown judges a record that no manifest declares. One that is only pending harms nobody and stays.
func (j *judge) unknown(r *record) verdict {
	v := verdict{record: r}
	note := func(text string) {
		v.notes = append(v.notes, fmt.Sprintf("%s (%s): %s", shown(r.Code), shown(r.SpokeID), text))
	}
	switch {
	case r.Status == pending:
		note("pending, and no merged manifest declares it")
	case r.Status == approved:
		by := r.ApprovedBy
		if by == "" {
			by = "somebody"
		}
		note(fmt.Sprintf("ALARM: approved (%s) by %s, and no merged manifest declares it", r.grant(), shown(by)))
		if j.policy != policyNone && j.policy != "" {
			v.act, v.reason = act(j.policy), "no merged manifest declares it"
		}
	case r.Status == suspended && j.policy == string(doRevoke):
		v.act, v.reason = doRevoke, "no merged manifest declares it"
	case r.Status == suspended:
		note("suspended, and no merged manifest declares it")
	}
	return v
}
