package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	"dive-agent/desired"
	"dive-agent/reconcilers"
	"dive-agent/report"
)

// reasonApproval is the gate's own reason to block.
const reasonApproval = "ApprovalRequired"

// PlanDigest is what an approval names: 16 hexadecimal digits over the plan's content, never over a commit.
func PlanDigest(node string, plan reconcilers.Plan) string {
	content, err := json.Marshal(struct {
		Node    string
		Changes []reconcilers.Change
		Content string
	}{node, plan.Changes, plan.Content})
	if err != nil {
		panic("agent: a plan's changes are plain data: " + err.Error())
	}
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:8])
}

// gate lets a plan through unless something of it waits for approval and its digest is not approved in the manifest, or its
// reconciler holds it. The digest is empty for a plan that needs no approval.
func gate(inst *desired.Instance, node string, plan reconcilers.Plan) (digest string, err error) {
	if digest, err = approval(inst, node, plan); err != nil {
		return digest, err
	}
	return digest, plan.Held
}

// approval says whether a plan is approved, or needs no approval.
func approval(inst *desired.Instance, node string, plan reconcilers.Plan) (digest string, err error) {
	var destroys, asks []string
	for _, change := range plan.Changes {
		switch {
		case change.Destroys:
			destroys = append(destroys, change.Address)
		case change.Asks != "":
			asks = append(asks, change.Address)
		}
	}
	if len(destroys)+len(asks)+len(plan.Asks) == 0 {
		return "", nil
	}
	digest = PlanDigest(node, plan)
	if inst.Approve[node] == digest {
		return digest, nil
	}
	var of []string
	if n := len(destroys); n > 0 {
		of = append(of, fmt.Sprintf("%d %s", n, plural(n, "destroy", "destroys")))
	}
	if n := len(asks); n > 0 {
		of = append(of, fmt.Sprintf("%d %s", n, plural(n, "change", "changes")))
	}
	if len(of) == 0 {
		of = []string{"the plan"}
	}
	message := fmt.Sprintf("waits for approval of %s (%s)", strings.Join(of, " and "), digest)
	if named := append(destroys, asks...); len(named) > 0 {
		message += ": " + strings.Join(named[:min(3, len(named))], ", ")
		if more := len(named) - 3; more > 0 {
			message += fmt.Sprintf(" and %d more", more)
		}
	}
	for _, ask := range plan.Asks {
		message += "; " + ask
	}
	if plan.Held != nil {
		held, _ := holds(plan.Held)
		message += "; once approved, it " + held
	}
	return digest, &reconcilers.BlockedError{
		Reason: reasonApproval, Message: message,
		Do: fmt.Sprintf("To let exactly this plan through, merge into %s: %s", inst.Position.File, report.ApproveLine(node, digest)),
	}
}

// holds tells what holds a plan, and the way out.
func holds(held error) (message, way string) {
	var told Node
	told.explain(held)
	return told.Message, told.Do
}
