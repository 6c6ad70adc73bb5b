package bench

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"
)

// checkout writes the fleet as it is merged now into a folder.
func (w *world) checkout() (string, error) {
	dir := w.path("checkout")
	for name, text := range w.files {
		if err := writeFile(filepath.Join(dir, filepath.FromSlash(name)), text); err != nil {
			return "", err
		}
	}
	return dir, nil
}

func writeFile(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

// head is the newest commit of the fleet.
func (w *world) head() (string, error) {
	head := w.repo.Head("main")
	if head == "" {
		return "", errors.New("the fleet repository has no commit")
	}
	return head, nil
}

// settle waits until a round that begins from now on is through and the spoke is Ready.
func (w *world) settle(ctx context.Context, commit string) error {
	if err := w.spoke.sync(ctx, spoke); err != nil {
		return err
	}
	return w.spoke.awaitReady(ctx, time.Minute, spoke, commit)
}
