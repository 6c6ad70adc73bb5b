CREATE TABLE instances (
  name              TEXT PRIMARY KEY,
  host              TEXT NOT NULL,
  machine_id        TEXT NOT NULL,
  attempted         TEXT NOT NULL,
  applied           TEXT NOT NULL,
  applied_tree      TEXT NOT NULL,
  applied_digest    TEXT NOT NULL,
  phase             TEXT NOT NULL,
  rejected_revision TEXT,
  rejected_reason   TEXT,
  rejected_since    INTEGER,
  suspended_by      TEXT,
  suspended_reason  TEXT,
  suspended_since   INTEGER,
  generation        INTEGER NOT NULL,
  updated           INTEGER NOT NULL
) STRICT;

CREATE TABLE runs (
  id       TEXT PRIMARY KEY,
  instance TEXT NOT NULL,
  revision TEXT NOT NULL,
  trigger  TEXT NOT NULL,
  started  INTEGER NOT NULL,
  finished INTEGER NOT NULL,
  outcome  TEXT NOT NULL,
  message  TEXT NOT NULL
) STRICT;
CREATE INDEX runs_by_instance ON runs (instance, id);
CREATE INDEX runs_open ON runs (id) WHERE finished = 0;

CREATE TABLE steps (
  run      TEXT NOT NULL,
  seq      INTEGER NOT NULL,
  node     TEXT NOT NULL,
  action   TEXT NOT NULL,
  address  TEXT NOT NULL,
  started  INTEGER NOT NULL,
  finished INTEGER NOT NULL,
  outcome  TEXT NOT NULL,
  message  TEXT NOT NULL,
  PRIMARY KEY (run, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE nodes (
  instance      TEXT NOT NULL,
  id            TEXT NOT NULL,
  state         TEXT NOT NULL,
  message       TEXT NOT NULL,
  facts         TEXT,
  plan          TEXT NOT NULL,
  since         INTEGER NOT NULL,
  updated       INTEGER NOT NULL,
  last_duration INTEGER NOT NULL,
  PRIMARY KEY (instance, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE events (
  seq      INTEGER PRIMARY KEY AUTOINCREMENT,
  time     INTEGER NOT NULL,
  instance TEXT NOT NULL,
  node     TEXT NOT NULL,
  kind     TEXT NOT NULL,
  message  TEXT NOT NULL,
  run      TEXT NOT NULL
) STRICT;
CREATE INDEX events_by_instance ON events (instance, seq);

CREATE TABLE outbox (
  id       INTEGER PRIMARY KEY AUTOINCREMENT,
  kind     TEXT NOT NULL,
  target   TEXT NOT NULL,
  instance TEXT NOT NULL,
  key      TEXT NOT NULL,
  payload  BLOB NOT NULL,
  event    INTEGER NOT NULL,
  attempts INTEGER NOT NULL,
  next     INTEGER NOT NULL,
  created  INTEGER NOT NULL,
  died     INTEGER NOT NULL,
  reason   TEXT NOT NULL
) STRICT;
CREATE INDEX outbox_lines ON outbox (kind, target, instance, id) WHERE died = 0;

CREATE TABLE pushed (
  instance TEXT PRIMARY KEY,
  digest   TEXT NOT NULL,
  commit_id TEXT NOT NULL,
  time     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE kv (
  key   TEXT PRIMARY KEY,
  value BLOB NOT NULL
) STRICT, WITHOUT ROWID;
