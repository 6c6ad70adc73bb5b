package source

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"dive-agent/atomicfile"
	"dive-agent/gitremote"
)

// Revision is one commit of the branch whose content is on disk.
type Revision struct {
	Commit  string    `json:"commit"` // 40 hexadecimal digits
	Tree    string    `json:"tree"`   // of the followed folder
	Branch  string    `json:"branch"`
	Subject string    `json:"subject"` // first line of the message, one printable line of at most 200 bytes
	Author  string    `json:"author"`  // "Name <address>"
	Time    time.Time `json:"time"`    // of the commit (committer)
	Dir     string    `json:"-"`       // the snapshot: absolute, read-only, there until Keep leaves it out
	Signer  string    `json:"signer,omitempty"`
}

// Short is the commit in 7 digits, as Git prints it.
func (r Revision) Short() string { return gitremote.Short(r.Commit) }

const (
	recordFile    = "source.json"
	recordVersion = 1
)

// record is what a restart needs.
type record struct {
	Version  int       `json:"version"`
	Remote   string    `json:"remote"`
	Branch   string    `json:"branch"`
	Path     string    `json:"path,omitempty"`
	Accepted *Revision `json:"accepted,omitempty"`
	// Signers is the digest of the list of signers that the accepted revision was checked against.
	Signers string `json:"signers,omitempty"`
}

// loadRecord reads the record of a folder; nil without an error when there is none yet.
func loadRecord(dir string) (*record, error) {
	raw, err := os.ReadFile(filepath.Join(dir, recordFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var r record
	if err := json.Unmarshal(raw, &r); err != nil {
		return nil, &recordError{fmt.Errorf("it is not JSON: %w", err)}
	}
	if r.Version != recordVersion {
		return nil, &recordError{fmt.Errorf("its version is %d, this program knows %d", r.Version, recordVersion)}
	}
	if a := r.Accepted; a != nil && (!isCommit(a.Commit) || !isCommit(a.Tree)) {
		return nil, &recordError{errors.New("it names no commit")}
	}
	return &r, nil
}

// recordError says that the record is there and cannot be used.
type recordError struct{ err error }

func (e *recordError) Error() string {
	return "the record of the followed branch is damaged: " + e.err.Error()
}
func (e *recordError) Unwrap() error { return e.err }

// save writes the record so that a crash leaves the old one or the new one.
func (r *record) save(dir string) error {
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if _, err := atomicfile.Write(filepath.Join(dir, recordFile), append(raw, '\n'), atomicfile.Options{}); err != nil {
		return fmt.Errorf("recording the revision: %w", err)
	}
	return nil
}

// setAside keeps a damaged record for those who want to look at it.
func setAside(dir string, now time.Time) (string, error) {
	aside := filepath.Join(dir, recordFile+".damaged-"+now.UTC().Format("20060102T150405Z"))
	return aside, os.Rename(filepath.Join(dir, recordFile), aside)
}

func isCommit(s string) bool {
	if len(s) != 40 {
		return false
	}
	for _, c := range s {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
