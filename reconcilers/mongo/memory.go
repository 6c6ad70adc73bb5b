package mongo

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"dive-agent/atomicfile"
)

// memoryFile lies in the component's private folder.
const memoryFile = "replica-set.json"

// memory is what the servers cannot tell: which set was made here, and whether a password changed since it was set.
type memory struct {
	ReplicaSetID string               `json:"replicaSetId,omitempty"`
	LastMemberID int                  `json:"lastMemberId"`         // the highest _id ever given: none is used twice
	Hosts        []string             `json:"hosts,omitempty"`      // members that were wanted once: others were added by somebody else
	Places       map[string]hostPlace `json:"places,omitempty"`     // where these hosts were to be found
	Forced       string               `json:"forced,omitempty"`     // the last order to force a majority that was carried out
	SteppedDown  time.Time            `json:"steppedDown,omitzero"` // when a primary was last asked to step down
	HashKey      []byte               `json:"hashKey,omitempty"`
	Passwords    map[string]string    `json:"passwords,omitempty"` // keyed hash by user id

	TLS string `json:"tls,omitempty"` // whether clients were last told to speak TLS: yes or no

	Backup backupRecord `json:"backup,omitzero"`

	Refused map[string]refusal `json:"refused,omitempty"` // passwords that stopped working, by user id

	folder string
	saved  string
}

// hostPlace is what runs the member that a host name stands for.
type hostPlace struct {
	Service string `json:"service"`
	Port    int    `json:"port"` // in the container
}

// refusal is a password that the server had and does not take any more.
type refusal struct {
	Worked time.Time `json:"worked,omitzero"` // when it was last seen to work; zero: before the agent's start
	Found  time.Time `json:"found"`
	Mended time.Time `json:"mended,omitzero"` // when it was set anew; zero: not yet
}

// recall reads the memory. A file that cannot be read as such is kept aside: all but the replica set's identity comes
// back from the servers.
func recall(folder string) (*memory, error) {
	m := &memory{folder: folder}
	path := filepath.Join(folder, memoryFile)
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read what is known of the replica set: %w", err)
	}
	if err := json.Unmarshal(raw, m); err != nil {
		if err := os.Rename(path, path+".corrupt"); err != nil {
			return nil, fmt.Errorf("put the unreadable %s aside: %w", memoryFile, err)
		}
		return &memory{folder: folder}, nil
	}
	m.saved = string(raw)
	return m, nil
}

// path is where an operator finds the file.
func (m *memory) path() string { return filepath.Join(m.folder, memoryFile) }

// save writes what changed, whole or not at all.
func (m *memory) save() error {
	raw, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if string(raw) == m.saved {
		return nil
	}
	if _, err := atomicfile.Write(m.path(), raw, atomicfile.Options{}); err != nil {
		return fmt.Errorf("remember the replica set: %w", err)
	}
	m.saved = string(raw)
	return nil
}

// passwordIs says whether the password is the one last known to be in the server.
func (m *memory) passwordIs(user, password string) bool {
	known, has := m.Passwords[user]
	return has && len(m.HashKey) > 0 && hmac.Equal([]byte(known), []byte(m.hash(user, password)))
}

// setPassword remembers which password the server has.
func (m *memory) setPassword(user, password string, random io.Reader) error {
	if len(m.HashKey) == 0 {
		key := make([]byte, 32)
		if _, err := io.ReadFull(random, key); err != nil {
			return fmt.Errorf("make a key for password hashes: %w", err)
		}
		m.HashKey, m.Passwords = key, nil
	}
	if m.Passwords == nil {
		m.Passwords = map[string]string{}
	}
	m.Passwords[user] = m.hash(user, password)
	return m.save()
}

// refuses says whether the server was seen to refuse the password that it had, and did not get it anew since.
func (m *memory) refuses(user string) bool {
	r, known := m.Refused[user]
	return known && r.Mended.IsZero()
}

// setRefused remembers what became of a password.
func (m *memory) setRefused(user string, r refusal) error {
	if m.Refused == nil {
		m.Refused = map[string]refusal{}
	}
	m.Refused[user] = r
	return m.save()
}

func (m *memory) hash(user, password string) string {
	h := hmac.New(sha256.New, m.HashKey)
	_, _ = fmt.Fprintf(h, "%d:%s%s", len(user), user, password)
	return hex.EncodeToString(h.Sum(nil))
}
