package source

import (
	"fmt"
	"time"

	"github.com/robfig/cron/v3"
)

// Schedule says when the next poll after a successful one is due.
type Schedule interface {
	Next(after time.Time) time.Time
}

type every time.Duration

// minInterval keeps a slip of the pen from flooding a server.
const minInterval = time.Second

// Every polls at an interval of at least one second.
func Every(d time.Duration) Schedule { return every(max(d, minInterval)) }

func (e every) Next(after time.Time) time.Time { return after.Add(time.Duration(e)) }

// Cron polls by a cron expression of five fields, or a descriptor like "@hourly"; "CRON_TZ=UTC " in front of it sets the
// time zone, which is the host's otherwise.
func Cron(expression string) (Schedule, error) {
	s, err := cron.ParseStandard(expression)
	if err != nil {
		return nil, fmt.Errorf("the cron expression %q cannot be used: %w", expression, err)
	}
	return s, nil
}
