package desired

// merged lays over on top of base: maps field by field, everything else replaced. Places are kept, so that a mistake
// is reported in the file it stands in. Neither is changed.
func merged(base, over *node) *node {
	switch {
	case over == nil:
		return base
	case base == nil, base.kind != mappingNode, over.kind != mappingNode:
		return over
	}
	out := &node{kind: mappingNode, at: base.at, file: base.file}
	out.fields = make([]field, 0, len(base.fields)+len(over.fields))
	for _, f := range base.fields {
		if value := over.get(f.name); value != nil {
			f.value = merged(f.value, value)
		}
		out.fields = append(out.fields, f)
	}
	for _, f := range over.fields {
		if base.get(f.name) == nil {
			out.fields = append(out.fields, f)
		}
	}
	return out
}
