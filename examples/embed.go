// Package examples holds the example fleet, so that `dive-agent init` can start a repository from it.
package examples

import "embed"

// Desired is the folder desired.
//
//go:embed all:desired
var Desired embed.FS
