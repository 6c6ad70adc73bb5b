package bench

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"dive-agent/desired"
	"dive-agent/examples"
	"dive-agent/reconcilers/all"
)

// Reading a fleet.
const (
	loadLight = "load-1000-light"
	loadWhole = "load-1000"
)

// measureLoad loads and validates the example's hub with a thousand spokes. It counts the time by the wall clock, or the CPU
// where that is less: then others held the processors, and on a quiet machine it would have taken that long at most.
func measureLoad(ctx context.Context, r *run) error {
	const spokes = 1000
	dir := filepath.Join(r.dir, "thousand")
	if err := examples.WriteMany(dir, spokes); err != nil {
		return err
	}
	for _, figure := range []struct {
		name, what string
		options    desired.Options
		bar        time.Duration
		times      int
	}{
		{loadLight, "without their Compose files", desired.Options{Kinds: all.Registry.Kinds(), Light: true}, 300 * time.Millisecond, 9},
		{loadWhole, "with their Compose files", desired.Options{Kinds: all.Registry.Kinds()}, 5 * time.Second, 3},
	} {
		var took, wall []time.Duration
		for begun := time.Now(); len(took) < figure.times && (len(took) == 0 || time.Since(begun) < time.Minute); {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			started, before := time.Now(), ownCPU()
			fleet, err := desired.Load(dir, figure.options)
			if err != nil {
				return err
			}
			whole := time.Since(started)
			wall, took = append(wall, whole), append(took, min(whole, ownCPU()-before))
			if len(fleet.Instances) != spokes+1 {
				return fmt.Errorf("%d instances were loaded, expected %d", len(fleet.Instances), spokes+1)
			}
		}
		r.record(figure.name, milliseconds(median(took)), "ms", milliseconds(figure.bar), "%d instances loaded and validated, %s; %s; by the wall clock %s",
			spokes, figure.what, spread(took), round(median(wall)))
	}
	return nil
}

// ownCPU is what this process has used, in user and system mode.
func ownCPU() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u) // cannot fail for one's own process
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
