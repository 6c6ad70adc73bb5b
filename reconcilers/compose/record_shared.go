package compose

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"dive-agent/atomicfile"
)

// sharedRecord is what is remembered of the shared part, in a file of its own.
type sharedRecord struct {
	PulledFor string               `json:"pulledFor,omitempty"` // digest of the instance whose images were pulled, with policy always
	Pulled    map[string]time.Time `json:"pulled,omitempty"`    // image -> its last pull, where those are made by the clock
	// Unrefreshed are images that could not be refreshed -> why; the ones on the host are used.
	Unrefreshed map[string]string      `json:"unrefreshed,omitempty"`
	Tracked     map[string]tracking    `json:"tracked,omitempty"`  // by image
	Brought     map[string]brought     `json:"brought,omitempty"`  // images that were pulled, by ID
	Doubtful    map[string]bool        `json:"doubtful,omitempty"` // registries of which an image could not be had at the last try
	Volumes     map[string]keptVolume  `json:"volumes,omitempty"`  // by name
	Networks    map[string]keptNetwork `json:"networks,omitempty"` // by name
	Drift       []drifted              `json:"drift,omitempty"`    // what was done to networks by hand and is left so
}

func sharedPath(s *stack) string { return filepath.Join(s.target.Dir, SharedPart+".json") }

// readShared gives the shared part's record. A lost one costs a pull, and the knowledge of a volume that was lost with it.
func readShared(s *stack) sharedRecord {
	var rec sharedRecord
	if text, err := os.ReadFile(sharedPath(s)); err == nil && json.Unmarshal(text, &rec) != nil {
		return sharedRecord{}
	}
	return rec
}

func changeShared(s *stack, change func(*sharedRecord)) error {
	rec := readShared(s)
	change(&rec)
	text, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	if _, err := atomicfile.Write(sharedPath(s), text, atomicfile.Options{}); err != nil {
		return fmt.Errorf("keep the record of images and volumes: %w", err)
	}
	return nil
}
