-- What a step's own transaction has let through; belongs in the database that the step writes to.
CREATE TABLE IF NOT EXISTS barriers (
    saga_id TEXT NOT NULL,
    step    TEXT NOT NULL,
    branch  TEXT NOT NULL,
    origin  TEXT NOT NULL,
    result  TEXT,
    PRIMARY KEY (saga_id, step, branch)
) STRICT, WITHOUT ROWID;
