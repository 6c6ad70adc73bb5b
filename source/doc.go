// Package source follows one branch of one Git remote and keeps its content on disk as immutable snapshots.
//
// A revision that it hands out was proven: every byte hashes to what its commit names, the commit descends from the
// last accepted one, and its tree keeps to the limits and holds nothing that could leave the snapshot's folder. Whatever
// the remote does (hang, lie, rewrite the branch, vanish), the last accepted revision stays in force,
// on disk too, so that a start without Git works.
//
//	Poll     asks for one ref and, when it moved, fetches, proves and writes what is new
//	Accept   makes a revision the baseline: what later ones must descend from, and what a restart finds
//	Refuse   remembers that a revision was found invalid, so that this process does not fetch and judge it again
//	Watch    polls on a schedule with backoff, and when woken
//	Keep     removes the snapshots that nobody needs
//
// What a poll and a fetch cost does not grow with the history: between two polls the package keeps the trees of
// the accepted revision in memory and its files in the snapshot, from where unchanged files are linked.
//
// The package knows nothing of manifests: what a tree means, and whether it is valid, is for others to say.
//
// # What a tree may contain
//
// Plain and executable files, folders, and symbolic links that lead to a file or folder of the same tree (they stay
// links in the snapshot). Refused, with the path and the reason: submodules, links that leave the tree, dangle, go round in
// a circle or lead to a folder around themselves; names with a slash, a backslash, control or invisible
// characters, invalid UTF-8; ".", "..", ".git" in any spelling; two names in a folder that differ only in case;
// trees that Git itself would call malformed; and everything over a limit of [Limits].
package source
