package desired

import (
	"time"

	"github.com/robfig/cron/v3"
)

const shortestRotation = time.Hour

type rotateSpec struct {
	Every    Duration `yaml:"every" doc:"How long a value is used, 1h or more. Exactly one of every and schedule."`
	Schedule string   `yaml:"schedule" literal:"true" doc:"When it is made anew: a cron expression of five fields, in UTC."`
}

// Rotation is when a generated secret is made anew.
type Rotation struct {
	every    time.Duration
	schedule cron.Schedule
}

// Due is when a value that was made at a time is to be replaced.
func (r *Rotation) Due(made time.Time) time.Time {
	if r.schedule != nil {
		return r.schedule.Next(made.UTC())
	}
	return made.Add(r.every)
}

// rotation reads when a secret is rotated; nil when the manifest does not say it, or says it wrongly.
func rotation(d *Decoder, f field, spec secretSpec) *Rotation {
	if spec.Rotate == nil {
		return nil
	}
	at := f.value.get("rotate").at
	r := &Rotation{every: spec.Rotate.Every.Std()}
	switch g := spec.Generate; {
	case g == nil:
		d.Errorf(at, "rotate of secret %s: only what the agent generates is made anew by it", f.name)
	case g.Kind == AuthorityKind || g.Kind == CertificateKind:
		d.Errorf(at, "rotate of secret %s: a %s is made anew by its lifetime", f.name, g.Kind)
	case (r.every == 0) == (spec.Rotate.Schedule == ""):
		d.Errorf(at, "rotate of secret %s needs every or schedule, one of them", f.name)
	case spec.Rotate.Schedule != "":
		schedule, err := cron.ParseStandard(spec.Rotate.Schedule)
		if err != nil {
			d.Errorf(at, "schedule %q of secret %s is no cron expression: %v", spec.Rotate.Schedule, f.name, err)
			return nil
		}
		r.schedule = schedule
		return r
	case r.every < shortestRotation:
		d.Errorf(at, "every of secret %s must be %s or more", f.name, shortestRotation)
	default:
		return r
	}
	return nil
}
