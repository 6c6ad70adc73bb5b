package bench

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"
)

const binarySize = "binary-size"

// measureBinary weighs the agent's program, which has to be stripped.
func measureBinary(_ context.Context, r *run) error {
	info, err := os.Stat(r.agent)
	if err != nil {
		return fmt.Errorf("no agent to weigh (make build makes it): %w", err)
	}
	program, err := elf.Open(r.agent)
	if err != nil {
		return err
	}
	defer func() { _ = program.Close() }()
	if _, err := program.Symbols(); !errors.Is(err, elf.ErrNoSymbols) {
		return fmt.Errorf("%s is not stripped: make build makes it so", r.agent)
	}
	r.record(binarySize, float64(info.Size())/1e6, "MB", 60, "the stripped program")
	return nil
}
