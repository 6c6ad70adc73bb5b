CREATE TABLE imports (
  instance   TEXT PRIMARY KEY,
  host       TEXT NOT NULL,
  commit_id  TEXT NOT NULL,
  committed  INTEGER NOT NULL,
  generation INTEGER NOT NULL,
  content    BLOB NOT NULL
) STRICT;
