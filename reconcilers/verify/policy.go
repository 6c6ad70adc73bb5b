package verify

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"
)

const (
	// policyLag is how long the policies of a commit may be on their way from the OPAL server to OPA.
	policyLag = 5 * time.Second
	// maxPolicies bounds the OPAL server's answer: all policies, where it does not know the revision that OPA has.
	maxPolicies = 64 << 20
)

// policy compares the revision of the policies that OPA has with the one that the OPAL server hands out.
func (t *try) policy(ctx context.Context, spec *Policy) outcome {
	texts, err := t.texts(spec.Server, spec.Token)
	if err != nil {
		return failed(err)
	}
	config, err := t.tls(spec.Trust, "")
	if err != nil {
		return failed(err)
	}
	port := spec.Port
	if port == 0 {
		port = 8181
	}
	opa, err := t.find(ctx, spec.Service, port)
	if err != nil {
		return failed(err)
	}
	server := request{config: config, bearer: texts[1], limit: maxPolicies}
	for began := time.Now(); ; {
		has, err := policiesIn(ctx, "http://"+opa)
		if err != nil {
			return failed(err)
		}
		announced, err := server.policiesOf(ctx, strings.TrimRight(texts[0], "/"), has.Last.ID)
		if err != nil {
			return failed(err)
		}
		o := has.against(announced)
		if o.passed || time.Since(began) > policyLag {
			return o
		}
		select {
		case <-ctx.Done():
			return o
		case <-time.After(policyLag / 20):
		}
	}
}

// policies is what the OPAL client wrote into OPA about itself, where OPAL_OPA_HEALTH_CHECK_POLICY_ENABLED is set
// (opal_client/engine/healthcheck/opal.rego). The id of a transaction that set policies is the commit that they are of.
type policies struct {
	Last   policyChange `json:"last_policy_transaction"`
	Failed policyChange `json:"last_failed_policy_transaction"`
}

type policyChange struct {
	ID  string `json:"id"`
	End string `json:"end_time"` // UTC, without saying so
}

func policiesIn(ctx context.Context, opa string) (policies, error) {
	var answer struct {
		Result policies `json:"result"`
	}
	return answer.Result, getJSON(ctx, nil, opa+"/v1/data/system/opal", &answer)
}

// commit is what a revision looks like; nothing else of an answer is told.
var commit = regexp.MustCompile(`^[0-9a-f]{40}([0-9a-f]{24})?$`)

// policiesOf asks for what changed since the revision that OPA has, which is nothing as a rule.
func (r request) policiesOf(ctx context.Context, server, since string) (revision string, err error) {
	r.address = server + "/policy"
	if commit.MatchString(since) {
		r.address += "?base_hash=" + url.QueryEscape(since)
	}
	got, err := r.get(ctx)
	if err != nil {
		return "", err
	}
	switch got.status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return "", fmt.Errorf("the OPAL server at %s refuses the token (%d)", server, got.status)
	case http.StatusServiceUnavailable:
		return "", fmt.Errorf("the OPAL server at %s has no policies: it could not read its repository yet (503)", server)
	}
	var bundle struct {
		Hash string `json:"hash"`
	}
	if err := got.json(server+"/policy", &bundle); err != nil {
		return "", err
	}
	if !commit.MatchString(bundle.Hash) {
		return "", fmt.Errorf("the OPAL server at %s names no revision of its policies", server)
	}
	return bundle.Hash, nil
}

// against is what the comparison says.
func (p policies) against(announced string) outcome {
	loaded, _ := time.Parse("2006-01-02T15:04:05.999999999", p.Last.End) // the zero time: not told
	short := func(revision string) string {
		if !commit.MatchString(revision) {
			return "no revision"
		}
		return revision[:7]
	}
	has := "OPA has those of " + short(p.Last.ID)
	if p.Last.ID == "" {
		has = "OPA has none of OPAL's"
	}
	var o outcome
	switch {
	case p.Last.ID == announced:
		o = pass("policies of %s", short(announced))
	case p.Failed.ID == announced:
		o = fail("OPA refuses the policies of %s, which the OPAL server hands out; %s. The log of its OPAL client says why", short(announced), has)
	default:
		o = fail("the OPAL server hands out the policies of %s, %s", short(announced), has)
	}
	return o.date("loaded", loaded)
}
