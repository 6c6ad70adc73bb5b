package bench

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"dive-agent/source/sourcebench"
	"dive-agent/testbed"
)

// Following the fleet repository.
const (
	pollCPU           = "poll-cpu"
	pollAfterCommits  = "poll-cpu-after-600-commits"
	pollBranches      = "poll-cpu-with-1000-branches"
	roundCPU          = "round-cpu"
	roundAfterCommits = "round-cpu-after-600-commits"
	statusesRead      = "statuses-of-100-instances"
)

const (
	fleetFiles   = 200
	manyCommits  = 600
	manyBranches = 1000
	manyStatuses = 100
)

// measureFollowing compares three repositories in turn, so that whatever else the machine does slows all of them down alike:
// one at its first commits, one after 600 that were fetched, and one with 1,000 other branches.
func measureFollowing(ctx context.Context, r *run) error {
	var beds [3]*sourcebench.Bed
	for i, name := range []string{"first", "many-commits", "many-branches"} {
		dir := filepath.Join(r.dir, name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		bed, err := sourcebench.New(ctx, dir, fleetFiles)
		if err != nil {
			return err
		}
		defer bed.Close()
		beds[i] = bed
	}
	if err := beds[2].Branches(manyBranches); err != nil {
		return err
	}
	if _, err := beds[1].Rounds(ctx, manyCommits); err != nil {
		return err
	}
	if err := r.polls(ctx, beds); err != nil {
		return err
	}
	return r.rounds(ctx, beds[:2])
}

// measureStatuses times a look at the status branches of many instances of which none has moved.
func measureStatuses(ctx context.Context, r *run) error {
	dir := filepath.Join(r.dir, "statuses")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	bed, err := sourcebench.New(ctx, dir, fleetFiles)
	if err != nil {
		return err
	}
	defer bed.Close()
	all, err := bed.Statuses(ctx, manyStatuses)
	if err != nil {
		return err
	}
	var took []time.Duration
	for range 50 {
		_, one, err := all.Read(ctx)
		if err != nil {
			return err
		}
		took = append(took, one)
	}
	r.record(statusesRead, milliseconds(median(took)), "ms", 50, "to read and check the status branches of %d instances with nothing new, over HTTPS; %s; load %.1f", manyStatuses, spread(took), testbed.LoadAverage())
	return nil
}

func (r *run) polls(ctx context.Context, beds [3]*sourcebench.Bed) error {
	var used [3][]time.Duration
	for i := range 16 {
		for j, bed := range beds {
			took, err := bed.Polls(ctx, 50)
			if err != nil {
				return err
			}
			if i > 0 { // the first warms up
				used[j] = append(used[j], took)
			}
		}
	}
	first := median(used[0])
	r.record(pollCPU, milliseconds(first), "ms", 0.5, "CPU of a poll that finds nothing new, over HTTPS; %s of 50 polls each", spread(used[0]))
	r.ratio(pollAfterCommits, median(used[1]), first, 1.1, "%d commits fetched", manyCommits)
	r.ratio(pollBranches, median(used[2]), first, 1.1, "%d other branches", manyBranches)
	return nil
}

func (r *run) rounds(ctx context.Context, beds []*sourcebench.Bed) error {
	var used [2][]time.Duration
	for i := range 33 {
		for j, bed := range beds {
			took, err := bed.Rounds(ctx, 1)
			if err != nil {
				return err
			}
			if i > 1 { // the first warm up
				used[j] = append(used[j], took)
			}
		}
	}
	r.record(roundCPU, milliseconds(median(used[0])), "ms", 6, "CPU of poll, fetch, proof, snapshot, status push; %s", spread(used[0]))
	r.ratio(roundAfterCommits, median(used[1]), median(used[0]), 1.1, "after %d commits", manyCommits)
	return nil
}
