//go:build !race

package compose

// raceFactor widens bars under the race detector.
const raceFactor = 1
