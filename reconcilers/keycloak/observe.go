package keycloak

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/terraform-exec/tfexec"
	tfjson "github.com/hashicorp/terraform-json"

	"dive-agent/reconcilers"
)

// Reconciler runs Terraform for components of kind Keycloak. What it keeps in memory only saves time.
type Reconciler struct {
	deps   reconcilers.Deps
	probes probes
	memory memory
}

var _ reconcilers.Reconciler = (*Reconciler)(nil)

// New makes a reconciler. It has no side effects.
func New(d reconcilers.Deps) *Reconciler {
	if d.Clock == nil {
		d.Clock = reconcilers.SystemClock{}
	}
	if d.Redact == nil {
		d.Redact = func(s string) string { return s }
	}
	return &Reconciler{deps: d}
}

// observation is what Observe hands to Plan.
type observation struct {
	changes     []reconcilers.Change
	differences map[string][]reconcilers.Difference
	unknown     []string
	content     string
	asks        []string
	held        error
	saved       *saved
	rotation    *rotation
	account     *accounting
	shown       bool // it is one that waits, made at an earlier look
}

// saved is a plan that can be applied.
type saved struct {
	file    string
	serial  int64 // of the state that it was made for
	inputs  *inputs
	apply   *tfexec.Terraform
	plan    *tfjson.Plan
	changes []reconcilers.Change
	anew    bool // the state begins anew: what was there is lost
}

// look is one observation under way.
type look struct {
	*Reconciler
	target reconcilers.Target
	spec   *Spec
	work   *workspace
	record *record
	about  *serverRecord
	module moduleFiles
	in     *inputs
	server *server
	state  *tfState // nil when there is none
	cut    *interruption
	gone   bool              // a realm of the state is not on the server
	read   bool              // the remote state was read in this look
	lost   error             // why the state is begun anew by imports
	admin  *person           // the administrator as the service account sees it; nil when it was not looked for, or is not there
	asked  bool              // a person asks what can be taken over
	met    map[string]string // import ids of what stood in the way of an apply, by address
	notes  []string
}

func (r *Reconciler) open(t reconcilers.Target) (*look, error) {
	spec, ok := t.Component.Spec.(*Spec)
	if !ok {
		return nil, fmt.Errorf("component %s is not of kind %s", t.Component.Name, Kind.Name)
	}
	source, err := readSource(t, spec)
	if err != nil {
		return nil, err
	}
	l := &look{Reconciler: r, target: t, spec: spec, module: source.module}
	if l.work, err = openWorkspace(t, spec, r.deps, source, &r.memory); err != nil {
		return nil, err
	}
	if l.record, err = l.work.record(); err != nil {
		t.Log.Warn("the record of the last apply cannot be read and is kept aside", "error", err)
		if err := os.Rename(l.work.recordFile(), l.work.recordFile()+".unreadable"); err != nil {
			return nil, err
		}
		l.record = &record{}
	}
	l.about = &serverRecord{}
	if err := load(l.work.serverFile(), l.about); err != nil {
		t.Log.Warn("what is known of the server cannot be read and is asked anew", "error", err)
		l.about = &serverRecord{}
	}
	if l.in, err = gather(t, spec, l.work); err != nil {
		return l, err
	}
	l.work.keepsIn(l.here(), t.CopyOf != "")
	return l, nil
}

// Observe compares the live realm with the module when there is a reason to: inputs or module changed, the last
// apply was cut off or is not proved, the drift schedule had a turn. Otherwise it asks the server whether the realm
// is there, and nothing more. It changes nothing in the realm.
func (r *Reconciler) Observe(ctx context.Context, t reconcilers.Target) (reconcilers.Observed, error) {
	if err := ctx.Err(); err != nil {
		return reconcilers.Observed{}, err
	}
	l, err := r.open(t)
	if err != nil {
		return reconcilers.Observed{}, err
	}
	seen := &observation{unknown: l.in.unknown}
	if len(l.in.unknown) > 0 {
		return l.observed(seen, nil), nil
	}
	err = l.run(ctx, seen)
	if ctx.Err() != nil {
		return reconcilers.Observed{}, ctx.Err()
	}
	var (
		wait    *reconcilers.WaitError
		blocked *reconcilers.BlockedError
	)
	if err != nil && !errors.As(err, &wait) && !errors.As(err, &blocked) {
		return reconcilers.Observed{}, err
	}
	return l.observed(seen, err), nil
}

func (l *look) observed(seen *observation, err error) reconcilers.Observed {
	o := reconcilers.Observed{Outputs: l.record.published(l.spec.OutputNames), State: seen, Err: err, Facts: l.facts(), Holds: l.holds()}
	if l.record.Serial > 0 && err == nil {
		o.Started = true
	}
	return o
}

func (l *look) facts() reconcilers.Facts {
	r := l.record
	f := reconcilers.Facts{Values: map[string]any{}, Notes: l.notes}
	if l.about.Version != "" {
		f.Values["version"] = l.about.Version
	}
	if l.accountSettled() {
		f.Values["serviceAccount"] = l.in.account.id
	}
	if r.Serial == 0 {
		return f
	}
	f.Summary = fmt.Sprintf("%d resources", r.Resources)
	f.Values["resources"] = r.Resources
	if len(r.Realms) > 0 {
		f.Values["realm"] = strings.Join(r.Realms, ", ")
	}
	r.Last.tell(f.Values)
	if !r.Compared.IsZero() {
		f.Values["driftChecked"] = r.Compared.UTC().Format(time.RFC3339)
	}
	if len(r.Stuck) > 0 {
		f.Summary += ", does not converge"
		f.Notes = append(f.Notes, "the module does not converge: every plan wants these again, whatever is applied: "+strings.Join(r.Stuck, "; "))
	}
	l.tellDrift(&f)
	return f
}

// run does the steps of an observation, each of which may end it.
func (l *look) run(ctx context.Context, seen *observation) error {
	ahead := l.askAhead(ctx)
	defer ahead.end()
	if l.leftTraces() {
		if err := l.underWay(); err != nil {
			return err
		}
	}
	if err := l.lawful(l.spec, l.module); err != nil {
		return err
	}
	// A crash may have left the variables behind.
	if err := removeIfThere(filepath.Join(l.work.module, variablesFile)); err != nil {
		return err
	}
	if l.cut = l.work.interrupted(); l.cut != nil {
		if err := l.work.room(0); err != nil {
			return err
		}
		if err := l.work.catchUp(l.deps.Clock.Now()); err != nil {
			return fmt.Errorf("read what the last apply did: %w", err)
		}
	}
	if err := l.sameTool(); err != nil {
		return err
	}
	if err := l.findState(ctx); err != nil {
		return err
	}
	if err := l.connect(ctx); err != nil {
		return err
	}
	gone, err := l.realmsGone(ctx, ahead)
	if err != nil {
		return err
	}
	if l.gone = len(gone) > 0; l.gone && l.stale() {
		if err := l.findState(ctx); err != nil { // before that is believed, the state is read anew
			return err
		}
		if gone, err = l.realmsGone(ctx, nil); err != nil {
			return err
		}
		l.gone = len(gone) > 0
	}
	reason := l.reason(gone)
	if !reason && !l.mustProve() && !l.removalDue() || l.stillWaits(seen) {
		return nil
	}
	if err := l.underWay(); err != nil {
		return err
	}
	if err := l.work.room(0); err != nil {
		return err
	}
	if err := l.refusedWho(); err != nil {
		return err
	}
	if err := l.server.ready(ctx); err != nil {
		return err
	}
	if err := l.ask(ctx, seen, reason); err != nil || len(seen.changes) > 0 {
		return err
	}
	if reason {
		if err := l.planRealm(ctx, seen); err != nil || len(seen.changes) > 0 {
			return err
		}
	}
	return l.planRemoval(seen)
}

// planRealm asks Terraform.
func (l *look) planRealm(ctx context.Context, seen *observation) error {
	l.in.tell(l.module)
	l.work.trusts = l.trusted()
	p, err := l.plan(ctx)
	if err == nil && l.work.trusts && l.forPeople(p) {
		l.work.trusts = false
		p, err = l.plan(ctx)
	}
	if err == nil {
		err = l.work.sameVersion(ctx, p.stream.version)
	}
	if err != nil {
		return err
	}
	return l.judge(ctx, seen, p)
}

// trusted says whether a plan of something new may take the state's word for the live realm: the last apply came to its end
// and was proved, no drift is open, nothing waits that people were shown, and the schedule on which the realm is compared is kept.
func (l *look) trusted() bool {
	r := l.record
	return l.target.CopyOf == "" && !l.asked && !l.gone && l.lost == nil && l.cut == nil && l.state != nil && l.state.Serial == r.Serial &&
		!l.work.waits() && r.Verified && r.Begun == "" && len(r.Stuck) == 0 && openDrift(r.Drift) == 0 && !due(l.spec.DriftSchedule, r.Compared, l.deps.Clock.Now())
}

// forPeople says whether somebody is to read the plan before it is applied, who wants to see the realm as it is.
func (l *look) forPeople(p *planned) bool {
	if !p.changes {
		return false
	}
	changes := changesOf(p, l.spec)
	return (&observation{changes: changes, asks: l.asks(changes), held: l.held(changes)}).waits()
}

// connect finds the server.
func (l *look) connect(ctx context.Context) (err error) {
	if err := l.in.locate(ctx, l.target, l.spec); err != nil {
		return err
	}
	if l.server, err = newServer(l.in.url, l.in.ca); err == nil {
		l.server.health, l.server.probe = l.in.health, l.probes.of(l.server, l.in.ca)
		l.memory.doors.put(l.work.dir, door{l.in.url, l.in.ca})
	}
	return err
}

// ask lets the server tell of itself, while the module is prepared where it is to be planned.
func (l *look) ask(ctx context.Context, seen *observation, reason bool) error {
	prepared := make(chan error, 1)
	go func() {
		if !reason {
			prepared <- nil
			return
		}
		prepared <- l.work.prepare(ctx)
	}()
	err := l.prove(ctx, seen)
	if problem := <-prepared; err == nil {
		err = problem
	}
	return err
}

// leftTraces says whether a Terraform may be at work here, or was until somebody killed it. To look through all processes of a
// host for it takes most of the time of a look that finds nothing to do.
func (l *look) leftTraces() bool {
	if l.target.CopyOf != "" || l.record.Begun != "" {
		return true
	}
	for _, trace := range []string{l.work.output(), l.work.begun(), filepath.Join(l.work.module, variablesFile)} {
		if _, err := os.Lstat(trace); err == nil {
			return true
		}
	}
	return false
}

// underWay says that a Terraform of an agent that is gone still works here. It has its own limits and ends by itself; one
// that does not is for a person.
func (l *look) underWay() error {
	if l.target.CopyOf != "" { // the folder is ours alone; the one that it is a copy of is another process's
		live, err := filepath.EvalSymlinks(filepath.Join(l.target.CopyOf, "module"))
		if err == nil && slices.ContainsFunc(processesIn(live), process.changes) {
			return &reconcilers.WaitError{For: "the Terraform run of the agent that is under way"}
		}
		return nil
	}
	pid := terraformRuns(l.work.module)
	if pid == 0 {
		return nil
	}
	info, err := os.Stat(l.work.output())
	if err == nil && time.Since(info.ModTime()) > l.spec.Timeout.Std() {
		return &reconcilers.BlockedError{
			Reason: "TerraformHangs", Message: fmt.Sprintf("process %d, a Terraform that an earlier agent started, has done nothing since %s", pid, info.ModTime().UTC().Format(time.RFC3339)),
			Do: fmt.Sprintf("End it with `kill -INT %d`; the state has what it did", pid),
		}
	}
	return &reconcilers.WaitError{For: "the Terraform run that is under way", Again: time.Second}
}

// realmsGone lists the realms of the state that the server does not have.
func (l *look) realmsGone(ctx context.Context, asked *ahead) ([]string, error) {
	if l.state == nil || len(l.state.realms()) == 0 {
		return nil, l.server.ready(ctx)
	}
	var gone []string
	for _, name := range l.state.realms() {
		if asked.saw(l.server, name) {
			continue
		}
		there, err := l.server.realm(ctx, name)
		if err != nil {
			return nil, err
		}
		if !there {
			gone = append(gone, name)
		}
	}
	if len(gone) > 0 {
		// A server that is still starting has no realm either.
		if err := l.server.ready(ctx); err != nil {
			return nil, err
		}
		l.notes = append(l.notes, fmt.Sprintf("realm %s is in the Terraform state and not on the server. If its database was lost, restore that; approving the plan makes the realm anew, without what people changed in it", strings.Join(gone, ", ")))
	}
	return gone, nil
}

// reason tells whether Terraform must be asked. A person who asks for a plan wants to see the live realm.
func (l *look) reason(gone []string) bool {
	r := l.record
	return l.target.CopyOf != "" || r.Inputs != l.in.digest || !r.Verified || len(gone) > 0 || l.cut != nil ||
		l.state == nil || l.state.Serial != r.Serial || due(l.spec.DriftSchedule, r.Compared, l.deps.Clock.Now())
}
