package secrets

import (
	"errors"
	"fmt"
	"path/filepath"

	"dive-agent/desired"
	"dive-agent/sopsfile"
)

// openedFile is a file of SOPS, opened for one look.
type openedFile struct {
	file *sopsfile.Opened
	err  error
}

func (l *looking) sopsPath(file string) string { return filepath.Join(l.Dir, filepath.FromSlash(file)) }

func (l *looking) lookSops(from desired.SecretSource) ([]byte, error) {
	opened, known := l.files[from.File]
	if !known {
		opened.file, opened.err = l.openSops(from.File)
		l.files[from.File] = opened
	}
	if opened.err != nil {
		return nil, opened.err
	}
	value, err := opened.file.Value(from.Key)
	if err != nil {
		return nil, &fault{text: err.Error(), do: fmt.Sprintf("Put the value there with: sops edit %s", from.File)}
	}
	return []byte(value), nil
}

func (l *looking) openSops(name string) (*sopsfile.Opened, error) {
	content, err := readFile(l.sopsPath(name))
	if err != nil {
		return nil, err
	}
	file, err := sopsfile.Parse(name, content)
	if err != nil {
		return nil, err
	}
	keys, err := l.sopsKeys()
	if err != nil {
		return nil, err
	}
	opened, err := file.Open(keys)
	if err != nil {
		return nil, &fault{
			text: err.Error(),
			do: fmt.Sprintf("Encrypt %s to a key of this host as well (sops updatekeys), or name the key that opens it in the host's agent.yaml (secrets.sops.ageKeyFiles, pgpKeyFile)",
				name),
		}
	}
	return opened, nil
}

// sopsKeys reads the host's keys anew each time: they are needed seldom, and need not stay in memory.
func (l *looking) sopsKeys() (*sopsfile.Keys, error) {
	keys := &sopsfile.Keys{}
	for _, path := range l.AgeKeyFiles {
		text, err := l.readKey(path)
		if err == nil {
			err = keys.AddAge(text)
		}
		if err != nil {
			return nil, &fault{text: "the host's age key " + path, err: err, do: "Put the key there as age-keygen writes it, 0600 and the agent's own"}
		}
	}
	if l.PGPKeyFile == "" {
		return keys, nil
	}
	text, err := l.readKey(l.PGPKeyFile)
	var passphrase []byte
	if err == nil && l.PGPPassphraseFile != "" {
		passphrase, err = l.readKey(l.PGPPassphraseFile)
	}
	if err == nil {
		err = keys.AddPGP(text, oneLine(passphrase))
	}
	if err != nil {
		return nil, &fault{text: "the host's OpenPGP key " + l.PGPKeyFile, err: err, do: "Put the key there as gpg --export-secret-keys writes it, 0600 and the agent's own"}
	}
	return keys, nil
}

// readKey reads what a source is opened with, and tells the redactor of it.
func (s *Sources) readKey(path string) ([]byte, error) {
	text, err := readFile(path)
	if err != nil {
		return nil, err
	}
	if len(oneLine(text)) == 0 {
		return nil, errors.New("it is empty")
	}
	if s.Redactor != nil {
		s.Redactor.Add(string(oneLine(text)))
	}
	return text, nil
}
