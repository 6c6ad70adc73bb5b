package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

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

// gate lets a plan through unless it destroys and its digest is not approved in the manifest.
func gate(inst *desired.Instance, node string, plan reconcilers.Plan) (digest string, err error) {
	var destroys []string
	for _, change := range plan.Changes {
		if change.Destroys {
			destroys = append(destroys, change.Address)
		}
	}
	if len(destroys) == 0 {
		return "", nil
	}
	digest = PlanDigest(node, plan)
	if inst.Approve[node] == digest {
		return digest, nil
	}
	return digest, approvalError(inst, node, digest, destroys)
}
