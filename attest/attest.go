// Package attest checks what status branches say against the fleet: that each was written by the host that the merged
// manifest binds the instance to. Whoever may push to the repository can write any branch; who has no key of the host
// is found out here. The package changes nothing, and remembers nothing: that an old status was put back is told by its age.
package attest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"

	"dive-agent/desired"
	"dive-agent/gitremote"
	"dive-agent/published"
	"dive-agent/report"
	"dive-agent/source"
)

// Verdict is what a check of one branch ended with.
type Verdict string

// The verdicts. Only Verified says that the host wrote it.
const (
	Verified  Verdict = "verified"
	Refused   Verdict = "refused"    // not signed by a key of the host, or a document of another place
	FormerKey Verdict = "former key" // signed by a key that was the host's and is listed no more
	NoKey     Verdict = "no key"     // the merged fleet knows no key of the host
	Missing   Verdict = "missing"    // there is no such branch
	Unread    Verdict = "unread"     // it could not be fetched
	Stranger  Verdict = "stranger"   // a branch of no instance of the fleet: nobody can vouch for it
	Record    Verdict = "removed"    // the record of a removed instance, by the host that it names, which the fleet still has
)

// Aside says whether the branch is of no instance of the fleet: it is told of, and neither right nor wrong.
func (v Verdict) Aside() bool { return v == Stranger || v == Record }

// Result is the check of one branch.
type Result struct {
	Instance string    `json:"instance"`
	Host     string    `json:"host,omitempty"`
	Verdict  Verdict   `json:"verdict"`
	Why      string    `json:"why,omitempty"`
	Do       string    `json:"do,omitempty"`
	Commit   string    `json:"commit,omitempty"`
	Key      string    `json:"key,omitempty"` // fingerprint of the key that signed
	Written  time.Time `json:"written,omitzero"`
	Phase    string    `json:"phase,omitempty"` // of a verified status
}

// Stale says whether a verified status is older than its agent lets one get, which writes each 15 minutes: the host is away,
// or somebody put an old status back.
func (r Result) Stale(now time.Time) bool { return r.Verdict == Verified && now.Sub(r.Written) > stale }

const (
	stale = 45 * time.Minute
	// ahead is how far another host's clock may be ahead of this one's.
	ahead = 10 * time.Minute
	// fetches is how many branches are fetched at a time.
	fetches = 4
)

// Limits are enough for any status branch.
var Limits = gitremote.Limits{Wire: 16 << 20, Inflated: 32 << 20, Object: 8 << 20, Objects: 2000}

// Options of a check.
type Options struct {
	Remote *gitremote.Remote // that holds the branches; its limits bound what one may bring
	Prefix string            // of the branches' names; default "status/"
	Now    func() time.Time
	// Former says until when a key, "type base64", stood in a host's file, as people read it; empty: never, or nobody knows. nil:
	// nobody knows of any.
	Former func(host, key string) string
}

// Check checks the branches of the named instances; with no name, those of all instances, and of those that were removed.
// The results are in the order of names. An error means that the remote could not be asked, or that a name is neither an
// instance's nor a branch's.
func Check(ctx context.Context, fleet *desired.Fleet, names []string, o Options) ([]Result, error) {
	if o.Prefix == "" {
		o.Prefix = "status/"
	}
	all := len(names) == 0
	if all {
		names = slices.Collect(maps.Keys(fleet.Instances))
	}
	heads, err := o.Remote.Refs(ctx, plumbing.NewBranchReferenceName(o.Prefix).String())
	if err != nil {
		return nil, err
	}
	branch := func(name string) plumbing.Hash { return heads[plumbing.NewBranchReferenceName(o.Prefix+name)] }
	for ref := range heads {
		if name := strings.TrimPrefix(ref.Short(), o.Prefix); all && fleet.Instances[name] == nil {
			names = append(names, name)
		}
	}
	for _, name := range names {
		if fleet.Instances[name] == nil && branch(name).IsZero() {
			return nil, fmt.Errorf("the fleet has no instance %q%s", name, desired.HintOr(name, slices.Sorted(maps.Keys(fleet.Instances))))
		}
	}
	results := make([]Result, len(names))
	slots := make(chan struct{}, fetches)
	var group sync.WaitGroup
	for i, name := range names {
		group.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			if instance := fleet.Instances[name]; instance != nil {
				results[i] = o.check(ctx, fleet, instance, branch(name))
			} else {
				results[i] = o.aside(ctx, fleet, name, branch(name))
			}
		})
	}
	group.Wait()
	slices.SortFunc(results, func(a, b Result) int { return strings.Compare(a.Instance, b.Instance) })
	return results, ctx.Err()
}

// aside is what is told of a branch of no instance: the record of one that was removed, or nothing that counts.
func (o Options) aside(ctx context.Context, fleet *desired.Fleet, name string, head plumbing.Hash) Result {
	none := Result{Instance: name, Verdict: Stranger, Commit: head.String(), Why: "the fleet has no instance of that name: it was removed, or somebody made the branch up"}
	objects, err := o.Remote.Fetch(ctx, head, nil, 1)
	if err != nil {
		return none
	}
	commit, err := objects.Commit(head)
	if err != nil {
		return none
	}
	content, err := fileOf(commit, "status.yaml")
	if err != nil {
		return none
	}
	status, err := report.Parse(content)
	if err != nil || fleet.Hosts[status.Host] == nil {
		return none
	}
	r := o.signed(Result{Instance: name, Host: status.Host, Commit: head.String()}, commit, fleet.Hosts[status.Host].SigningKeys)
	if r.Verdict != Verified || status.Phase != report.Removed && status.Phase != report.Removing {
		return none
	}
	r.Verdict = Record
	return r
}

func (o Options) check(ctx context.Context, fleet *desired.Fleet, instance *desired.Instance, head plumbing.Hash) Result {
	r := Result{Instance: instance.Name, Host: instance.Host}
	var keys []string
	if host := fleet.Hosts[instance.Host]; host != nil {
		keys = host.SigningKeys
	}
	if head.IsZero() {
		return r.end(Missing, "there is no branch "+o.Prefix+instance.Name, "its agent writes it once it has taken the manifest: see the log on "+instance.Host)
	}
	r.Commit = head.String()
	if _, err := source.HostSigners(instance.Host, keys); err != nil {
		return r.end(NoKey, err.Error(), "")
	}
	objects, err := o.Remote.Fetch(ctx, head, nil, 1)
	if err != nil {
		return r.end(Unread, err.Error(), "")
	}
	commit, err := objects.Commit(head)
	if err != nil {
		return r.refuse("commit " + gitremote.Short(r.Commit) + " cannot be read: " + err.Error())
	}
	return o.signed(r, commit, keys)
}

// signed judges what a branch holds by the keys of the host that it has to be of.
func (o Options) signed(r Result, commit *object.Commit, keys []string) Result {
	signers, err := source.HostSigners(r.Host, keys)
	if err != nil {
		return r.end(NoKey, err.Error(), "")
	}
	r.Written = commit.Committer.When.UTC()
	r.Key, err = signers.KeyOf(commit)
	var untrusted *source.UntrustedKeyError
	if errors.As(err, &untrusted) {
		r.Key = source.Fingerprint(untrusted.Key)
		if until := o.former(r.Host, untrusted.Key); until != "" && signedWith(commit, r.Host, untrusted.Key) {
			return r.end(FormerKey, fmt.Sprintf("it is signed with a former key of %s (%s), which its file lists no more since %s", r.Host, r.Key, until),
				"the next status of its agent, within 15 min, is signed with the present one; if none comes, somebody has the former key")
		}
	}
	if err != nil {
		return r.refuse(err.Error())
	}
	if r.Written.After(o.Now().Add(ahead)) {
		return r.end(Refused, "it says that it is of "+r.Written.Format(time.RFC3339)+", which is still to come", "set the clock of "+r.Host+", or of this machine")
	}
	phase, why := place(commit, r)
	if why != "" {
		return r.refuse(why)
	}
	r.Verdict, r.Phase = Verified, string(phase)
	return r
}

func (o Options) former(host, key string) string {
	if o.Former == nil {
		return ""
	}
	return o.Former(host, key)
}

// signedWith says whether a key that is not trusted did sign a commit.
func signedWith(c *object.Commit, host, key string) bool {
	signers, err := source.HostSigners(host, []string{key})
	if err == nil {
		_, err = signers.Verify(c)
	}
	return err == nil
}

func (r Result) end(v Verdict, why, do string) Result {
	r.Verdict, r.Why, r.Do = v, why, do
	return r
}

func (r Result) refuse(why string) Result {
	return r.end(Refused, why, "nothing in it counts: find out who else than the agent of "+r.Host+" writes to the branch. What the agent tells next takes its place")
}

// place says whether the documents of a branch are those of its instance and host; why is empty when they are.
func place(c *object.Commit, r Result) (phase report.Phase, why string) {
	content, err := fileOf(c, "status.yaml")
	if err != nil {
		return "", "its status.yaml cannot be read: " + err.Error()
	}
	status, err := report.Parse(content)
	if err != nil {
		return "", "its status.yaml: " + err.Error()
	}
	if status.Instance != r.Instance || status.Host != r.Host {
		return "", fmt.Sprintf("its status.yaml is of instance %q on host %q", status.Instance, status.Host)
	}
	content, err = fileOf(c, published.File)
	if errors.Is(err, object.ErrFileNotFound) {
		return status.Phase, ""
	}
	if err != nil {
		return "", "its " + published.File + " cannot be read: " + err.Error()
	}
	outputs, err := published.Decode(content)
	if err != nil {
		return "", "its " + published.File + ": " + err.Error()
	}
	if outputs.Instance != r.Instance || outputs.Host != r.Host {
		return "", fmt.Sprintf("its %s is of instance %q on host %q", published.File, outputs.Instance, outputs.Host)
	}
	return status.Phase, ""
}

func fileOf(c *object.Commit, name string) ([]byte, error) {
	file, err := c.File(name)
	if err != nil {
		return nil, err
	}
	reader, err := file.Reader()
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(reader)
	return content, errors.Join(err, reader.Close())
}

// AllowedSigners is a list of hosts' keys as ssh-keygen(1), "ALLOWED SIGNERS", has it, for plain `git verify-commit`
// (gpg.ssh.allowedSignersFile): the principal is the host. With names, those of the hosts of these instances.
func AllowedSigners(fleet *desired.Fleet, names []string) (string, error) {
	hosts := map[string][]string{} // host -> instances
	for name, instance := range fleet.Instances {
		if len(names) == 0 || slices.Contains(names, name) {
			hosts[instance.Host] = append(hosts[instance.Host], name)
		}
	}
	for _, name := range names {
		if fleet.Instances[name] == nil {
			return "", fmt.Errorf("the fleet has no instance %q%s", name, desired.HintOr(name, slices.Sorted(maps.Keys(fleet.Instances))))
		}
	}
	var b strings.Builder
	for _, host := range slices.Sorted(maps.Keys(hosts)) {
		slices.Sort(hosts[host])
		fmt.Fprintf(&b, "# %s writes the status of %s\n", host, strings.Join(hosts[host], ", "))
		if len(fleet.Hosts[host].SigningKeys) == 0 {
			fmt.Fprintf(&b, "# it has no key yet: dive-agent enroll on it prints hosts/%s.yaml\n", host)
		}
		for _, key := range fleet.Hosts[host].SigningKeys {
			fmt.Fprintf(&b, "%s namespaces=\"git\" %s\n", host, key)
		}
	}
	return b.String(), nil
}
