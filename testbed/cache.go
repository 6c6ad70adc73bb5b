package testbed

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// CacheDir is where downloads, built programs and the engine's data live: TESTBED_CACHE when set, else
// dive-agent-testbed in the user's cache folder. It may be deleted at any time when no engine of ours runs.
func CacheDir() string {
	if dir := os.Getenv("TESTBED_CACHE"); dir != "" {
		if abs, err := filepath.Abs(dir); err == nil {
			return abs
		}
		return dir
	}
	base, err := os.UserCacheDir()
	if err != nil {
		base = filepath.Join(os.TempDir(), fmt.Sprintf("cache-%d", os.Getuid()))
	}
	return filepath.Join(base, "dive-agent-testbed")
}

// lockFile takes an exclusive lock between processes on the named file and returns the function that gives it back.
// It waits while another process holds the lock, at most until the context ends.
func lockFile(ctx context.Context, path string) (func(), error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make the folder of the lock %s: %w", path, err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open the lock: %w", err)
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if err != unix.EWOULDBLOCK && err != unix.EINTR {
			_ = f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, fmt.Errorf("another process holds %s: %w", path, ctx.Err())
		case <-tick.C:
		}
	}
}

// cached returns the path of the entry name in the cache, making it first by calling fill with a path beside it. The
// entry appears whole or not at all.
func cached(ctx context.Context, name string, fill func(ctx context.Context, path string) error) (string, error) {
	path := filepath.Join(CacheDir(), name)
	unlock, err := lockFile(ctx, path+".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	part := path + ".part"
	if err := os.RemoveAll(part); err != nil {
		return "", fmt.Errorf("clear what a stopped run left: %w", err)
	}
	if err := fill(ctx, part); err != nil {
		_ = os.RemoveAll(part)
		return "", err
	}
	if err := os.Rename(part, path); err != nil {
		return "", fmt.Errorf("put %s into the cache: %w", name, err)
	}
	return path, nil
}

// digest is a short content address of its parts; their borders count.
func digest(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		_, _ = fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil))[:24]
}

// digestFiles is a content address of the regular files below the given paths; names and contents count, times do not.
func digestFiles(paths ...string) (string, error) {
	h := sha256.New()
	for _, root := range paths {
		err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if !d.Type().IsRegular() {
				return nil
			}
			rel, err := filepath.Rel(filepath.Dir(root), path)
			if err != nil {
				return err
			}
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			defer func() { _ = f.Close() }()
			_, _ = fmt.Fprintf(h, "%d:%s", len(rel), rel)
			fh := sha256.New()
			if _, err := io.Copy(fh, f); err != nil {
				return err
			}
			h.Write(fh.Sum(nil))
			return nil
		})
		if err != nil {
			return "", fmt.Errorf("read %s: %w", root, err)
		}
	}
	return hex.EncodeToString(h.Sum(nil))[:24], nil
}
