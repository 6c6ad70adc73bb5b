package certificates

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"dive-agent/desired"
	"dive-agent/reconcilers"
	"dive-agent/reconcilers/internal/jsonfile"
)

// holder is the reconciler of kind Certificate. It is safe for concurrent use by different targets.
type holder struct{ deps reconcilers.Deps }

var (
	_ reconcilers.Reconciler = (*holder)(nil)
	_ reconcilers.Watcher    = (*holder)(nil)
)

// NewHolder makes the reconciler of kind Certificate.
func NewHolder(deps reconcilers.Deps) reconcilers.Reconciler { return &holder{deps} }

// holderFile is in the component's private folder, mode 0600: it holds keys.
const holderFile = "certificate.json"

// kept is what a holder keeps. Losing it loses the key: another one is made and signed.
type kept struct {
	Current *pair `json:"current,omitempty"` // in use
	Next    *pair `json:"next,omitempty"`    // waits for the authority
}

// pair is a key, the request for it, and what was signed.
type pair struct {
	For         subject `json:"for"`
	Key         string  `json:"key"`
	Request     string  `json:"request"`
	Certificate string  `json:"certificate,omitempty"`
}

// readKept reads what is kept. A file that cannot be read as such is put aside: another key is made.
func readKept(dir string) (kept, error) {
	return jsonfile.Read[kept](filepath.Join(dir, holderFile), "read the certificate")
}

func (k kept) write(dir string) error {
	return jsonfile.Write(filepath.Join(dir, holderFile), "keep the certificate", k)
}

// certificate is the one that is in use; nil: there is none.
func (k kept) certificate() *x509.Certificate {
	if k.Current == nil {
		return nil
	}
	return firstCertificate(k.Current.Certificate)
}

func (k kept) outputs() map[string]desired.Value {
	outputs := map[string]desired.Value{}
	if k.Current != nil {
		outputs["request"] = desired.String(k.Current.Request)
	}
	if k.Next != nil {
		outputs["request"] = desired.String(k.Next.Request)
	}
	if c := k.certificate(); c != nil {
		outputs["certificate"] = desired.String(k.Current.Certificate)
		outputs["key"] = desired.Secret(k.Current.Key)
		outputs["pem"] = desired.Secret(k.Current.Key + k.Current.Certificate)
		outputs["expires"] = desired.String(c.NotAfter.UTC().Format(time.RFC3339))
	}
	return outputs
}

// holderState is what a plan is made from.
type holderState struct {
	want   subject
	kept   kept
	signed string // what the authority signed for the key that waits; empty: nothing yet
	now    time.Time
}

// Observe reads what is kept and what the authority signed.
func (r *holder) Observe(ctx context.Context, t reconcilers.Target) (reconcilers.Observed, error) {
	k, err := readKept(t.Dir)
	if err != nil {
		return reconcilers.Observed{}, err
	}
	s := holderState{kept: k, now: r.deps.Clock.Now()}
	o := reconcilers.Observed{Outputs: k.outputs(), Facts: s.facts(), State: holderState{}}
	spec := t.Component.Spec.(*HolderSpec)
	if s.want, err = spec.subject(t.Instance, t.Scope); err != nil {
		return reconcilers.Settle(ctx, o, err)
	}
	issued, err := spec.Issued.Eval(t.Scope)
	if err != nil {
		return o, err
	}
	if issued.Known() {
		s.signed = k.signed(issued.Text(), s.now)
	}
	o.State, o.Err = s, s.hindrance(spec)
	return o, nil
}

// signed finds, of the certificates that the authority shows, one to take: for the key that waits, or for the key in use
// a later one than it has, as after a change of the authority's key.
func (k kept) signed(issued string, now time.Time) string {
	waits, since := k.Next, time.Time{}
	if waits == nil {
		has := k.certificate()
		if has == nil {
			return ""
		}
		waits, since = k.Current, has.NotBefore
	}
	der := blocks(waits.Request, requestBlock, 1)
	if len(der) == 0 {
		return ""
	}
	asked, err := x509.ParseCertificateRequest(der[0])
	if err != nil {
		return ""
	}
	for _, der := range blocks(issued, certificateBlock, shownRequests) {
		c, err := x509.ParseCertificate(der)
		if err == nil && sameKey(c.PublicKey, asked.PublicKey) && now.Before(c.NotAfter) && c.NotBefore.After(since) {
			return pemOf(certificateBlock, der)
		}
	}
	return ""
}

// Plan gives at most one change: to make a key and its request, or to take what was signed.
func (r *holder) Plan(_ reconcilers.Target, o reconcilers.Observed) (reconcilers.Plan, error) {
	s, ok := o.State.(holderState)
	if !ok {
		return reconcilers.Plan{}, errors.New("the observation was not made by this reconciler")
	}
	plan := reconcilers.Plan{State: s}
	if c, needed := s.change(); needed {
		plan.Changes = []reconcilers.Change{c}
	}
	return plan, nil
}

func (s holderState) change() (reconcilers.Change, bool) {
	names := strings.Join(s.want.Names, ", ")
	if s.signed != "" {
		return reconcilers.Change{Action: reconcilers.Update, Address: "certificate " + s.want.CommonName, Reason: "the authority signed it", Details: []string{"for " + names}}, true
	}
	if reason := s.asks(); reason != "" {
		return reconcilers.Change{Action: reconcilers.Create, Address: "request for " + s.want.CommonName, Reason: reason, Details: []string{"for " + names}}, true
	}
	return reconcilers.Change{}, false
}

// asks says why a key and a request are to be made, or nothing.
func (s holderState) asks() string {
	switch c := s.kept.certificate(); {
	case s.want.CommonName == "":
		return ""
	case s.kept.Next != nil:
		if !s.kept.Next.For.equal(s.want) {
			return "the manifest says otherwise than the request that waits"
		}
	case c == nil:
		return "there is none yet"
	case !s.kept.Current.For.equal(s.want):
		return "the manifest says otherwise than the certificate"
	case !s.now.Before(due(c)):
		return "two thirds of the certificate's life are over, it ends " + c.NotAfter.UTC().Format(time.RFC3339)
	}
	return ""
}

// hindrance is a wait for the authority, as long as there is no certificate that is good.
func (s holderState) hindrance(spec *HolderSpec) error {
	if _, needed := s.change(); needed || s.kept.Next == nil {
		return nil
	}
	if c := s.kept.certificate(); c != nil && s.now.Before(c.NotAfter) {
		return nil
	}
	return &reconcilers.WaitError{For: "a certificate (" + spec.Issued.Source() + ")", Err: errors.New("the authority signs the request when it has read it from this instance's status branch and the merged manifest says the same")}
}

func (s holderState) facts() reconcilers.Facts {
	f := reconcilers.Facts{Summary: "no certificate", Values: map[string]any{}}
	if c := s.kept.certificate(); c != nil {
		f.Summary = "certificate until " + c.NotAfter.UTC().Format(time.DateOnly)
		f.Values["expires"], f.Values["names"] = c.NotAfter.UTC().Format(time.RFC3339), strings.Join(s.kept.Current.For.Names, ", ")
	}
	if s.kept.Next != nil {
		f.Notes = append(f.Notes, "a request waits for the authority")
	}
	return f
}

// Apply carries out the plan's change.
func (r *holder) Apply(ctx context.Context, t reconcilers.Target, p reconcilers.Plan, progress reconcilers.Progress) (reconcilers.Applied, error) {
	s, ok := p.State.(holderState)
	if !ok {
		return reconcilers.Applied{}, fmt.Errorf("the plan of %s was not made by this reconciler", t.ID())
	}
	for _, change := range p.Changes {
		if err := progress.Begin(ctx, change); err != nil {
			return reconcilers.Applied{}, err
		}
		err := r.carryOut(t, s)
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

func (r *holder) carryOut(t reconcilers.Target, s holderState) error {
	k, err := readKept(t.Dir)
	if err != nil {
		return err
	}
	if s.signed != "" && k.signed(s.signed, s.now) != "" {
		if k.Next != nil {
			k.Current, k.Next = k.Next, nil
		}
		k.Current.Certificate = s.signed
		return k.write(t.Dir)
	}
	if s.signed != "" {
		return nil // it was taken meanwhile
	}
	next := &pair{For: s.want}
	if next.Key, next.Request, err = newRequest(s.want, r.deps.Rand); err != nil {
		return err
	}
	k.Next = next
	return k.write(t.Dir)
}

// Watch wakes the component when its certificate is to be made anew.
func (r *holder) Watch(ctx context.Context, t reconcilers.Target, wake func(part string)) error {
	k, err := readKept(t.Dir)
	if err != nil {
		return err
	}
	var when <-chan time.Time
	if c := k.certificate(); c != nil && k.Next == nil {
		when = r.deps.Clock.After(max(0, due(c).Sub(r.deps.Clock.Now())))
	}
	select {
	case <-ctx.Done():
	case <-when:
		wake("")
		<-ctx.Done() // the round that follows begins another watch
	}
	return ctx.Err()
}
