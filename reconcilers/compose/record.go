package compose

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"dive-agent/atomicfile"
)

// record is what is remembered of one service between runs, in a file of its own (0600). Values are in it only as
// digests: salted ones, but for Content, which goes into the label dive.content and has to be the same without the record.
// A lost record costs the sight of changes made by hand before, nothing else.
type record struct {
	Salt       string            `json:"salt"`
	Pending    *pending          `json:"pending,omitempty"`
	Container  string            `json:"container,omitempty"` // ID of the container that Live is of
	StandsFor  string            `json:"standsFor,omitempty"` // hash of the definition that it stands for, when it was taken over
	Live       map[string]string `json:"fields,omitempty"`    // what inspect said right after the container was made
	Definition map[string]string `json:"madeOf,omitempty"`    // what the container was made of, for the reasons of changes
	Networks   map[string]string `json:"networks,omitempty"`  // name -> ID of the networks of the service when Live was taken
	Content    map[string]string `json:"content,omitempty"`
	Parents    map[string]string `json:"parents,omitempty"` // service whose restart restarts this one -> container ID
	Good       *goodMark         `json:"good,omitempty"`
	Refused    string            `json:"refused,omitempty"` // image ID that did not become healthy under the present definition
	Ended      *ended            `json:"ended,omitempty"`
	Drift      []drifted         `json:"drift,omitempty"`    // what was done by hand and is left so
	Starting   string            `json:"starting,omitempty"` // ID of a container whose post_start commands are not done
	NotTaken   *notTaken         `json:"notTaken,omitempty"`
	Flaps      *flapping         `json:"flaps,omitempty"`
	Paused     *paused           `json:"paused,omitempty"`
}

// pending is a change that was begun and of which it is not known yet whether it is good.
type pending struct {
	Since    time.Time `json:"since"`
	Reason   string    `json:"reason"`
	Replaces string    `json:"replaces,omitempty"` // ID of a container that differs in what somebody did to it and in nothing else

	Made   string            `json:"made,omitempty"`   // ID of the container that was made for it, from before its start
	Wanted string            `json:"wanted,omitempty"` // digest of what that was made of
	Live   map[string]string `json:"fields,omitempty"` // what inspect said of it then
}

// goodMark tells what the last good version is; the version itself is in a file of its own.
type goodMark struct {
	Container string `json:"container"`
	Hash      string `json:"hash"`
	Content   string `json:"content"`
	ImageID   string `json:"imageID"`
	Written   string `json:"written"` // digest of what the revision said of it
}

// ended tells how the last good version failed.
type ended struct {
	At      time.Time `json:"at"`
	Message string    `json:"message"`
}

// endedLately is for how long a failure of the last good version speaks for a newer one that fails alike. It is longer than
// the longest pause between two tries.
const endedLately = 30 * time.Minute

func readRecord(path string) (record, error) {
	var rec record
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return rec, nil
	}
	if err != nil {
		return rec, fmt.Errorf("read the service's record: %w", err)
	}
	if !json.Valid(text) { // cut off by a full disk: as if lost
		return rec, nil
	}
	if err := json.Unmarshal(text, &rec); err != nil {
		return rec, fmt.Errorf("read the service's record: %w", err)
	}
	return rec, nil
}

func (rec record) write(path string) error {
	text, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	if _, err := atomicfile.Write(path, text, atomicfile.Options{}); err != nil {
		return fmt.Errorf("keep the service's record: %w", err)
	}
	return nil
}

func (rec record) digest(text []byte) string {
	sum := sha256.Sum256(append([]byte(rec.Salt), text...))
	return hex.EncodeToString(sum[:8])
}

// difference lists the names whose digests differ, each once.
func difference(before, after map[string]string) (added, removed, changed []string) {
	for _, name := range sortedKeys(after) {
		old, ok := before[name]
		switch {
		case !ok:
			added = append(added, name)
		case old != after[name]:
			changed = append(changed, name)
		}
	}
	for _, name := range sortedKeys(before) {
		if _, ok := after[name]; !ok {
			removed = append(removed, name)
		}
	}
	return added, removed, changed
}
