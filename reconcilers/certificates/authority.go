package certificates

import (
	"cmp"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

// authority is the reconciler of kind CertificateAuthority. It is safe for concurrent use by different targets.
type authority struct{ deps reconcilers.Deps }

var _ reconcilers.Reconciler = (*authority)(nil)

// NewAuthority makes the reconciler of kind CertificateAuthority.
func NewAuthority(deps reconcilers.Deps) reconcilers.Reconciler { return &authority{deps} }

// shownRequests is how many requests one instance may have signed at a time.
const shownRequests = 8

// authorityState is what a plan is made from.
type authorityState struct {
	name    string
	key     crypto.Signer
	ledger  ledger
	renew   string  // why the authority's own certificate is to be made; empty: it is not
	own     subject // of the instance's own certificate; the zero value: it has none
	orders  []order
	refused []string
	now     time.Time
}

// order is a request that is to be signed.
type order struct {
	instance string
	digest   string
	request  *x509.CertificateRequest
	subject  subject
	reason   string
}

// Observe compares the requests that spokes publish with what was signed and with the merged manifests.
func (r *authority) Observe(ctx context.Context, t reconcilers.Target) (reconcilers.Observed, error) {
	l, err := readLedger(t.Dir)
	if err != nil {
		return reconcilers.Observed{}, err
	}
	s := authorityState{ledger: l, now: r.deps.Clock.Now()}
	spec := t.Component.Spec.(*AuthoritySpec)
	o := reconcilers.Observed{State: s, Outputs: spec.withOwn(l, l.outputs(nil)), Facts: reconcilers.Facts{Summary: "no authority"}}
	if s.key, err = keyOf(spec, t.Scope); err != nil {
		return reconcilers.Settle(ctx, o, err)
	}
	if s.name, err = plain("commonName", spec.CommonName, t.Scope); err != nil {
		return reconcilers.Settle(ctx, o, err)
	}
	s.name = cmp.Or(s.name, t.Fleet.Name)
	if len(spec.Names) > 0 {
		if s.own, err = (&HolderSpec{Names: spec.Names}).subject(t.Instance, t.Scope); err != nil {
			return reconcilers.Settle(ctx, o, err)
		}
	}
	requests, err := requestsOf(spec, t.Scope)
	if err != nil {
		return reconcilers.Settle(ctx, o, err)
	}
	s.renew = l.renewal(s.key, s.name, s.now)
	shown := s.judge(t.Fleet, requests)
	o.Outputs, o.Facts, o.State = spec.withOwn(l, l.outputs(shown)), s.facts(shown), s
	return o, nil
}

// withOwn adds the instance's own certificate to outputs, where the manifest asks for one.
func (s *AuthoritySpec) withOwn(l ledger, outputs map[string]desired.Value) map[string]desired.Value {
	if len(s.Names) > 0 {
		maps.Copy(outputs, l.Own.outputs())
	}
	return outputs
}

func keyOf(spec *AuthoritySpec, scope *desired.Scope) (crypto.Signer, error) {
	v, err := spec.Key.Eval(scope)
	switch {
	case err != nil:
		return nil, err
	case !v.Known():
		return nil, &reconcilers.WaitError{For: "key (" + spec.Key.Source() + ")"}
	}
	key, err := authorityKey(v.Text())
	if err != nil {
		return nil, &reconcilers.BlockedError{
			Reason: "AuthorityKey", Message: "the key of the authority cannot be used: " + err.Error(),
			Do: "key must be a secret of the instance such as FLEET_CA_KEY: {generate: {kind: rsa}}, or a private key in PEM.",
		}
	}
	return key, nil
}

// requestsOf are the PEM texts by instance, as far as they are known.
func requestsOf(spec *AuthoritySpec, scope *desired.Scope) (map[string]string, error) {
	v, err := spec.Requests.Eval(scope)
	if err != nil || !v.Known() {
		return nil, err
	}
	fields, ok := v.Fields()
	if !ok {
		return nil, &reconcilers.BlockedError{
			Reason: "RequestsShape", Message: "requests is no map of instances and requests",
			Do: "Write requests: ${{for s in fleet.spokes : s.name => s.outputs.certificate.request}}",
		}
	}
	requests := make(map[string]string, len(fields))
	for name, field := range fields {
		requests[name] = field.Text()
	}
	return requests, nil
}

// judge decides over all requests. It gives the digests of those that are shown, by instance.
func (s *authorityState) judge(fleet *desired.Fleet, requests map[string]string) map[string][]string {
	shown := map[string][]string{}
	for _, name := range slices.Sorted(maps.Keys(requests)) {
		for _, der := range blocks(requests[name], requestBlock, shownRequests) {
			sum := sha256.Sum256(der)
			one := order{instance: name, digest: hex.EncodeToString(sum[:])}
			shown[name] = append(shown[name], one.digest)
			if one.reason = s.ledger.reason(one, keyID(s.key.Public()), s.now); one.reason == "" {
				continue
			}
			request, err := x509.ParseCertificateRequest(der)
			if err != nil {
				s.refused = append(s.refused, name+": what it publishes is no request for a certificate")
				continue
			}
			if one.subject, err = declared(fleet, name, request); err != nil {
				s.refused = append(s.refused, name+": not signed: "+err.Error())
				continue
			}
			one.request = request
			s.orders = append(s.orders, one)
		}
	}
	return shown
}

// declared finds the Certificate of the instance's merged manifest that says what the request asks for.
func declared(fleet *desired.Fleet, name string, request *x509.CertificateRequest) (subject, error) {
	instance := fleet.Instances[name]
	if instance == nil {
		return subject{}, errors.New("no merged manifest declares this instance")
	}
	var objections []string
	for _, component := range instance.Components {
		spec, ok := component.Spec.(*HolderSpec)
		if !ok {
			continue
		}
		w, err := spec.subject(instance, instance.Scope(nil))
		if err != nil {
			objections = append(objections, fmt.Sprintf("what component %s says is not known here: %v", component.Name, err))
			continue
		}
		against := objection(request, w)
		if against == "" {
			return w, nil
		}
		objections = append(objections, against)
	}
	if len(objections) == 0 {
		return subject{}, errors.New("its merged manifest has no Certificate")
	}
	return subject{}, errors.New(strings.Join(objections, "; "))
}

// Plan has a change for the authority's certificate, one for that of its instance, and one for each request that is to be signed.
func (r *authority) Plan(_ reconcilers.Target, o reconcilers.Observed) (reconcilers.Plan, error) {
	s, ok := o.State.(authorityState)
	if !ok {
		return reconcilers.Plan{}, errors.New("the observation was not made by this reconciler")
	}
	plan := reconcilers.Plan{State: s}
	if s.renew != "" {
		plan.Changes = append(plan.Changes, reconcilers.Change{Action: reconcilers.Create, Address: "authority " + s.name, Reason: s.renew})
	}
	if reason := s.ownReason(); reason != "" {
		plan.Changes = append(plan.Changes, reconcilers.Change{
			Action: reconcilers.Create, Address: "certificate of this instance", Reason: reason, Details: []string{"for " + strings.Join(s.own.Names, ", ")},
		})
	}
	for _, one := range s.orders {
		plan.Changes = append(plan.Changes, one.change())
	}
	return plan, nil
}

func (o order) change() reconcilers.Change {
	return reconcilers.Change{
		Action: reconcilers.Create, Address: fmt.Sprintf("certificate of %s (%s)", o.instance, o.digest[:8]), Reason: o.reason,
		Details: []string{"for " + strings.Join(append([]string{o.subject.CommonName}, o.subject.Names...), ", ")},
	}
}

// Apply signs. Each signature is kept before the next is made.
func (r *authority) Apply(ctx context.Context, t reconcilers.Target, p reconcilers.Plan, progress reconcilers.Progress) (reconcilers.Applied, error) {
	s, ok := p.State.(authorityState)
	if !ok {
		return reconcilers.Applied{}, fmt.Errorf("the plan of %s was not made by this reconciler", t.ID())
	}
	spec := t.Component.Spec.(*AuthoritySpec)
	for i, change := range p.Changes {
		if err := progress.Begin(ctx, change); err != nil {
			return reconcilers.Applied{}, err
		}
		var err error
		switch at := i - (len(p.Changes) - len(s.orders)); {
		case at >= 0:
			err = r.sign(t.Dir, s, s.orders[at], spec.Issue.Std())
		case i == 0 && s.renew != "":
			err = r.begin(t.Dir, s, spec.Lifetime.Std())
		default:
			err = r.makeOwn(t.Dir, s, spec.Issue.Std())
		}
		progress.End(change, err)
		if err != nil {
			return reconcilers.Applied{}, err
		}
	}
	o, err := r.Observe(ctx, t)
	if err == nil {
		err = o.Err
	}
	return reconcilers.Applied{Outputs: o.Outputs, Facts: o.Facts}, err
}

func (s authorityState) facts(shown map[string][]string) reconcilers.Facts {
	f := reconcilers.Facts{Summary: fmt.Sprintf("%d signed", s.ledger.count(shown)), Notes: s.refused, Values: map[string]any{}, Certificates: s.ledger.ends(shown)}
	if c := s.ledger.Own.certificate(); c != nil && s.own.CommonName != "" {
		f.Values["expires"] = c.NotAfter.UTC().Format(time.RFC3339)
	}
	if c := s.ledger.certificate(); c != nil {
		f.Values["authorityExpires"] = c.NotAfter.UTC().Format(time.RFC3339)
	}
	return f
}
