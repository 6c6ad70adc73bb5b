package registration

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"time"

	"dive-agent/desired"
	"dive-agent/reconcilers"
)

// handoverOutput is what the hub's agent tells the agents of spokes, each its own, in a value that is sealed to its host.
const handoverOutput = "handover"

// handover is the hub's word to one spoke. A token is handed over when two thirds of the life of the one before it are
// over: both are good until the spoke's services have taken the new one.
type handover struct {
	SpokeID   string    `json:"spokeId"`
	Token     string    `json:"token,omitempty"`
	ExpiresAt time.Time `json:"expiresAt,omitzero"`
	Objection string    `json:"objection,omitempty"` // why the record stays pending or suspended: it is not what the manifest says
	// Again says of a revoked record that this agent ended it since merged manifests said so, and that they declare the spoke:
	// it may register anew. Of what an operator revoked it is never said.
	Again bool `json:"registerAgain,omitempty"`
}

func (h handover) issued() issued { return issued{Token: h.Token, ExpiresAt: h.ExpiresAt} }

// minted are the tokens that are handed over, by spoke id.
type minted = map[string]mintedToken

type mintedToken struct {
	Token     string    `json:"token"`
	Since     time.Time `json:"since"` // when this agent had it
	ExpiresAt time.Time `json:"expiresAt"`
}

// renewal is when the token's follower is due.
func (t mintedToken) renewal() time.Time { return t.Since.Add(t.ExpiresAt.Sub(t.Since) * 2 / 3) }

// readersOf are the instances whose manifests read an output of this component.
func readersOf(t reconcilers.Target, output string) map[string]bool {
	names := map[string]bool{}
	if t.Fleet == nil {
		return names
	}
	for _, reader := range t.Fleet.Readers(t.Instance.Name)[desired.OutputName{Component: t.Component.Name, Output: output}] {
		names[reader.Instance] = true
	}
	return names
}

// handOver adds the renewal of tokens to what is done about the records, and gives what the spokes are told, an object of
// instance and value. next is when the next token is to be renewed; zero: there is none.
func handOver(verdicts []verdict, tokens minted, to map[string]bool, now time.Time) (output desired.Value, next time.Time) {
	words := map[string]desired.Value{}
	for i := range verdicts {
		v := &verdicts[i]
		if v.want.instance == "" || !to[v.want.instance] || v.record.Status == revoked && !v.again {
			continue
		}
		v.listens = true
		word := handover{SpokeID: v.record.SpokeID, Again: v.again, Objection: strings.Join(v.objections, "; ")}
		token, has := tokens[v.record.SpokeID]
		switch due := token.renewal(); {
		case v.record.Status != approved:
			has = false
		case v.act != leave:
		case !has:
			v.act, v.reason = doToken, "none is handed over yet"
		case !now.Before(due):
			v.act, v.reason = doToken, "two thirds of its life are over, it ends "+token.ExpiresAt.UTC().Format(time.RFC3339)
		case next.IsZero() || due.Before(next):
			next = due
		}
		if has {
			word.Token, word.ExpiresAt = token.Token, token.ExpiresAt
		}
		text, err := json.Marshal(word)
		if err == nil { // it is text and times
			words[v.want.instance] = desired.Secret(string(text))
		}
	}
	return desired.Object(words), next
}

// mint gets the token that is handed over: the first is the one that the spoke has from the hub itself, so that nothing is
// made anew for it; each later one is another.
func (r *Approvals) mint(ctx context.Context, client *hubClient, t reconcilers.Target, v verdict) error {
	tokens, err := mintedTokens.read(t.Dir)
	if err != nil {
		return err
	}
	token, err := client.firstToken(ctx, v.record.SpokeID)
	if _, has := tokens[v.record.SpokeID]; err == nil && (has || token == nil) {
		token, err = client.mint(ctx, v.record.SpokeID)
	}
	if err != nil {
		return client.policy(err)
	}
	return mintedTokens.keep(&r.kept, t.Dir, v.record.SpokeID, &mintedToken{Token: token.Token, Since: r.deps.Clock.Now().UTC(), ExpiresAt: token.ExpiresAt})
}

// firstToken is the oldest one that lives.
func (c *hubClient) firstToken(ctx context.Context, id string) (*issued, error) {
	live, err := c.status(ctx, id)
	if err != nil || live == nil || live.Token == nil || live.Token.Token == "" {
		return nil, err
	}
	return live.Token, nil
}

// mint makes another token; those that live stay good until they end.
func (c *hubClient) mint(ctx context.Context, id string) (*issued, error) {
	var answer struct {
		Token *issued `json:"token"`
	}
	call := "/spokes/" + url.PathEscape(id) + "/token"
	if err := c.call(ctx, http.MethodPost, call, nil, &answer); err != nil {
		return nil, err
	}
	if answer.Token == nil || answer.Token.Token == "" || answer.Token.ExpiresAt.IsZero() {
		return nil, &answerError{call: "POST " + call, status: http.StatusOK, text: "without a token"}
	}
	return answer.Token, nil
}

// handed is the hub's word to this spoke, as far as it came and is about the record that it has.
func (s *SpokeSpec) handed(scope *desired.Scope, spokeID string) (handover, error) {
	var word handover
	if s.Handover.IsZero() {
		return word, nil
	}
	v, err := s.Handover.Eval(scope)
	if err != nil || !v.Known() {
		return word, err
	}
	if err := json.Unmarshal([]byte(v.Text()), &word); err != nil {
		return handover{}, &reconcilers.BlockedError{
			Reason: "HandoverUnreadable", Message: "handover is not what a hub's agent hands over",
			Do: "handover must be ${instances.<hub>.<component of kind SpokeApprovals>.handover}; with that, agents of the same version on both hosts.",
		}
	}
	if word.SpokeID != spokeID {
		return handover{}, nil // of a record before this one
	}
	return word, nil
}
