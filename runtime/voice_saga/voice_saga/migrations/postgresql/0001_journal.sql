-- The sagas' journal. Every statement may run again.
CREATE SCHEMA IF NOT EXISTS saga;

CREATE TABLE IF NOT EXISTS saga.sagas (
    id          text PRIMARY KEY,
    name        text NOT NULL,
    version     integer NOT NULL,
    fingerprint text NOT NULL,
    input       json NOT NULL,
    trace       text NOT NULL DEFAULT '',
    state       text NOT NULL,
    reason      text NOT NULL DEFAULT '',
    owner       text,
    epoch       bigint NOT NULL DEFAULT 0,
    due         timestamptz NOT NULL,
    entries     integer NOT NULL DEFAULT 0,
    claims      integer NOT NULL DEFAULT 0,
    signals     integer NOT NULL DEFAULT 0,
    started_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at  timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);  -- leaves room on the page for new versions of a row; an update of unindexed columns then changes no index

-- A saga that has ended or is parked is never due, so it is not in this index.
CREATE INDEX IF NOT EXISTS sagas_due ON saga.sagas (due) WHERE due < 'infinity';
CREATE INDEX IF NOT EXISTS sagas_started ON saga.sagas (started_at);
CREATE INDEX IF NOT EXISTS sagas_unfinished ON saga.sagas (name, state)
    WHERE state NOT IN ('completed', 'compensated', 'abandoned');

CREATE TABLE IF NOT EXISTS saga.entries (
    saga_id  text NOT NULL,
    sequence integer NOT NULL,
    kind     text NOT NULL,
    step     text NOT NULL,
    data     json NOT NULL,
    epoch    bigint NOT NULL,
    at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (saga_id, sequence)
);

-- The outcomes that came from outside the saga. The first outcome of a step counts.
CREATE TABLE IF NOT EXISTS saga.outcomes (
    saga_id text NOT NULL,
    step    text NOT NULL,
    result  json NOT NULL,
    error   text,
    trace   text NOT NULL,
    at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (saga_id, step)
);
