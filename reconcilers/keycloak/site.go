package keycloak

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/hashicorp/terraform-exec/tfexec"

	"dive-agent/reconcilers"
)

// stateLimit bounds one reading or writing of a state at its place.
const stateLimit = 2 * time.Minute

// site is a place of a state. A remote one has a working directory of its own, in which nothing but the backend is declared: to
// read or write a state there takes neither the module nor a provider.
type site struct {
	l        *look
	r        *remote // nil: a file on the host
	file     string  // that file
	dir      string
	readOnly bool // nothing is made there, not even an empty table
}

// here is where the manifest says that the state is.
func (l *look) here() *site {
	return &site{l: l, r: l.in.backend, file: filepath.Join(l.work.dir, stateName), dir: filepath.Join(l.work.dir, "backend"), readOnly: l.work.beside}
}

func (s *site) place() string { return s.r.name() }

// name is the place's; empty for the file on the host, as in records that were made before there were others.
func (r *remote) name() string {
	if r == nil {
		return ""
	}
	return r.place
}

// placeWords is a place for people.
func placeWords(place string) string {
	if place == "" {
		return "the file on this host"
	}
	return place
}

func (s *site) authority() string { return filepath.Join(s.dir, authorityName) }

// open gives Terraform in the place's working directory, initialised when it is not yet.
func (s *site) open(ctx context.Context) (*tfexec.Terraform, error) {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, err
	}
	if ca := s.r.values["ca"]; ca != "" {
		if err := write(s.authority(), []byte(ca)); err != nil {
			return nil, err
		}
	}
	tf, err := s.l.work.terraformIn(s.dir, s.l.work.tool.Path, s.r.environment(s.authority()))
	if err != nil {
		return nil, err
	}
	block := []byte(s.r.block(s.readOnly))
	mark, done := filepath.Join(s.dir, "init"), []byte(stamp(s.l.work.tool.Path)+"\n"+string(block))
	if known, err := os.ReadFile(mark); err == nil && string(known) == string(done) {
		return tf, nil
	}
	if err := errors.Join(removeIfThere(mark), write(filepath.Join(s.dir, "backend.tf"), block)); err != nil {
		return nil, err
	}
	if err := tf.Init(ctx, tfexec.Reconfigure(true)); err != nil {
		return nil, err
	}
	return tf, write(mark, done)
}

// read gives the state as it is at its place; errNoState when there is none. No lock is taken: a state is written whole. An empty
// one that is not known is none: in Google's storage Terraform makes one whenever it looks where none is.
func (s *site) read(ctx context.Context) ([]byte, *tfState, error) {
	data, state, err := s.pull(ctx)
	if err == nil && s.r != nil && state.empty() && (state.Lineage == "" || state.Lineage != s.l.record.Lineage) {
		return nil, nil, errNoState
	}
	return data, state, err
}

func (s *site) pull(ctx context.Context) ([]byte, *tfState, error) {
	if s.r == nil {
		state, err := readState(s.file)
		if err != nil {
			return nil, nil, err
		}
		data, err := os.ReadFile(s.file)
		return data, state, err
	}
	limited, cancel := context.WithTimeout(ctx, stateLimit)
	defer cancel()
	tf, err := s.open(limited)
	var text string
	if err == nil {
		text, err = tf.StatePull(limited)
	}
	switch {
	case ctx.Err() != nil:
		return nil, nil, ctx.Err()
	case err != nil && s.readOnly && s.r.kind == backendPg && tableMissing.MatchString(brief(err)):
		return nil, nil, errNoState // OpenTofu asks the table, which is not made yet
	case err != nil:
		return nil, nil, s.failed("read", err)
	case strings.TrimSpace(text) == "":
		return nil, nil, errNoState
	}
	var state tfState
	if err := json.Unmarshal([]byte(text), &state); err != nil {
		return nil, nil, fmt.Errorf("the state at %s cannot be read: %w", s.place(), err)
	}
	return []byte(text), &state, nil
}

// write puts a state in the place of none, of an older one of its lineage, or of the same under another lineage, and looks whether it
// is there. Terraform gives a state that it writes where none is a lineage of its own, whatever the state says; only when all that
// is in it is the same, or nothing is in it, is the right one put over that by force. Over any other state nothing is ever forced.
func (s *site) write(ctx context.Context, data []byte, state *tfState) error {
	if s.r == nil {
		return write(s.file, data)
	}
	file := filepath.Join(s.l.work.run, "push.tfstate")
	defer func() { _ = os.Remove(file) }()
	if err := write(file, data); err != nil {
		return err
	}
	for range 3 {
		_, there, err := s.pull(ctx)
		force := false
		switch {
		case errors.Is(err, errNoState):
		case err != nil:
			return err
		case there.Lineage == "":
		case there.Lineage == state.Lineage && there.Serial >= state.Serial:
			return nil
		case state.Lineage == "" && len(there.Resources) > 0 && maps.Equal(there.ids(), state.ids()):
			return nil // a first one, which has its lineage now
		case there.Lineage == state.Lineage:
		case there.gives(state):
			force = state.Lineage != ""
		default:
			return s.taken(there)
		}
		if err := s.push(ctx, file, force); err != nil {
			return err
		}
	}
	return fmt.Errorf("the state that was written to %s is not there", s.place())
}

// tableMissing is what OpenTofu says when it is not to make the table.
var tableMissing = regexp.MustCompile(`relation ".*" does not exist`)

func (s *site) push(ctx context.Context, file string, force bool) error {
	limited, cancel := context.WithTimeout(ctx, stateLimit)
	defer cancel()
	tf, err := s.open(limited)
	if err == nil {
		err = tf.StatePush(limited, file, tfexec.Lock(true), tfexec.Force(force))
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return s.failed("write", err)
	}
	return nil
}

// taken refuses a place where another state is.
func (s *site) taken(there *tfState) error {
	return &reconcilers.BlockedError{
		Reason:  "BackendTaken",
		Message: fmt.Sprintf("at %s is another state than this component's: lineage %s, %d resources", placeWords(s.place()), there.Lineage, there.managed()),
		Do: fmt.Sprintf("Give this component a place of its own in %s. If that state is this realm's and is to be used, move %s away on the host: the agent takes it up as a new host would. Nothing was changed",
			s.l.target.Instance.Position.File, s.l.work.recordFile()),
	}
}

// refusals are the words by which a backend says that it does not let the agent in.
var refusals = []string{
	"password authentication failed", "no pg_hba.conf entry", "permission denied", "does not exist (3D000)", `pq: database "`, "SSL is not enabled", "certificate",
	"requires auth", "HTTP remote state endpoint requires auth", "invalid auth", "AccessDenied", "Access Denied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "NoSuchBucket",
	"bucket doesn't exist", "bucket does not exist", "invalid_grant", "could not find default credentials", "No valid credential sources", "Invalid backend configuration",
	"Unsupported argument", "Unexpected HTTP response code", "StatusCode: 403", "StatusCode: 401", "Error 403", "Error 401",
}

// refused is the error for a place that does not let the agent in; nil when the text says nothing of that.
func (r *remote) refused(what, text string) error {
	for _, words := range refusals {
		if strings.Contains(text, words) {
			return &reconcilers.BlockedError{
				Reason: "BackendRefused", Message: fmt.Sprintf("%s the Terraform state at %s: %s", what, r.place, cutText(text, 400)),
				Do: "Correct backend in the manifest, its secrets, or what the account may do there. Nothing was changed",
			}
		}
	}
	return nil
}

// failed makes an error for people of a backend that could not be asked. One that is away is waited for; one that refuses is Blocked.
func (s *site) failed(what string, err error) error {
	text := s.l.deps.Redact(brief(err))
	if terminated(err) {
		text = "no answer in time"
	}
	if strings.Contains(text, lockWords) {
		return s.l.locked(s.r, text)
	}
	if refusal := s.r.refused(what, text); refusal != nil {
		return refusal
	}
	if strings.Contains(text, "Failed to query available provider packages") { // of what the state there was made with
		return fmt.Errorf("%s the Terraform state at %s: %s", what, s.place(), cutText(text, 400))
	}
	return &reconcilers.WaitError{For: "the Terraform state at " + s.place(), Again: 10 * time.Second, Err: errors.New(text)}
}

// unlock breaks the lock of the place, whichever it is: Terraform hands no id on for http, and tells success of pg, which has none.
func (s *site) unlock(ctx context.Context, id string) error {
	limited, cancel := context.WithTimeout(ctx, stateLimit)
	defer cancel()
	tf, err := s.open(limited)
	if err == nil {
		err = tf.ForceUnlock(limited, id)
	}
	return err
}
