package published

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"time"
)

// Value is one output that an instance publishes now.
type Value struct {
	Key
	Text string
	Type string // JSON, or empty
	// Known is false while nobody can tell the value: what was published of it stays.
	Known bool
	// Secret values are sealed to Readers; one without readers is not published.
	Secret  bool
	Readers []Reader
}

// Reader is a host that reads a secret value.
type Reader struct {
	Host       string
	Recipients []string // age1...
}

// Record is what the publishing host keeps: the document, and by what each sealed value is known again.
type Record struct {
	Document Document `json:"document"`
	// Seals has for each sealed output a keyed digest of value and readers. It says nothing to who has not the key.
	Seals map[string]string `json:"seals,omitempty"`
}

// Next gives the record after a change to these values at a time; changed says whether the document is another one. What did not
// change stays as it is, to the byte: a value is sealed anew when it or its readers change, and when the instance moved. key
// never leaves the host. last may be nil.
func Next(last *Record, instance, host string, values []Value, key []byte, now time.Time) (next *Record, changed bool, err error) {
	n := &succession{key: key, before: last, next: &Record{Seals: map[string]string{}}, now: now.UTC().Truncate(time.Second)}
	n.next.Document = Document{APIVersion: APIVersion, Kind: Kind, Instance: instance, Host: host, Generation: now.Unix()}
	if last != nil {
		n.next.Document.Generation = max(last.Document.Generation+1, now.Unix())
	}
	if last == nil || last.Document.Instance != instance || last.Document.Host != host {
		n.before, n.changed = &Record{}, true
	}
	values = slices.Clone(values)
	slices.SortFunc(values, func(a, b Value) int { return a.Key.compare(b.Key) })
	for _, v := range values {
		if err := n.add(v); err != nil {
			return nil, false, err
		}
	}
	if !n.changed && len(n.next.Document.Outputs) == len(n.before.Document.Outputs) {
		return last, false, nil
	}
	if last == nil && len(n.next.Document.Outputs) == 0 { // it never published anything
		return nil, false, nil
	}
	_, err = n.next.Document.Encode()
	return n.next, err == nil, err
}

// succession is the making of a record after another one.
type succession struct {
	key     []byte
	before  *Record
	next    *Record
	now     time.Time
	changed bool
}

func (n *succession) add(v Value) error {
	old := n.before.Document.Find(v.Key)
	readers, recipients := v.readers()
	fresh := Output{Component: v.Component, Name: v.Name, For: v.For, Generation: n.next.Document.Generation, Since: n.now}
	switch {
	case !v.Known:
		if old != nil && (old.Sealed != "") == v.Secret { // one that is secret now does not stay plain
			n.keep(*old)
		}
		return nil
	case v.Secret && len(recipients) == 0:
		return nil
	case v.Secret:
		mark := v.mark(n.key, readers, recipients)
		if old != nil && old.Sealed != "" && n.before.Seals[v.Key.String()] == mark {
			n.keep(*old)
			return nil
		}
		sealed, err := Seal(n.next.Document.Place(&fresh), v.Text, v.Type, recipients)
		if err != nil {
			return err
		}
		fresh.Sealed, fresh.Readers = sealed, readers
		n.next.Seals[v.Key.String()] = mark
	default:
		if old != nil && old.Value != nil && *old.Value == v.Text && old.Type == v.Type {
			n.keep(*old)
			return nil
		}
		fresh.Value, fresh.Type = &v.Text, v.Type
	}
	n.changed = true
	n.next.Document.Outputs = append(n.next.Document.Outputs, fresh)
	return nil
}

func (n *succession) keep(o Output) {
	n.next.Document.Outputs = append(n.next.Document.Outputs, o)
	if mark, ok := n.before.Seals[o.Key().String()]; ok {
		n.next.Seals[o.Key().String()] = mark
	}
}

// readers are the hosts that can open the value, and all their recipients, each once and in order.
func (v Value) readers() (hosts, recipients []string) {
	for _, r := range v.Readers {
		if len(r.Recipients) > 0 {
			hosts, recipients = append(hosts, r.Host), append(recipients, r.Recipients...)
		}
	}
	slices.Sort(hosts)
	slices.Sort(recipients)
	return slices.Compact(hosts), slices.Compact(recipients)
}

// mark tells whether a sealed value has to be sealed anew.
func (v Value) mark(key []byte, readers, recipients []string) string {
	h := hmac.New(sha256.New, key)
	fmt.Fprintf(h, "%q %q %q %q %q %q %q", v.Component, v.Name, v.For, v.Type, v.Text, readers, recipients) // a hash takes all
	return hex.EncodeToString(h.Sum(nil))
}
