package testbed

import "context"

// Program builds a main package of this module, such as "./testbed/gitserver/cmd/gitserver", as a static program and
// returns its path.
func Program(ctx context.Context, pkg string) (string, error) { return goBinary(ctx, pkg) }
