-- The barriers: one row for each action or compensation that has run or that must not run any more. The table belongs in
-- the database to which the steps write.
CREATE TABLE IF NOT EXISTS barriers (
    saga_id TEXT NOT NULL,
    step    TEXT NOT NULL,
    branch  TEXT NOT NULL,
    origin  TEXT NOT NULL,
    result  TEXT,
    PRIMARY KEY (saga_id, step, branch)
) STRICT, WITHOUT ROWID;
