package secrets

import (
	"errors"

	"dive-agent/desired"
)

// rotateDue makes those anew whose manifest says that it is time. One whose former value may still be in use waits for that:
// a rotation is over before the next one begins. After a crash at any point Ensure goes on with the value that is there.
func (e *ensuring) rotateDue(specs []desired.SecretSpec) (rotated []string, err error) {
	for _, spec := range specs {
		known := e.manifest.Secrets[spec.Name]
		present := e.values[spec.Name]
		if spec.Rotate == nil || spec.Generate == nil || present == nil || e.now().Before(spec.Rotate.Due(known.Made)) {
			continue
		}
		former, err := e.pending(spec.Name, present)
		if err != nil {
			return nil, err
		}
		if len(former) > 0 {
			continue
		}
		next, err := e.generate(spec)
		if err != nil {
			return nil, err
		}
		var rotating *RotatingError
		switch err := e.replace(spec.Name, next); {
		case errors.As(err, &rotating):
		case err != nil:
			return nil, err
		default:
			rotated = append(rotated, spec.Name)
		}
	}
	return rotated, nil
}
