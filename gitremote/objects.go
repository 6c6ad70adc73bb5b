package gitremote

import (
	"bytes"
	"errors"
	"io"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/storer"
	"github.com/go-git/go-git/v5/storage/memory"
)

// Objects are the objects of one fetch, or those that a push sends, in memory. Not safe for concurrent
// writes; reads are.
type Objects struct {
	store *memory.Storage
	order []plumbing.Hash

	// Count and Bytes are the number of objects and the sum of their sizes.
	Count int
	Bytes int64
	// Wire is the size of the pack as it came, 0 for objects that did not come in one.
	Wire int64
	// Shallow are the commits at which the remote cut the history.
	Shallow []plumbing.Hash
}

// NewObjects is an empty collection, to build what a push sends.
func NewObjects() *Objects { return &Objects{store: memory.NewStorage()} }

// Storer gives the objects to go-git's own functions.
func (o *Objects) Storer() storer.EncodedObjectStorer { return o.store }

// Has says whether the object is there.
func (o *Objects) Has(h plumbing.Hash) bool { return o.store.HasEncodedObject(h) == nil }

// Commit reads a commit; plumbing.ErrObjectNotFound when it is not there.
func (o *Objects) Commit(h plumbing.Hash) (*object.Commit, error) {
	return object.GetCommit(o.store, h)
}

// Get reads the content of an object of a type; plumbing.ErrObjectNotFound when there is none such. The content
// must not be changed.
func (o *Objects) Get(t plumbing.ObjectType, h plumbing.Hash) ([]byte, error) {
	e, err := o.store.EncodedObject(t, h)
	if err != nil {
		return nil, err
	}
	return e.(*encoded).content, nil
}

// Put adds an object and returns its id. The content must not be changed afterwards.
func (o *Objects) Put(t plumbing.ObjectType, content []byte) plumbing.Hash {
	e := &encoded{kind: t, content: content, hash: plumbing.ComputeHash(t, content)}
	if o.Has(e.hash) {
		return e.hash
	}
	_, _ = o.store.SetEncodedObject(e) // fails for unknown types only, and callers have none
	o.order = append(o.order, e.hash)
	o.Count++
	o.Bytes += int64(len(content))
	return e.hash
}

// encoded is a plumbing.EncodedObject that does not copy its content.
type encoded struct {
	kind    plumbing.ObjectType
	hash    plumbing.Hash
	content []byte
}

func (e *encoded) Hash() plumbing.Hash         { return e.hash }
func (e *encoded) Type() plumbing.ObjectType   { return e.kind }
func (e *encoded) Size() int64                 { return int64(len(e.content)) }
func (e *encoded) SetType(plumbing.ObjectType) {}
func (e *encoded) SetSize(int64)               {}

func (e *encoded) Reader() (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(e.content)), nil
}

func (e *encoded) Writer() (io.WriteCloser, error) {
	return nil, errors.New("objects are immutable")
}
