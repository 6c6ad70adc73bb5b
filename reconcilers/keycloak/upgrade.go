package keycloak

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"

	"dive-agent/reconcilers"
)

// A Keycloak that starts on the database of an older one changes its schema at once, and there is no way back but a backup of the
// database (Upgrading Guide, "Migrating the database").

var _ reconcilers.Forewarner = (*Reconciler)(nil)

// release is a version of the server: 26.4.7. Its patch is -1 where it is not told.
type release struct{ major, minor, patch int }

func (v release) String() string {
	if v.patch < 0 {
		return v.series()
	}
	return fmt.Sprintf("%s.%d", v.series(), v.patch)
}

func (v release) series() string { return fmt.Sprintf("%d.%d", v.major, v.minor) }

// compareSeries is below 0 when v is of an older series than o.
func (v release) compareSeries(o release) int {
	if v.major != o.major {
		return v.major - o.major
	}
	return v.minor - o.minor
}

var releasePattern = regexp.MustCompile(`^v?(\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?(?:[.-]|$)`)

func parseRelease(text string) (v release, ok bool) {
	found := releasePattern.FindStringSubmatch(text)
	if found == nil {
		return release{}, false
	}
	v.major, _ = strconv.Atoi(found[1]) // four digits at most
	v.minor, _ = strconv.Atoi(found[2])
	v.patch = -1
	if found[3] != "" {
		v.patch, _ = strconv.Atoi(found[3])
	}
	return v, true
}

// Forewarn says what another image means for the server's database, by the version that was seen to run on it last. One of an
// older series is refused.
func (r *Reconciler) Forewarn(t reconcilers.Target, turn reconcilers.Turn) (words []string, err error) {
	spec, ok := t.Component.Spec.(*Spec)
	if !ok || spec.Service == "" || spec.Service != turn.Part {
		return nil, nil
	}
	var about serverRecord
	name := filepath.Join(t.Dir, serverName)
	if err := load(name, &about); err != nil {
		return nil, nil //nolint:nilerr // one that cannot be read tells nothing, and Observe asks anew
	}
	from, known := parseRelease(about.Version)
	if !known {
		return nil, nil
	}
	for _, change := range turn.Changes {
		to, known := parseRelease(reconcilers.ImageTag(change.Image)) // other tags than versions tell nothing
		switch order := to.compareSeries(from); {
		case !known || order == 0 && to.patch <= from.patch:
		case order < 0:
			return nil, &reconcilers.BlockedError{
				Reason:  "DowngradeRefused",
				Message: fmt.Sprintf("%s cannot run %s: Keycloak %s has migrated its database, on which %s does not run", spec.Service, change.Image, from, to),
				Do: fmt.Sprintf("Go back to an image of %s. Or stop %s, restore a backup of its database that was made with %s, and remove %s",
					from.series(), spec.Service, to.series(), name),
			}
		default:
			words = append(words, fmt.Sprintf("Keycloak %s -> %s: its first start migrates the schema of its database, and there is no way back but a backup of the database: make one before", from, to))
		}
	}
	return words, nil
}
