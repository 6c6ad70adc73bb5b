-- The revision that another instance said of itself; empty: it was not read yet.
ALTER TABLE imports ADD COLUMN revision TEXT NOT NULL DEFAULT '';
