package disk

import (
	"errors"
	"os"
	"syscall"
	"testing"
)

// Fill takes all the room of a disk with a file on it, which is to be removed to free it.
func Fill(tb testing.TB, name string) {
	tb.Helper()
	file, err := os.Create(name)
	if err != nil {
		tb.Fatal(err)
	}
	for size := 1 << 20; size > 0 && err == nil; size /= 2 {
		for block := make([]byte, size); err == nil; {
			_, err = file.Write(block)
		}
		if errors.Is(err, syscall.ENOSPC) {
			err = nil
		}
	}
	if err = errors.Join(err, file.Close()); err != nil {
		tb.Fatalf("fill the disk of %s: %v", name, err)
	}
}
