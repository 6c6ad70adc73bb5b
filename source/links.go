package source

import (
	"strings"

	"github.com/go-git/go-git/v5/plumbing/filemode"
)

const (
	maxLinkHops   = 16
	maxLinkTarget = 1024
	maxLinks      = 1000
)

// checkLinks checks that every link of a tree leads to a file or folder of the tree. dirs are the folders
// from the root to dir.
func (r *treeReader) checkLinks(dir *node, dirs []*node) error {
	dirs = append(dirs[:len(dirs):len(dirs)], dir)
	for _, e := range dir.children {
		switch e.mode {
		case filemode.Dir:
			if err := r.checkLinks(e, dirs); err != nil {
				return err
			}
		case filemode.Symlink:
			hops := 0
			at, reason := follow(dirs, e.target, &hops)
			if reason == "" && containsNode(dirs, at[len(at)-1]) {
				reason = "a link to a folder around itself"
			}
			if reason == "" && holdsLinks(at[len(at)-1]) {
				reason = "a link to a folder that holds links itself"
			}
			if reason != "" {
				return r.refuse(pathOf(dirs, e), "%s (%q)", reason, e.target)
			}
		}
	}
	return nil
}

// follow resolves a target from a folder the way the system would. It returns the nodes from the root to what it found, or
// a reason why it is refused.
func follow(dirs []*node, target string, hops *int) ([]*node, string) {
	if *hops++; *hops > maxLinkHops {
		return nil, "a link that goes round in a circle, or over too many links"
	}
	switch {
	case target == "" || len(target) > maxLinkTarget || strings.ContainsRune(target, 0):
		return nil, "a link without a usable target"
	case strings.HasPrefix(target, "/"):
		return nil, "a link that leaves the tree"
	}
	at := dirs[:len(dirs):len(dirs)]
	for part := range strings.SplitSeq(target, "/") {
		here := at[len(at)-1]
		if here.mode != filemode.Dir {
			return nil, "a link to nothing in the tree"
		}
		switch part {
		case "", ".":
			continue
		case "..":
			if len(at) == 1 {
				return nil, "a link that leaves the tree"
			}
			at = at[: len(at)-1 : len(at)-1]
			continue
		}
		next := here.child(part)
		if next == nil {
			return nil, "a link to nothing in the tree"
		}
		if next.mode != filemode.Symlink {
			at = append(at, next)
			continue
		}
		var reason string
		if at, reason = follow(at, next.target, hops); reason != "" {
			return nil, reason
		}
	}
	return at, ""
}

func containsNode(list []*node, n *node) bool {
	for _, x := range list {
		if x == n {
			return true
		}
	}
	return false
}

// holdsLinks finds what could make those who follow links walk in a circle.
func holdsLinks(n *node) bool {
	for _, c := range n.children {
		if c.mode == filemode.Symlink || holdsLinks(c) {
			return true
		}
	}
	return false
}

func pathOf(dirs []*node, leaf *node) string {
	p := ""
	for _, d := range dirs[1:] {
		p = join(p, d.name)
	}
	return join(p, leaf.name)
}
