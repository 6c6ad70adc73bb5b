// Package desired reads the fleet repository: manifest types, strict loading, blueprints merged with instances,
// expressions, validation, the graph of every instance, collisions on a host, JSON Schema. It reports all mistakes of a
// repository at once, each with its place. It knows no kind of component by name, no engine, no Git and no state.
//
// Load reads and validates a repository. Instance.Scope and Instance.ScopeWith give the names that expressions use,
// Expr.Eval and Tree.Eval give values. Everything that Load returns is read only and safe for concurrent use.
package desired
