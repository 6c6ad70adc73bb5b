package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"dive-agent/atomicfile"
	"dive-agent/desired"
)

// Refusal says which revision is not taken, and why.
type Refusal struct {
	Revision Revision         `json:"revision"`
	Problems desired.Problems `json:"problems,omitempty"`
	Message  string           `json:"message,omitempty"`
	Since    time.Time        `json:"since"`
}

// refuse remembers a revision that is not a valid fleet and makes all statuses say so.
func (a *Agent) refuse(revision Revision, err error) {
	refusal := &Refusal{Revision: revision, Message: a.Redactor.String(err.Error()), Since: a.Clock.Now()}
	errors.As(err, &refusal.Problems)
	a.mu.Lock()
	if a.refused != nil && a.refused.Revision.Commit == revision.Commit {
		refusal.Since = a.refused.Since
	}
	a.nowRefused(refusal)
	a.mu.Unlock()
	a.Log.Error("revision refused, the one before stays in force", "commit", revision.Short(), "problems", len(refusal.Problems), "error", err)
	a.bus.emit(Event{Time: a.Clock.Now(), Kind: "revision", State: "refused", Message: revision.Short() + ": " + refusal.Message})
	a.RouseAll("refused")
}

// refusalFile keeps in the state folder which revision is refused. An agent that starts says so from its first status on, before
// it has read the branch; it judges the revision anew then.
const refusalFile = "refused.json"

// nowRefused keeps what is refused from now on; nil: nothing is. a.mu is held.
func (a *Agent) nowRefused(refusal *Refusal) {
	a.refused = refusal
	file := filepath.Join(a.Dir, refusalFile)
	var err error
	if refusal == nil {
		if err = os.Remove(file); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	} else {
		var text []byte
		if text, err = json.Marshal(refusal); err == nil {
			_, err = atomicfile.Write(file, text, atomicfile.Options{})
		}
	}
	if err != nil {
		a.Log.Warn("cannot keep which revision is refused; a new start tells it once the branch was read", "error", err)
	}
}

// recallRefusal takes over what an agent before this one refused.
func (a *Agent) recallRefusal() error {
	text, err := os.ReadFile(filepath.Join(a.Dir, refusalFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	refusal := &Refusal{}
	if err == nil {
		err = json.Unmarshal(text, refusal)
	}
	if err != nil {
		return fmt.Errorf("read which revision is refused: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.refused = refusal
	return nil
}

// HeadIs tells the agent where the branch points: the refusal of another revision is past then.
func (a *Agent) HeadIs(commit string) {
	a.mu.Lock()
	past := a.refused != nil && a.refused.Revision.Commit != commit
	if past {
		a.nowRefused(nil)
	}
	back := past && a.revision != nil && a.revision.Commit == commit
	a.mu.Unlock()
	if back { // to what is in force: nothing else tells that it is accepted again
		a.RouseAll("accepted")
	}
}

// toldProblems is how many problems of a revision are told; dive-agent validate tells all.
const toldProblems = 20

// bounded keeps what is told of a refused revision to a screen: it goes into logs, events and every status.
func bounded(err error) error {
	var problems desired.Problems
	if !errors.As(err, &problems) || len(problems) <= toldProblems {
		return err
	}
	more := fmt.Sprintf("and %d more problems, all told by: dive-agent validate", len(problems)-toldProblems)
	return append(problems[:toldProblems:toldProblems], desired.Problem{Position: problems[toldProblems].Position, Message: more})
}
