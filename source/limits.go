package source

// Limits bound what a tree may hold. Zero fields take the default.
type Limits struct {
	File    int64 // bytes of one file; default 4 MiB
	Tree    int64 // bytes of all files, each path counted; default 64 MiB
	Entries int   // files, links and folders; default 20,000
	Depth   int   // folders inside each other; default 32
	Path    int   // bytes of one path; default 1,024
}

const maxNameBytes = 255 // of Linux file systems

func (l Limits) withDefaults() Limits {
	if l.File <= 0 {
		l.File = 4 << 20
	}
	if l.Tree <= 0 {
		l.Tree = 64 << 20
	}
	if l.Entries <= 0 {
		l.Entries = 20_000
	}
	if l.Depth <= 0 {
		l.Depth = 32
	}
	if l.Path <= 0 {
		l.Path = 1024
	}
	return l
}
