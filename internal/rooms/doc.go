// Package rooms holds the rule of which package may import what. The rule is the tables in docs/architecture.md, which
// people read; the test reads them too, and draws the picture there from the imports of the code.
package rooms

//go:generate env UPDATE=1 go test -run TestPicture .
