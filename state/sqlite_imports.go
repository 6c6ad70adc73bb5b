package state

import "fmt"

const importColumns = "instance, host, commit_id, committed, generation, content, revision"

func scanImport(row scanner) (Import, error) {
	var i Import
	var committed int64
	err := row.Scan(&i.Instance, &i.Host, &i.Commit, &committed, &i.Generation, &i.Content, &i.Revision)
	i.Committed = fromNanos(committed)
	if len(i.Content) == 0 {
		i.Content = nil
	}
	return i, err
}

func (r *reader) Imports() ([]Import, error) {
	return list(r, "read what other instances published", scanImport, "SELECT "+importColumns+" FROM imports ORDER BY instance")
}

func (w *writer) PutImport(i Import) error {
	content := i.Content
	if content == nil {
		content = []byte{}
	}
	return w.change(fmt.Sprintf("write what %q published", i.Instance), "INSERT OR REPLACE INTO imports ("+importColumns+") VALUES (?, ?, ?, ?, ?, ?, ?)",
		i.Instance, i.Host, i.Commit, nanos(i.Committed), i.Generation, content, i.Revision)
}
