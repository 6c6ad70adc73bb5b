package e2e

import (
	"slices"
	"testing"

	"dive-agent/testbed"
)

// scene is one change of what a replica set should be.
type scene struct {
	name   string
	change func(r *replicas) // of the manifest, which is merged; nil: it stays
	rotate string            // secret that gets another value; empty: none
}

func members(n int) func(*replicas) { return func(r *replicas) { r.members = numbered(n) } }

// scenes go through the life of a set: small, large, smaller again, under another name, with other passwords, upgraded.
func scenes(t *testing.T) []scene {
	image := testbed.Image(t, testbed.Mongod6027)
	return []scene{
		{name: "initiate one", change: members(1)},
		{name: "grow to three", change: members(3)},
		{name: "grow to five", change: members(5)},
		{name: "shrink to three", change: members(3)},
		{name: "rename a host", change: func(r *replicas) { r.members[1] = "db-2" }},
		{name: "rotate a user's password", rotate: "APP_PASSWORD"},
		{name: "rotate the administrator's password", rotate: "MONGO_PASSWORD"},
		{name: "upgrade", change: func(r *replicas) { r.image = image }},
	}
}

// scenesNamed picks scenes.
func scenesNamed(t *testing.T, names ...string) []scene {
	return slices.DeleteFunc(scenes(t), func(s scene) bool { return !slices.Contains(names, s.name) })
}
