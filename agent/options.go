package agent

import (
	"context"
	"io"
	"log/slog"
	"time"

	"dive-agent/desired"
	"dive-agent/reconcilers"
	"dive-agent/report"
	"dive-agent/secrets"
	"dive-agent/source"
	"dive-agent/state"
)

// Options is what an agent is made of. Everything from outside comes in here, so that tests can hold it.
type Options struct {
	Host      string // name of this host in the fleet
	MachineID string // of this machine; instances are bound to it from their first run on
	Dir       string // state folder; snapshots and instances live below it

	HostKeys   string // folder of the host's own keys; empty: it has none, and nothing is signed but by SigningKey
	SigningKey []byte // SSH private key in PEM that signs status commits in place of the host's own; nil: none does

	Store       state.Store
	IDs         *state.IDs
	Kinds       []desired.Kind
	Allow       []string // what this host allows in manifests beyond the usual: see desired.Options
	Reconcilers map[string]reconcilers.Reconciler
	Secrets     Secrets
	Redactor    *secrets.Redactor // knows every secret value of this host
	Reporter    Reporter          // nil: nothing leaves the host
	Statuses    Statuses          // of other instances; nil: nobody reads them
	Clock       reconcilers.Clock
	Random      io.Reader
	Log         *slog.Logger

	Resync time.Duration // how often an instance in sync is looked at again; default 5 min
	// Failpoint, when set, is called before and after each recorded change with its name. Tests crash in it.
	Failpoint func(point string)
}

// Secrets gives an instance's secrets, made once.
type Secrets interface {
	// Ensure makes what was never made, looks up what comes from elsewhere and is due, and reads the rest. Its errors are those of
	// a node: a BlockedError when one is lost, must be provided, or was never had from where it comes.
	Ensure(ctx context.Context, instance *desired.Instance, q SecretsQuery) (secrets.Result, error)
	// Peek reads what exists and makes nothing; what does not exist yet is an unknown secret. With missing, a BlockedError,
	// Ensure would end.
	Peek(ctx context.Context, instance *desired.Instance, dir string) (values map[string]desired.Value, missing, err error)
	// Former gives values that secrets had before and that may be in use yet, newest first.
	Former(instance *desired.Instance, dir string) (map[string][]desired.Value, error)
	// Forget removes the former values of secrets whose given value is in use everywhere. Those that it names have another
	// value now, which is to be taken into use next.
	Forget(ctx context.Context, instance *desired.Instance, dir string, inUse map[string]desired.Value) (goOn []string, err error)
}

// SecretsQuery is what Ensure has to know of an instance.
type SecretsQuery struct {
	Dir     string // the instance's secrets folder
	Source  string // its source folder in the snapshot, where its files of SOPS are
	All     bool   // a person asked: what comes from elsewhere is looked up, due or not
	HasData func(context.Context) ([]string, error)
}

// Reporter takes the status of an instance; it returns once the report cannot be lost any more.
type Reporter interface {
	Publish(ctx context.Context, tx state.Tx, status *report.Status, event state.Event) error
}

// Revision is a commit of the fleet repository whose tree lies on this host.
type Revision = source.Revision
