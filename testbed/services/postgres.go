package main

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// auditSchema is what the backend keeps in PostgreSQL. Making it twice changes nothing.
const auditSchema = `
CREATE TABLE IF NOT EXISTS audit_log (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz NOT NULL DEFAULT now(),
	event text NOT NULL, subject text, detail jsonb);
CREATE TABLE IF NOT EXISTS authorization_log (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz NOT NULL DEFAULT now(),
	subject text NOT NULL, resource text NOT NULL, allowed boolean NOT NULL, reason text);
CREATE TABLE IF NOT EXISTS federation_log (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz NOT NULL DEFAULT now(),
	partner text NOT NULL, event text NOT NULL, detail jsonb);
CREATE OR REPLACE VIEW recent_authorization_denials AS
	SELECT * FROM authorization_log WHERE NOT allowed AND at > now() - interval '1 day';
CREATE OR REPLACE VIEW federation_activity_summary AS
	SELECT partner, event, count(*) AS events, max(at) AS latest FROM federation_log GROUP BY partner, event;
CREATE OR REPLACE FUNCTION cleanup_old_audit_records(keep interval) RETURNS bigint LANGUAGE sql AS $$
	WITH gone AS (DELETE FROM audit_log WHERE at < now() - keep RETURNING 1) SELECT count(*) FROM gone $$;
`

// schemaLock is the advisory lock under which the schema is made, since two services may start at once.
const schemaLock = 7203118

// postgresCheck makes the audit tables once the server answers, and then writes an audit record now and then.
func postgresCheck(url, role string) check {
	var once sync.Mutex
	made := false
	return check{name: "postgres", run: func(ctx context.Context) (map[string]any, error) {
		once.Lock()
		defer once.Unlock()
		conn, err := pgx.Connect(ctx, url)
		if err != nil {
			return nil, explainPostgres(err)
		}
		defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
		if !made {
			if err := makeAuditTables(ctx, conn, role); err != nil {
				return nil, err
			}
			made = true
		}
		return nil, conn.Ping(ctx)
	}}
}

func makeAuditTables(ctx context.Context, conn *pgx.Conn, role string) error {
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", schemaLock); err != nil {
			return fmt.Errorf("lock the audit tables: %w", err)
		}
		if _, err := tx.Exec(ctx, auditSchema); err != nil {
			return fmt.Errorf("make the audit tables: %w", err)
		}
		_, err := tx.Exec(ctx, "INSERT INTO audit_log (event, subject) VALUES ('service started', $1)", role)
		return err
	})
}

// explainPostgres keeps a connection string that cannot be read out of the error: it holds the password.
func explainPostgres(err error) error {
	var parse *pgconn.ParseConfigError
	if errors.As(err, &parse) {
		return errors.New("config: POSTGRES_URL is no PostgreSQL connection string")
	}
	return err
}
