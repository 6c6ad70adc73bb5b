package verify

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"

	"github.com/jackc/pgx/v5"
)

// sql runs one query in a session that cannot write, and looks at the first column of the first row.
func (t *try) sql(ctx context.Context, spec *SQL) outcome {
	query, err := t.text(spec.Query)
	if err != nil {
		return failed(err)
	}
	expect, err := t.tree(spec.Expect)
	if err != nil {
		return failed(err)
	}
	conn, err := t.postgres(ctx, &spec.Postgres)
	if err != nil {
		return failed(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	rows, err := conn.Query(ctx, query, pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		return failed(fmt.Errorf("query: %w", err))
	}
	defer rows.Close()
	if !rows.Next() {
		if rows.Err() != nil {
			return failed(fmt.Errorf("query: %w", rows.Err()))
		}
		return fail("the query gives no row")
	}
	values := rows.RawValues() // as text: the simple protocol sends nothing else
	if len(values) == 0 {
		return fail("the query gives no column")
	}
	saw := "null"
	if values[0] != nil {
		saw = string(values[0])
	}
	told := shownText(saw)
	if saw == "null" || saw == "t" || saw == "f" {
		told = saw
	}
	o := fail("%s, expected %v", told, expect)
	if spec.Expect.IsZero() || sameText(expect, saw) {
		o = pass("%s", told)
	}
	if n, err := strconv.ParseInt(saw, 10, 64); err == nil {
		o = o.count("value", n)
	}
	return o
}

// postgres connects, in a session that cannot write.
func (t *try) postgres(ctx context.Context, spec *Postgres) (*pgx.Conn, error) {
	config, name, err := t.sqlConfig(ctx, spec)
	if err != nil {
		return nil, err
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("connect to PostgreSQL at %s: %w", name, err)
	}
	return conn, nil
}

// sameText says whether what PostgreSQL wrote is the expected value.
func sameText(expect any, saw string) bool {
	switch v := expect.(type) {
	case nil:
		return saw == "null"
	case bool:
		return saw == map[bool]string{true: "t", false: "f"}[v]
	case string:
		return saw == v
	}
	want, err := number(expect)
	if err != nil {
		return false
	}
	got, err := strconv.ParseFloat(saw, 64)
	return err == nil && got == want
}

// sqlConfig says where to connect. The environment of this process counts for nothing in it.
func (t *try) sqlConfig(ctx context.Context, spec *Postgres) (*pgx.ConnConfig, string, error) {
	texts, err := t.texts(spec.URI, spec.User, spec.Password, spec.Database)
	if err != nil {
		return nil, "", err
	}
	uri, name := texts[0], spec.Service
	dialed := ""
	if spec.Service != "" {
		if dialed, err = t.find(ctx, spec.Service, spec.Port); err != nil {
			return nil, "", err
		}
		database := texts[3]
		if database == "" {
			database = texts[1]
		}
		uri = (&url.URL{
			Scheme: "postgres", User: url.UserPassword(texts[1], texts[2]), Path: "/" + database,
			Host: net.JoinHostPort(spec.Service, strconv.Itoa(spec.Port)), RawQuery: "sslmode=prefer",
		}).String()
	}
	config, err := pgx.ParseConfig(uri)
	if err != nil {
		return nil, "", errors.New("the connection string is none of PostgreSQL")
	}
	if name == "" {
		name = config.Host
	}
	config.RuntimeParams = map[string]string{"default_transaction_read_only": "on", "application_name": "dive-agent"}
	config.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil }
	config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		if dialed != "" {
			address = dialed
		} else {
			address = t.locate(ctx, address)
		}
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
	return config, name, nil
}

// locate turns the name of a service in a connection string into its container's address; any other name stays.
func (t *try) locate(ctx context.Context, address string) string {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	port, err := strconv.Atoi(text)
	if err != nil || net.ParseIP(host) != nil {
		return address
	}
	if at, err := t.find(ctx, host, port); err == nil {
		return at
	}
	return address
}
