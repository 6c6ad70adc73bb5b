//go:build race

package compose

// raceFactor is what the race detector makes of a bar of time or memory.
const raceFactor = 10
