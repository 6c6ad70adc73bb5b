package report

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// Digest is of the content of a status without what changes from look to look:
// since when it is so, durations, small lags, what passing checks saw, and the generation. Two statuses with one
// digest tell the same.
func (s *Status) Digest() (string, error) {
	plain := *s
	plain.Since, plain.Updated, plain.Generation = time.Time{}, time.Time{}, 0
	plain.Conditions = slices.Clone(s.Conditions)
	for i := range plain.Conditions {
		plain.Conditions[i].Since = time.Time{}
	}
	plain.Nodes = slices.Clone(s.Nodes)
	for i := range plain.Nodes {
		plain.Nodes[i].Duration = 0
	}
	plain.Sets = slices.Clone(s.Sets)
	for i := range plain.Sets {
		plain.Sets[i].Oplog = 0
	}
	plain.Members = slices.Clone(s.Members)
	for i := range plain.Members {
		m := &plain.Members[i]
		m.Lag, m.Started, m.Trouble = lagStep(m.Lag), time.Time{}, time.Time{} // the state tells when one begins or ends
	}
	plain.Spokes = slices.Clone(s.Spokes)
	for i := range plain.Spokes {
		plain.Spokes[i].Heartbeat = time.Time{} // Alive tells when they stop
	}
	// Of a check it is news whether it passes, and the words of a failure.
	plain.Checks = nil
	for _, c := range s.Checks {
		told := Check{Component: c.Component, Name: c.Name, Severity: c.Severity, Passed: c.Passed}
		if !c.Passed {
			told.Saw = c.Saw
		}
		plain.Checks = append(plain.Checks, told)
	}
	// A run is news by its being there and by its end, not by how long it took.
	plain.Runs = nil
	for _, r := range s.Runs {
		plain.Runs = append(plain.Runs, Run{ID: r.ID, Revision: r.Revision, Outcome: r.Outcome, Message: r.Message})
	}
	content, err := json.Marshal(plain)
	if err != nil {
		return "", fmt.Errorf("digest of the status of %s: %w", s.Instance, err)
	}
	sum := sha256.Sum256(content)
	return "sha256:" + hex.EncodeToString(sum[:]), nil
}
