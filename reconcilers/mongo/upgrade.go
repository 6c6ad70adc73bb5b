package mongo

import (
	"context"
	"fmt"
	"regexp"
	"strconv"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"

	"dive-agent/reconcilers"
)

// series is a release series of the server: 6.0. The zero series is one that is not known.
type series struct{ major, minor int }

func (v series) String() string { return fmt.Sprintf("%d.%d", v.major, v.minor) }

// next is the series that a server may be upgraded to (manual, "Upgrade a Replica Set": one major at a time).
func (v series) next() series {
	if v.major < 5 && v.minor < 4 {
		return series{v.major, v.minor + 2}
	}
	return series{v.major + 1, 0}
}

func (v series) before(o series) bool {
	return v.major < o.major || v.major == o.major && v.minor < o.minor
}

var versionPattern = regexp.MustCompile(`^v?(\d{1,3})\.(\d{1,3})(?:\.\d|-|$)`)

func parseSeries(text string) (v series, ok bool) {
	found := versionPattern.FindStringSubmatch(text)
	if found == nil {
		return series{}, false
	}
	v.major, _ = strconv.Atoi(found[1]) // three digits at most
	v.minor, _ = strconv.Atoi(found[2])
	return v, true
}

// mayRun refuses an image whose server could not open the data: one that skips a series, or goes back behind the
// feature compatibility version. Such a server ends with code 62 at once, again and again.
func (s *session) mayRun(m wantMember, image string, fcv series) error {
	to, known := parseSeries(reconcilers.ImageTag(image)) // other tags than versions tell nothing
	switch {
	case !known || fcv == (series{}) || to == fcv || to == fcv.next():
		return nil
	case to.before(fcv):
		return &reconcilers.BlockedError{
			Reason:  "DowngradeRefused",
			Message: fmt.Sprintf("%s cannot run %s: the data of %s has feature compatibility version %s, which a server of %s does not open", m.host, image, s.want.set, fcv, to),
			Do:      fmt.Sprintf("Go back to an image of %s, or restore a backup that was made with %s", fcv, to),
		}
	}
	return &reconcilers.BlockedError{
		Reason:  "UpgradeSkipsMajor",
		Message: fmt.Sprintf("%s cannot run %s: the data of %s has feature compatibility version %s, from which only %s is one step", m.host, image, s.want.set, fcv, fcv.next()),
		Do:      fmt.Sprintf("Merge one series at a time: first an image of %s, then featureCompatibilityVersion: %q, and so on", fcv.next(), fcv.next()),
	}
}

// getFCV reads the feature compatibility version.
func getFCV(ctx context.Context, client *driver.Client) (series, error) {
	var answer struct {
		FCV struct {
			Version string `bson:"version"`
		} `bson:"featureCompatibilityVersion"`
	}
	err := run(ctx, client, adminDatabase, bson.D{{Key: "getParameter", Value: 1}, {Key: "featureCompatibilityVersion", Value: 1}}, &answer)
	if err != nil {
		return series{}, fmt.Errorf("read the feature compatibility version: %w", err)
	}
	fcv, _ := parseSeries(answer.FCV.Version)
	return fcv, nil
}

// planFCV raises the feature compatibility version when the manifest says so and the servers have come so far. It comes
// last: what it enables cannot be taken back.
func (p *planner) planFCV(o observation) error {
	want, declared := parseSeries(p.want.fcv)
	if !declared || o.fcv == (series{}) || want == o.fcv {
		return nil
	}
	binary, _ := parseSeries(o.version)
	switch {
	case want.before(o.fcv):
		return &reconcilers.BlockedError{
			Reason:  "DowngradeRefused",
			Message: fmt.Sprintf("the feature compatibility version of %s is %s and is not lowered to %s", p.want.set, o.fcv, want),
			Do:      fmt.Sprintf("Set featureCompatibilityVersion: %q, or restore a backup that was made with %s", o.fcv, want),
		}
	case binary.before(want):
		return &reconcilers.BlockedError{
			Reason:  "ServersTooOld",
			Message: fmt.Sprintf("feature compatibility version %s needs servers of %s, and the primary of %s runs %s", want, want, p.want.set, o.version),
			Do:      "Merge the image first, and the version when all members run it",
		}
	}
	p.add(step{action: setFCV}, reconcilers.Update, "feature compatibility version",
		fmt.Sprintf("%s -> %s (there is no way back behind it)", o.fcv, want))
	return nil
}

// setFCV raises the version. The server itself refuses while a member runs an older binary.
func (s *session) setFCV(ctx context.Context, client *driver.Client) error {
	command := bson.D{{Key: "setFeatureCompatibilityVersion", Value: s.want.fcv}}
	if v, err := getVersion(ctx, client); err != nil {
		return err
	} else if binary, _ := parseSeries(v); !binary.before(series{7, 0}) {
		command = append(command, bson.E{Key: "confirm", Value: true})
	}
	command = append(command, bson.E{Key: "writeConcern", Value: bson.D{{Key: "w", Value: "majority"}, {Key: "wtimeout", Value: reconfigLimit.Milliseconds()}}})
	if err := runFor(ctx, reconfigLimit, client, adminDatabase, command, nil); err != nil {
		return fmt.Errorf("raise the feature compatibility version to %s: %w", s.want.fcv, err)
	}
	return nil
}
