package verify_test

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"dive-agent/desired"
	"dive-agent/reconcilers"
	"dive-agent/reconcilers/internal/lab"
	"dive-agent/testbed"
)

// runSet starts a replica set rs0 of one member without users, and lets the output database.uri lead there.
func (w *world) runSet() *mongo.Database {
	w.t.Helper()
	w.lab.Run("mongodb", lab.Service{
		Image: testbed.Image(w.t, testbed.Mongod605),
		Command: []string{
			"mongod", "--replSet", "rs0", "--wiredTigerCacheSizeGB", "0.25", "--wiredTigerEngineConfigString", "log=(prealloc=false,file_max=4MB)",
			"--setParameter", "diagnosticDataCollectionEnabled=false", "--bind_ip_all",
		},
	})
	c, err := w.lab.Find(w.t.Context(), "mongodb")
	require.NoError(w.t, err)
	client, err := mongo.Connect(options.Client().ApplyURI("mongodb://" + net.JoinHostPort(c.Addr().String(), "27017") + "/?directConnection=true"))
	require.NoError(w.t, err)
	w.t.Cleanup(func() { _ = client.Disconnect(context.Background()) })
	config := bson.D{{Key: "_id", Value: "rs0"}, {Key: "members", Value: bson.A{bson.D{{Key: "_id", Value: 0}, {Key: "host", Value: "mongodb:27017"}}}}}
	testbed.Eventually(w.t, 30*time.Second, "the set to be initiated", func() error {
		ctx, cancel := context.WithTimeout(w.t.Context(), 5*time.Second)
		defer cancel()
		return client.Database("admin").RunCommand(ctx, bson.D{{Key: "replSetInitiate", Value: config}}).Err()
	})
	testbed.Eventually(w.t, 30*time.Second, "a writable primary", func() error {
		_, err := client.Database("dive").Collection("beats").InsertOne(w.t.Context(), bson.D{})
		return err
	})
	w.target.Scope = w.target.Scope.WithObject("database", map[string]desired.Value{"uri": desired.Secret("mongodb://mongodb:27017/dive?replicaSet=rs0")})
	return client.Database("dive")
}

// protected is a document as the backends protect it; lacks takes a part of that away.
func protected(id string, lacks string) bson.D {
	keys := bson.A{bson.D{{Key: "kasId", Value: "kas"}, {Key: "wrappedKey", Value: "a-wrapped-key-nobody-may-see"}}}
	switch lacks {
	case "keys":
		keys = bson.A{}
	case "ztdf":
		return bson.D{{Key: "_id", Value: id}, {Key: "encrypted", Value: true}}
	}
	return bson.D{
		{Key: "_id", Value: id},
		{Key: "encrypted", Value: lacks != "encrypted"},
		{Key: "ztdf", Value: bson.D{{Key: "payload", Value: bson.D{{Key: "keyAccessObjects", Value: keys}}}}},
	}
}

func (w *world) facts(r reconcilers.Reconciler) map[string]reconcilers.CheckFacts {
	w.t.Helper()
	o, err := r.Observe(w.t.Context(), w.target)
	require.NoError(w.t, err)
	facts := map[string]reconcilers.CheckFacts{}
	for _, c := range o.Facts.Checks {
		facts[c.Name] = c
	}
	return facts
}

// TestEveryDocument: each document of a collection is looked at, what is missing is counted, and nothing of a document is told.
func TestEveryDocument(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	db := w.runSet()
	const every = `{collection: resources, is: {encrypted: true}, nonEmpty: [ztdf.payload.keyAccessObjects]`
	w.checks(`
within: 0s
checks:
  - {name: protected, mongo: {every: ` + every + `}}}
  - {name: some, mongo: {every: ` + every + `, atLeast: 3}}}
  - {name: filtered, mongo: {every: ` + every + `, filter: {_id: {$in: [a, b]}}, atLeast: 2}}}
  - {name: primary, mongo: {service: mongodb, member: PRIMARY, set: rs0}}
  - {name: set, mongo: {member: PRIMARY}}
  - {name: other-set, severity: warn, mongo: {member: PRIMARY, set: rs1}}
  - {name: secondary, severity: warn, mongo: {service: mongodb, member: SECONDARY}}
  - {name: changes, mongo: {changeStream: true}}
`)
	r := w.reconciler()
	saw, _ := w.saw(r)
	require.Equal(t, "true all of 0 documents", saw["protected"])
	require.Equal(t, "false 0 documents in dive.resources, expected 3 at least", saw["some"])
	require.Equal(t, "true PRIMARY of rs0", saw["primary"])
	require.Equal(t, "true PRIMARY of rs0", saw["set"])
	require.Equal(t, "false its set is rs0, expected rs1", saw["other-set"])
	require.Equal(t, "false it is PRIMARY of rs0, expected SECONDARY", saw["secondary"])
	require.Equal(t, "true a change stream on dive opens", saw["changes"])

	resources := db.Collection("resources")
	_, err := resources.InsertMany(t.Context(), []any{protected("a", ""), protected("b", ""), protected("c", "")})
	require.NoError(t, err)
	saw, _ = w.saw(r)
	require.Equal(t, "true all of 3 documents", saw["protected"])
	require.Equal(t, "true all of 3 documents", saw["some"])
	require.Equal(t, "true all of 2 documents", saw["filtered"])

	_, err = resources.InsertMany(t.Context(), []any{protected("d", "keys"), protected("e", "ztdf"), protected("f", "encrypted")})
	require.NoError(t, err)
	facts := w.facts(r)
	require.Equal(t, "3 of 6 documents in dive.resources: 1 without encrypted true, 2 without ztdf.payload.keyAccessObjects", facts["protected"].Saw)
	require.False(t, facts["protected"].Passed)
	require.Equal(t, map[string]int64{"documents": 6, "without": 3}, facts["protected"].Counts)
	require.True(t, facts["filtered"].Passed)
	require.Equal(t, int64(1), facts["primary"].Counts["members"])
}

// TestNoReplicaSetIsSaid: a server on its own opens no change stream and is no member.
func TestNoReplicaSetIsSaid(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.runMongo()
	w.checks(`checks: [{name: up, mongo: {command: {ping: 1}}}]`)
	r := w.reconciler()
	w.pass(r)
	w.checks(`
within: 0s
checks:
  - {name: changes, mongo: {changeStream: true}}
  - {name: member, mongo: {member: PRIMARY}}
`)
	saw, _ := w.saw(r)
	require.Contains(t, saw["changes"], "only supported on replica sets")
	require.Equal(t, "false it is no member of a replica set, expected PRIMARY", saw["member"])
}

func TestAudit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.runPostgres()
	const login = `service: postgres, user: audit, password: "${POSTGRES_PASSWORD}"`
	w.checks(`checks: [{name: up, sql: {` + login + `, query: "select 1"}}]`)
	r := w.reconciler()
	w.pass(r)
	w.checks(`
within: 0s
checks:
  - {name: audit, audit: {` + login + `, databases: [audit, keycloak_db]}}
  - {name: tables, audit: {` + login + `, tables: [audit_log], views: [], functions: []}}
  - {name: database, audit: {` + login + `, tables: [], views: [], functions: [], databases: [audit]}}
`)
	saw, _ := w.saw(r)
	require.Equal(t, "false missing: table audit_log, table authorization_log, table federation_log, view recent_authorization_denials, "+
		"view federation_activity_summary, function cleanup_old_audit_records, database keycloak_db", saw["audit"])
	require.Equal(t, "true 1 database", saw["database"])

	c, err := w.lab.Find(t.Context(), "postgres")
	require.NoError(t, err)
	conn, err := pgx.Connect(t.Context(), fmt.Sprintf("postgres://audit:%s@%s:5432/audit", postgresPassword, c.Addr()))
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.Background()) }()
	for _, statement := range []string{
		"create table audit_log (id int)", "create table authorization_log (id int)", "create table federation_log (id int)",
		"create view recent_authorization_denials as select * from authorization_log",
		"create table federation_activity_summary (id int)", // a table under the name of a view is no view
		"create function cleanup_old_audit_records() returns int language sql as 'select 1'",
		"create database keycloak_db",
	} {
		_, err := conn.Exec(t.Context(), statement)
		require.NoError(t, err, statement)
	}
	facts := w.facts(r)
	require.Equal(t, "missing: view federation_activity_summary", facts["audit"].Saw)
	require.Equal(t, map[string]int64{"tables": 3, "views": 1, "functions": 1, "databases": 2, "missing": 1}, facts["audit"].Counts)
	require.Equal(t, "1 table", facts["tables"].Saw)
	_, err = conn.Exec(t.Context(), "drop table federation_activity_summary; create view federation_activity_summary as select 1 as one")
	require.NoError(t, err)
	require.Equal(t, "3 tables, 2 views, 1 function, 2 databases", w.facts(r)["audit"].Saw)
}
