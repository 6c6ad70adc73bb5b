package verify

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"dive-agent/desired"
)

// maxSpokes bounds the list of a hub's records: a thousand of them stay far below.
const maxSpokes = 16 << 20

// approved is the state of a record at the hub that may send heartbeats.
const approved = "approved"

// standing is what the hub tells of one spoke.
type standing struct {
	Code      string    `json:"instanceCode"`
	Status    string    `json:"status"`
	Approved  time.Time `json:"approvedAt"`
	Heartbeat time.Time `json:"lastHeartbeat"`

	silent bool // the hub counts it as unhealthy
}

// federation looks at the hub's word on the spoke, or spokes, and at the links in the instance's own database.
func (t *try) federation(ctx context.Context, spec *Federation) outcome {
	if t.target.Instance == nil || t.target.Fleet == nil {
		return fail("there is no fleet to find partners in")
	}
	own := codeOf(t.target.Instance)
	known, err := t.standings(ctx, spec)
	if err != nil {
		return failed(err)
	}
	partners, waiting := t.partners(spec, known)
	spokes := partners
	if t.target.Instance.Role == desired.RoleSpoke {
		spokes = []string{own}
	}
	missing, links, err := t.links(ctx, spec, own, partners)
	if err != nil {
		return failed(err)
	}
	wrong, oldest := t.heartbeats(spec, spokes, known)
	if len(missing) > 0 {
		wrong = append(wrong, "no link "+strings.Join(missing, ", "))
	}
	o := pass("%d %s, links in both directions, heartbeats under %s", len(partners), plural(len(partners), "partner", "partners"), spec.Heartbeat)
	if len(wrong) > 0 {
		o = fail("%s", strings.Join(wrong, "; "))
	}
	o = o.count("partners", int64(len(partners))).count("links", int64(links)).count("linksMissing", int64(len(missing)))
	if spec.Both == allSpokes {
		o = o.count("notApproved", int64(waiting))
	}
	return o.date("oldestHeartbeat", oldest)
}

// codeOf is the country code that an instance has at the hub and in links.
func codeOf(instance *desired.Instance) string {
	if v, ok := instance.Values["code"]; ok && v.Known() && !v.Secret() && v.Text() != "" {
		return strings.ToUpper(v.Text())
	}
	return strings.ToUpper(instance.Name)
}

// partners are the codes of those that the check is about. Of a hub's spokes those count that it has approved: the others
// join when they do, and are told as waiting.
func (t *try) partners(spec *Federation, known map[string]standing) (codes []string, waiting int) {
	if spec.Both != allSpokes {
		partner := t.target.Fleet.Instances[spec.Both]
		if partner == nil {
			return []string{strings.ToUpper(spec.Both)}, 0
		}
		return []string{codeOf(partner)}, 0
	}
	for _, name := range slices.Sorted(maps.Keys(t.target.Fleet.Instances)) {
		spoke := t.target.Fleet.Instances[name]
		switch {
		case spoke.Role != desired.RoleSpoke || spoke.Name == t.target.Instance.Name:
		case known[codeOf(spoke)].Status == approved:
			codes = append(codes, codeOf(spoke))
		default:
			waiting++
		}
	}
	return codes, waiting
}

// heartbeats says which spokes are not approved, or too silent, and when the oldest of the last heartbeats was. Who was approved
// and sent none yet has as much time for the first.
func (t *try) heartbeats(spec *Federation, spokes []string, known map[string]standing) (wrong []string, oldest time.Time) {
	now := t.r.deps.Clock.Now()
	for _, code := range spokes {
		at, registered := known[code]
		switch last := at.Heartbeat; {
		case !registered:
			wrong = append(wrong, code+" is not registered at the hub")
		case at.Status != approved:
			wrong = append(wrong, fmt.Sprintf("%s is %s at the hub, expected approved", code, at.Status))
		case last.IsZero() && !at.Approved.IsZero() && now.Sub(at.Approved) >= spec.Heartbeat.Std() && (at.silent || t.exact(spec)):
			wrong = append(wrong, fmt.Sprintf("%s sent no heartbeat since its approval at %s", code, clock(at.Approved)))
		case !last.IsZero() && now.Sub(last) >= spec.Heartbeat.Std():
			wrong = append(wrong, fmt.Sprintf("the last heartbeat of %s was at %s, more than %s ago", code, clock(last), spec.Heartbeat))
		}
		if last := at.Heartbeat; !last.IsZero() && (oldest.IsZero() || last.Before(oldest)) {
			oldest = last
		}
	}
	return wrong, oldest
}

// exact says whether the hub tells the time of every heartbeat.
func (t *try) exact(spec *Federation) bool { return !spec.AdminKey.IsZero() }

// standings asks the hub, by code. Without the admin key it tells of this spoke alone, and of heartbeats only those that are
// missing for long. What the status call hands out beside (the spoke's token) is not kept.
func (t *try) standings(ctx context.Context, spec *Federation) (map[string]standing, error) {
	base, config, err := t.hub(spec)
	if err != nil {
		return nil, err
	}
	ask := request{config: config, limit: maxSpokes}
	if t.exact(spec) {
		if ask.adminKey, err = t.text(spec.AdminKey); err != nil {
			return nil, err
		}
		var answer struct {
			Spokes []standing `json:"spokes"`
		}
		if err := ask.hubJSON(ctx, base+"/spokes", &answer); err != nil {
			return nil, err
		}
		return byCode(answer.Spokes), nil
	}
	known := map[string]standing{}
	for _, code := range t.asked(spec) {
		one := standing{}
		ask.address = base + "/registration/" + url.PathEscape(code) + "/status"
		got, err := ask.get(ctx)
		if err == nil && got.status == http.StatusNotFound {
			continue
		}
		if err == nil {
			err = got.json(ask.address, &one)
		}
		if err != nil {
			return nil, err
		}
		known[code] = one
	}
	var health struct {
		Silent []standing `json:"unhealthySpokes"`
	}
	if err := ask.hubJSON(ctx, base+"/health", &health); err != nil {
		return nil, err
	}
	for code, silent := range byCode(health.Silent) { // the hub's own record is among them, and asked for by nobody
		if one, ok := known[code]; ok {
			one.Heartbeat, one.silent = silent.Heartbeat, true
			known[code] = one
		}
	}
	return known, nil
}

// asked are the codes whose status is asked for one by one.
func (t *try) asked(spec *Federation) (codes []string) {
	if t.target.Instance.Role == desired.RoleSpoke {
		return []string{codeOf(t.target.Instance)}
	}
	for name, instance := range t.target.Fleet.Instances {
		if instance.Role == desired.RoleSpoke && (spec.Both == allSpokes || spec.Both == name) {
			codes = append(codes, codeOf(instance))
		}
	}
	return codes
}

// byCode sorts records by their code; of several with one code the approved one counts.
func byCode(records []standing) map[string]standing {
	known := map[string]standing{}
	for _, one := range records {
		if have, twice := known[one.Code]; !twice || have.Status != approved {
			known[one.Code] = one
		}
	}
	return known
}

func (r request) hubJSON(ctx context.Context, address string, into any) error {
	r.address = address
	got, err := r.get(ctx)
	if err != nil {
		return err
	}
	if got.status == http.StatusUnauthorized {
		return fmt.Errorf("%s: the hub refuses the admin key (401)", address)
	}
	return got.json(address, into)
}

// hub is where the hub's federation service is, and how it is trusted: by the authority that the check names, or fleet.yaml.
func (t *try) hub(spec *Federation) (base string, config *tls.Config, err error) {
	if base, err = t.text(spec.URL); err != nil {
		return "", nil, err
	}
	if base == "" {
		base = t.target.Fleet.Hub.URL
	}
	ca, err := t.authorities(spec.Trust)
	if err != nil {
		return "", nil, err
	}
	if ca == "" {
		ca = t.target.Fleet.Hub.CA
	}
	config, err = t.trusting(ca, "")
	return strings.TrimRight(base, "/") + "/api/federation", config, err
}

// links counts the links between this instance and its partners, and names those that are missing.
func (t *try) links(ctx context.Context, spec *Federation, own string, partners []string) (missing []string, links int, err error) {
	db, err := t.mongoDatabase(ctx, &Mongo{MongoPlace: spec.MongoPlace})
	if err != nil {
		return nil, 0, err
	}
	if db.Name() == "" {
		return nil, 0, errors.New("the connection string names no database, and the check neither")
	}
	codes := append([]string{own}, partners...)
	found, err := db.Collection(spec.Collection).Find(ctx, bson.D{{Key: "sourceCountry", Value: bson.D{{Key: "$in", Value: codes}}}})
	if err != nil {
		return nil, 0, mongoError(err)
	}
	var rows []struct {
		Source  string   `bson:"sourceCountry"`
		Trusted []string `bson:"trustedCountries"`
	}
	if err := found.All(ctx, &rows); err != nil {
		return nil, 0, mongoError(err)
	}
	trusts := map[string][]string{}
	for _, row := range rows {
		trusts[row.Source] = append(trusts[row.Source], row.Trusted...)
	}
	for _, partner := range partners {
		for _, pair := range [][2]string{{own, partner}, {partner, own}} {
			if slices.Contains(trusts[pair[0]], pair[1]) {
				links++
			} else {
				missing = append(missing, pair[0]+" -> "+pair[1])
			}
		}
	}
	return missing, links, nil
}
