package gitremote

import "io"

// Limits bound what one operation may take from the remote. Zero fields take the default.
type Limits struct {
	// Refs bounds the bytes of an answer that lists refs. Default 16 MiB, some 200,000 refs.
	Refs int64
	// Wire bounds the bytes of an answer that carries a pack. Default 64 MiB.
	Wire int64
	// Inflated bounds the sum of the sizes of all objects of a pack. Default 160 MiB.
	Inflated int64
	// Object bounds the size of one object. Default 16 MiB.
	Object int64
	// Objects bounds the number of objects in a pack. Default 200,000.
	Objects int64
}

// maxErrorBody is how much of an HTTP error's body is read, in bytes.
const maxErrorBody = 4 << 10

func (l Limits) withDefaults() Limits {
	def := func(v *int64, d int64) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&l.Refs, 16<<20)
	def(&l.Wire, 64<<20)
	def(&l.Inflated, 160<<20)
	def(&l.Object, 16<<20)
	def(&l.Objects, 200_000)
	return l
}

// limitedReader fails with a *LimitError instead of giving more than limit bytes. The error stays.
type limitedReader struct {
	r     io.Reader
	limit int64
	read  int64
}

func (l *limitedReader) Read(p []byte) (int, error) {
	left := l.limit - l.read
	if left < 0 {
		return 0, &LimitError{What: "bytes of answer", Limit: l.limit}
	}
	if int64(len(p)) > left+1 {
		p = p[:left+1]
	}
	n, err := l.r.Read(p)
	l.read += int64(n)
	if l.read > l.limit {
		return n - int(l.read-l.limit), &LimitError{What: "bytes of answer", Limit: l.limit}
	}
	return n, err
}
