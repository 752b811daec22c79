-- The sagas' journal in one process. Times are seconds since 1970, except `due`: seconds of the machine's monotonic
-- clock. Every statement may run again.
CREATE TABLE IF NOT EXISTS sagas (
    id          TEXT PRIMARY KEY,
    name        TEXT NOT NULL,
    version     INTEGER NOT NULL,
    fingerprint TEXT NOT NULL,
    input       TEXT NOT NULL,
    trace       TEXT NOT NULL,
    state       TEXT NOT NULL,
    reason      TEXT NOT NULL DEFAULT '',
    owner       TEXT,
    epoch       INTEGER NOT NULL,
    due         REAL NOT NULL,
    entries     INTEGER NOT NULL,
    claims      INTEGER NOT NULL,
    signals     INTEGER NOT NULL DEFAULT 0,
    started_at  REAL NOT NULL,
    updated_at  REAL NOT NULL
) STRICT;

CREATE INDEX IF NOT EXISTS sagas_due ON sagas (due) WHERE due < 9e999;
CREATE INDEX IF NOT EXISTS sagas_started ON sagas (started_at);

CREATE TABLE IF NOT EXISTS entries (
    saga_id  TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    kind     TEXT NOT NULL,
    step     TEXT NOT NULL,
    data     TEXT NOT NULL,
    epoch    INTEGER NOT NULL,
    at       REAL NOT NULL,
    PRIMARY KEY (saga_id, sequence)
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS outcomes (
    saga_id TEXT NOT NULL,
    step    TEXT NOT NULL,
    result  TEXT NOT NULL,
    error   TEXT,
    trace   TEXT NOT NULL,
    PRIMARY KEY (saga_id, step)
) STRICT, WITHOUT ROWID;
