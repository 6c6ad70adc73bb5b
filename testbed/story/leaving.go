package story

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"dive-agent/report"
	"dive-agent/testbed"
)

// leave takes DEU out of the fleet: by merges alone it is gone on its host, at the hub, and in the hub's realm, where
// the destruction of its identity provider waits for approval.
func (w *world) leave(ctx context.Context) error {
	file := filepath.Join(w.path("clone"), "instances", "deu.yaml")
	manifest, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if err := w.branch(ctx, "deu-goes"); err != nil {
		return err
	}
	if err := os.WriteFile(file, append(manifest, "  onRemove: destroy\n"...), 0o644); err != nil {
		return err
	}
	if err := w.merge(ctx, "deu-goes", "Say what becomes of DEU when it goes"); err != nil {
		return err
	}
	if err := w.sync(ctx, "deu-01", "deu", 2*time.Minute); err != nil {
		return err
	}
	if err := w.branch(ctx, "remove-deu"); err != nil {
		return err
	}
	started := time.Now()
	if err := os.Remove(file); err != nil {
		return err
	}
	fmt.Println("  $ git rm instances/deu.yaml")
	if err := w.merge(ctx, "remove-deu", "Remove spoke DEU"); err != nil {
		return err
	}
	if err := w.awaitGone(ctx); err != nil {
		return err
	}
	if err := w.approveRemoval(ctx); err != nil {
		return err
	}
	w.saw("DEU leaves: host, record, identity provider; one approval", "merging is the only operation", 3*time.Minute, time.Since(started))
	if err := w.person(ctx, "usa-01", 0, "status", "usa"); err != nil {
		return err
	}
	return w.noMoreOffered(ctx)
}

// awaitGone waits until DEU's containers are removed and its record is revoked.
func (w *world) awaitGone(ctx context.Context) error {
	err := testbed.Until(ctx, 2*time.Minute, often, "no container of DEU", func() error {
		left, err := w.containers(ctx, "dive-spoke-deu")
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("%d containers", len(left))
		}
		return err
	})
	if err != nil {
		return err
	}
	return testbed.Until(ctx, time.Minute, often, "DEU revoked at the hub", func() error {
		status, err := w.status(ctx, "usa-01", "usa")
		if err != nil {
			return err
		}
		for _, spoke := range status.Spokes {
			if spoke.Code == "DEU" && spoke.State != "revoked" {
				err = fmt.Errorf("it is %s", spoke.State)
			}
		}
		return err
	})
}

// approveRemoval merges the line that the hub's status asks for.
func (w *world) approveRemoval(ctx context.Context) error {
	line := ""
	err := testbed.Until(ctx, 2*time.Minute, often, "the hub's status names a plan that waits", func() error { // at the end of its pass, after it says Blocked
		status, err := w.status(ctx, "usa-01", "usa")
		if err != nil {
			return err
		}
		for _, plan := range status.Plans {
			if status.Phase == report.Blocked && plan.Waits && plan.Destroy > 0 {
				line = strings.TrimSuffix(strings.TrimPrefix(plan.Approve, "spec: {"), "}")
				return nil
			}
		}
		return fmt.Errorf("is %s: %s", status.Phase, strings.Join(status.Why, "; "))
	})
	if err != nil {
		return err
	}
	if err := w.person(ctx, "usa-01", 0, "status", "usa"); err != nil {
		return err
	}
	if err := w.branch(ctx, "approve-removal"); err != nil {
		return err
	}
	file := filepath.Join(w.path("clone"), "instances", "usa.yaml")
	manifest, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if err := os.WriteFile(file, []byte(strings.TrimRight(string(manifest), "\n")+"\n  "+line+"\n"), 0o644); err != nil {
		return err
	}
	fmt.Printf("  merged into instances/usa.yaml:   %s\n", line)
	if err := w.merge(ctx, "approve-removal", "Approve the removal of DEU's identity provider"); err != nil {
		return err
	}
	return w.sync(ctx, "usa-01", "usa", 3*time.Minute)
}
