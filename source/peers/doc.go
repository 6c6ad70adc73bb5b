// Package peers reads the status branches of other instances, and judges what they publish before anything of it counts.
//
// Whoever may write to the repository that holds status branches can put anything there. What counts is signed by a key of the
// host that the merged fleet binds the instance to, names that instance and that host, and is not older than what was
// taken before. All else is refused, and what was taken last stays.
//
// The package keeps nothing: what was taken is given in, and what is taken is given out, to be kept by the caller.
package peers
