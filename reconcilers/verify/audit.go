package verify

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// auditQuery lists what a schema has, by kind, and the server's databases: the catalogues, which every user may read
// (PostgreSQL manual, chapter "System Catalogs").
const auditQuery = `
SELECT CASE WHEN c.relkind IN ('r', 'p') THEN 'table' ELSE 'view' END, c.relname::text
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relkind IN ('r', 'p', 'v', 'm') AND c.relname::text = ANY ($2)
UNION SELECT 'function', p.proname::text
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname = $1 AND p.proname::text = ANY ($2)
UNION SELECT 'database', d.datname::text
FROM pg_catalog.pg_database d WHERE d.datname::text = ANY ($3)`

// audit looks for tables, views, functions and databases by their names.
func (t *try) audit(ctx context.Context, spec *Audit) outcome {
	conn, err := t.postgres(ctx, &spec.Postgres)
	if err != nil {
		return failed(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	schema := spec.Schema
	if schema == "" {
		schema = "public"
	}
	tables, views, functions := spec.wanted()
	databases := spec.Databases
	if databases == nil {
		databases = []string{}
	}
	rows, err := conn.Query(ctx, auditQuery, pgx.QueryExecModeExec, schema, slices.Concat(tables, views, functions), databases)
	if err != nil {
		return failed(fmt.Errorf("read the catalogues: %w", err))
	}
	type thing struct{ kind, name string }
	found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (one thing, err error) {
		err = row.Scan(&one.kind, &one.name)
		return one, err
	})
	if err != nil {
		return failed(fmt.Errorf("read the catalogues: %w", err))
	}
	have := map[thing]bool{}
	for _, one := range found {
		have[one] = true
	}
	var seen, missing []string
	o := outcome{passed: true}
	for _, wanted := range []struct {
		kind, many string
		names      []string
	}{{"table", "tables", tables}, {"view", "views", views}, {"function", "functions", functions}, {"database", "databases", databases}} {
		n := 0
		for _, name := range wanted.names {
			if have[thing{wanted.kind, name}] {
				n++
			} else {
				missing = append(missing, wanted.kind+" "+name)
			}
		}
		if len(wanted.names) > 0 {
			o = o.count(wanted.many, int64(n))
			seen = append(seen, fmt.Sprintf("%d %s", n, plural(n, wanted.kind, wanted.many)))
		}
	}
	o.saw = strings.Join(seen, ", ")
	if len(missing) > 0 {
		o.passed, o.saw = false, "missing: "+strings.Join(missing, ", ")
	}
	return o.count("missing", int64(len(missing)))
}
