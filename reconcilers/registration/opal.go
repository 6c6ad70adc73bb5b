package registration

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/url"
	"strings"
	"time"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

// OPAL says where the OPAL server is that distributes policies, and how clients get their tokens.
type OPAL struct {
	URL         desired.Expr     `yaml:"url" required:"true" doc:"Base URL of the OPAL server as this agent reaches it: https, or http on this host. An empty text: there is none."`
	MasterToken desired.Expr     `yaml:"masterToken" required:"true" doc:"Its OPAL_AUTH_MASTER_TOKEN, a secret of the instance."`
	PublicKey   desired.Expr     `yaml:"publicKey" required:"true" doc:"Public half of the key that it signs tokens with, in PEM, such as ${OPAL_KEY_PUBLIC}. Clients get other tokens when it changes."`
	Lifetime    desired.Duration `yaml:"lifetime" default:"24h" doc:"Of the tokens. Nothing takes one back before it ends: a spoke that is suspended or revoked gets no other."`
}

// Outputs about policy distribution.
const (
	opalTokenOutput = "opal_token"
	opalOwnOutput   = "opal_own_token"
	opalKeyOutput   = "opal_public_key"
)

// shortestOPALToken is the shortest lifetime: the next token has to cross to the spoke's host within a third of it.
const shortestOPALToken = 10 * time.Second

func (o *OPAL) validate(c *desired.Check) {
	if text, ok := c.Known(o.URL); ok && text != "" && !isHTTPS(text) && !isLocal(text) {
		c.Errorf(o.URL.Position(), "the OPAL server's URL %q must begin with https://, or lead to this host: the master token goes over it", text)
	}
	if c.Scope != nil {
		if v, err := o.MasterToken.Eval(c.Scope); err == nil && !v.Secret() {
			c.Errorf(o.MasterToken.Position(), "masterToken must come from a secret of the instance, such as ${OPAL_MASTER_TOKEN}")
		}
	}
	if o.Lifetime != 0 && o.Lifetime.Std() < shortestOPALToken {
		c.Errorf(c.At("opal", "lifetime"), "lifetime %s is too short; at least %s", o.Lifetime, shortestOPALToken)
	}
}

// isLocal says whether a URL of plain HTTP leads to the host itself.
func isLocal(text string) bool {
	u, err := url.Parse(text)
	return err == nil && u.Scheme == "http" && u.User == nil && (u.Hostname() == "localhost" || u.Hostname() == "::1" || strings.HasPrefix(u.Hostname(), "127."))
}

// hubItself is under what the token of the hub's own OPAL client is kept; no spoke has such an id.
const hubItself = "@hub"

// opalToken is a token that an OPAL client of the federation runs on.
type opalToken struct {
	mintedToken
	Key string `json:"key,omitempty"` // what signed it, by fingerprint; empty: the hub handed it out itself
}

// opalOrder is a token that is to be made.
type opalOrder struct {
	id     string // of the spoke, or hubItself
	of     string // for people
	claims map[string]string
	reason string
}

func (o opalOrder) change() reconcilers.Change {
	return reconcilers.Change{Action: reconcilers.Update, Address: "OPAL token of " + o.of, Reason: o.reason}
}

// opalLook is what Observe finds out about the tokens of OPAL clients.
type opalLook struct {
	orders  []opalOrder
	outputs map[string]desired.Value
	next    time.Time // when the next token is to be renewed; zero: there is none
	err     error     // the manifest's part on OPAL is not known yet
}

// lookAtOPAL compares the tokens that are kept with the records and their verdicts: who reads one and is approved, or is about to be,
// gets one. Without an OPAL server each reader gets what the hub itself handed out with the approval, else an empty text, so that
// nothing waits.
func (r *Approvals) lookAtOPAL(t reconcilers.Target, verdicts []verdict, now time.Time) (look opalLook, err error) {
	kept, err := opalTokens.read(t.Dir)
	if err != nil {
		return look, err
	}
	server, err := r.opalServer(t)
	if err != nil {
		return opalLook{err: err}, nil
	}
	readers := readersOf(t, opalTokenOutput)
	words := map[string]desired.Value{}
	if server == nil {
		for name := range readers {
			words[name] = desired.Secret("")
		}
		for _, v := range verdicts {
			if readers[v.want.instance] && v.record.Status == approved {
				words[v.want.instance] = desired.Secret(kept[v.record.SpokeID].Token)
			}
		}
		look.outputs = map[string]desired.Value{
			opalTokenOutput: desired.Object(words), opalOwnOutput: desired.Secret(""), opalKeyOutput: desired.String(""),
		}
		return look, nil
	}
	look.outputs = map[string]desired.Value{opalKeyOutput: desired.String(server.key)}
	fingerprint := server.fingerprint()
	if look.ask(kept, fingerprint, opalOrder{id: hubItself, of: "the hub", claims: map[string]string{"instance": t.Instance.Name}}, now) {
		look.outputs[opalOwnOutput] = desired.Secret(kept[hubItself].Token)
	}
	for _, v := range verdicts {
		if v.want.instance == "" || !readers[v.want.instance] || !v.staysOrGetsApproved() {
			continue
		}
		order := opalOrder{id: v.record.SpokeID, of: shown(v.record.Code), claims: map[string]string{"instance": v.want.instance, "spokeId": v.record.SpokeID}}
		if look.ask(kept, fingerprint, order, now) && v.record.Status == approved {
			words[v.want.instance] = desired.Secret(kept[v.record.SpokeID].Token)
		}
	}
	look.outputs[opalTokenOutput] = desired.Object(words)
	return look, nil
}

// staysOrGetsApproved says whether the record is approved when the verdict is carried out.
func (v verdict) staysOrGetsApproved() bool {
	switch v.act {
	case doApprove, doRegrant, doRelease:
		return true
	case leave, doToken:
		return v.record.Status == approved
	}
	return false
}

// ask orders a token where there is reason to; usable says whether there is one that the server takes.
func (l *opalLook) ask(kept map[string]opalToken, fingerprint string, order opalOrder, now time.Time) (usable bool) {
	token, has := kept[order.id]
	switch due := token.renewal(); {
	case !has:
		order.reason = "none is handed over yet"
	case token.Key != fingerprint:
		order.reason, has = "the OPAL server has another key", false
	case !now.Before(due):
		order.reason = "two thirds of its life are over, it ends " + token.ExpiresAt.UTC().Format(time.RFC3339)
	default:
		l.next = sooner(l.next, due)
		return true
	}
	l.orders = append(l.orders, order)
	return has
}

// sooner is the earlier of two times, of which the zero one does not count.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// makeOPALToken gets a token for one client and keeps it, if its spoke is approved by now.
func (r *Approvals) makeOPALToken(ctx context.Context, client *hubClient, server *opalServer, t reconcilers.Target, order opalOrder) error {
	if order.id != hubItself {
		record, err := client.spoke(ctx, order.id)
		if err != nil {
			return client.policy(err)
		}
		if record.Status != approved {
			return nil // the next look tells
		}
	}
	lifetime := t.Component.Spec.(*ApprovalsSpec).OPAL.Lifetime.Std()
	if lifetime <= 0 {
		lifetime = 24 * time.Hour
	}
	token, err := server.token(ctx, lifetime, order.claims)
	if err != nil {
		return err
	}
	token.Since = r.deps.Clock.Now().UTC()
	return opalTokens.keep(&r.kept, t.Dir, order.id, &opalToken{mintedToken: token, Key: server.fingerprint()})
}

// takeOPALToken keeps the token that the hub's backend handed out with an approval, where there is no other way to one.
func (r *Approvals) takeOPALToken(t reconcilers.Target, id string, given *issuedOPAL) error {
	if given == nil || given.Token == "" {
		return nil
	}
	if server, err := r.opalServer(t); server != nil || err != nil {
		return nil //nolint:nilerr // the look tells of it
	}
	return opalTokens.keep(&r.kept, t.Dir, id, &opalToken{mintedToken: mintedToken{Token: given.Token, Since: r.deps.Clock.Now().UTC()}})
}

// fingerprint tells keys of servers apart.
func (s *opalServer) fingerprint() string {
	sum := sha256.Sum256([]byte(strings.TrimSpace(s.key)))
	return hex.EncodeToString(sum[:8])
}

// opalServer is the server that the manifest names; nil: none.
func (r *Approvals) opalServer(t reconcilers.Target) (*opalServer, error) {
	spec := t.Component.Spec.(*ApprovalsSpec).OPAL
	if spec == nil {
		return nil, nil
	}
	e := evaluator{scope: t.Scope}
	base := e.text("opal.url", spec.URL)
	if e.err != nil || base == "" {
		return nil, e.err
	}
	master, key := e.value("opal.masterToken", spec.MasterToken), e.text("opal.publicKey", spec.PublicKey)
	if e.err != nil {
		return nil, e.err
	}
	if !isHTTPS(base) && !isLocal(base) {
		return nil, &reconcilers.BlockedError{
			Reason: "OPALURL", Message: fmt.Sprintf("the OPAL server's URL %q is neither https:// nor http:// on this host", base),
			Do: "Mend opal.url of the component: the master token goes over it.",
		}
	}
	return &opalServer{base: strings.TrimRight(base, "/"), master: master.Text(), key: key, http: r.opal}, nil
}
