package desired

import "sync"

// memo keeps what was computed about one source folder during one Load.
type memo struct{ entries sync.Map }

// Once computes something about the instance's source folder once for all instances that share the folder, such as
// the variables of a Terraform module. f must depend on c.Files and on key alone; nobody may change what it gives.
func Once[T any](c *Check, key string, f func() T) T {
	if c.memo == nil {
		return f()
	}
	entry, _ := c.memo.entries.LoadOrStore(key, sync.OnceValue(func() any { return f() }))
	value, _ := entry.(func() any)().(T) // a nil error or map is the zero T
	return value
}
